"""Train FCN-8s with a loop of your own: `python experiments/minimal/train.py`.

The network and the data come from fcn_jax. The rest is plain JAX, optax and NumPy, to copy and to change.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fcn_jax import FCN8s
from fcn_jax.data.dataset import prepare

BATCH = 8
SIDE = 96  # pixels; no image of `shapes` is higher or wider
VOID = 255  # label of pixels that count neither in the loss nor in the scores

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300, help="number of training steps")
parser.add_argument("--seed", type=int, default=0, help="seed of the parameters and of the choice of images")
args = parser.parse_args()


def load(source):
    """Load a split, padded to squares: float32[count, 96, 96, 3] in -1 to 1, and int32[count, 96, 96] labels."""
    images = np.zeros((len(source), SIDE, SIDE, 3), np.float32)
    labels = np.full((len(source), SIDE, SIDE), VOID, np.int32)
    for index, (_, image, label) in enumerate(source):
        height, width = label.shape
        images[index, :height, :width] = image / 127.5 - 1
        labels[index, :height, :width] = label
    return images, labels


dataset = prepare("shapes")
images, labels = load(dataset.source("train"))
classes = range(len(dataset.class_names))

model = FCN8s(len(classes), backbone="resnet18")
variables = jax.jit(model.init)(jax.random.key(args.seed), images[:1])
optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, args.steps), momentum=0.9)
state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])


@partial(jax.jit, donate_argnums=0)  # the new state takes the memory of the old one
def train_step(state, images, labels):
    params, batch_stats, opt_state = state

    def compute_loss(params):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        valid = labels != VOID
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(valid, labels, 0))
        mean = jnp.where(valid, losses, 0).sum() / jnp.maximum(valid.sum(), 1)
        return mean, updated["batch_stats"]

    (loss, new_batch_stats), gradient = jax.value_and_grad(compute_loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradient, opt_state)
    return (optax.apply_updates(params, updates), new_batch_stats, opt_state), loss


rng = np.random.default_rng(args.seed)
for step in range(1, args.steps + 1):
    batch = rng.choice(len(images), BATCH, replace=False)
    state, loss = train_step(state, images[batch], labels[batch])
    if step == 1 or step % 10 == 0:
        print(f"step {step:4}  loss {loss:.3f}", flush=True)

variables = {"params": state[0], "batch_stats": state[1]}
predict = jax.jit(lambda variables, images: model.apply(variables, images).argmax(axis=-1))
images, labels = load(dataset.source("val"))
predicted = np.concatenate([predict(variables, images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
truth, predicted = labels[labels != VOID], predicted[labels != VOID]
overlap = np.array([np.sum((truth == c) & (predicted == c)) for c in classes])
union = np.array([np.sum((truth == c) | (predicted == c)) for c in classes])
print(f"val: pixel accuracy {overlap.sum() / truth.size:.3f}, mean IU {np.mean(overlap / union):.3f}")
