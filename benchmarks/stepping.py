"""The sides of train_step.py: a training step and a forward pass, ours, a plain user's and PyTorch's.

Each function runs in a worker (separate.py): it compiles everything, and returns what is measured by name.
"""

import os
from collections.abc import Callable
from typing import Any

from meters import resident
from pytorch_networks import CLASSES, torch_dilated, torch_fcn8s
from separate import alone

DILATED = "dilated"  # the network of that name; all others are FCN-8s on the backbone of their name
Functions = dict[str, Callable[[], Any]]


def ours(network: str, side: int, batch: int, dtype: str, classes: int = CLASSES) -> Functions:
    """Prepare the program's own step, its operations and memory, and the forward pass."""
    from functools import cache, partial

    import jax
    import jax.numpy as jnp
    import numpy as np

    from fcn_jax.config import AugmentConfig, Config, ModelConfig, OptimConfig
    from fcn_jax.data.augment import draw_changes
    from fcn_jax.data.canvas import Batch
    from fcn_jax.data.defaults import fill_config
    from fcn_jax.layers import jit_options
    from fcn_jax.models.build import build
    from fcn_jax.runtime.compiler_memory import give_back_memory
    from fcn_jax.runtime.operations import count_flops
    from fcn_jax.training.state import init_state
    from fcn_jax.training.step import make_step

    head, backbone = ("dilated", "resnet50") if network == DILATED else ("fcn8s", network)
    give_back_memory()  # as `fcn-jax` does
    config = fill_config(
        Config(
            model=ModelConfig(head, backbone, dtype=dtype),
            augment=AugmentConfig(crop=side, scale=(1.0, 1.0)),
            optim=OptimConfig(learning_rate=1e-3),
            batch_size=batch,
            steps=100,
        )
    )
    model = build(config.model, classes)
    state = jax.jit(partial(init_state, model, config))()
    rng = np.random.default_rng(0)
    sizes = np.full((batch, 2), side, np.int32)
    data = Batch(
        rng.integers(0, 256, (batch, side, side, 3), np.uint8),
        rng.integers(0, min(classes, 255), (batch, side, side), np.uint8),
        sizes,
        draw_changes(config.seed, 0, sizes, 0, batch, config.augment),
    )
    data = jax.device_put(data)
    traced = make_step(model, config).trace(state, data)
    lowered = traced.lower()
    with alone():
        step = lowered.compile()

    @cache  # at the first call, after the memory of the step has been read
    def compile_forward() -> Callable[[], Any]:
        images = jnp.asarray(rng.normal(size=(batch, side, side, 3)), jnp.float32)
        lowered = jax.jit(model.apply, **jit_options(training=False)).lower(state.variables, images)
        with alone():
            forward = lowered.compile()
        return lambda: jax.block_until_ready(forward(state.variables, images))

    def take_step() -> None:
        nonlocal state
        state, metrics = step(state, data)
        jax.block_until_ready(metrics)

    def read_memory() -> int:
        on_gpu = jax.default_backend() == "gpu"
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] if on_gpu else resident()

    return {
        "step": take_step,
        "forward": lambda: compile_forward()(),
        "memory": read_memory,
        "flops": lambda: count_flops(traced.jaxpr.jaxpr),
    }


def plain(network: str, side: int, batch: int) -> Functions:
    """Prepare a step as another project would write it with our network, without and with `jit_options`."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from fcn_jax import FCN8s
    from fcn_jax.layers import jit_options

    model = FCN8s(num_classes=CLASSES, backbone=network)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(1e-3, momentum=0.9))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch, side, side, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, (batch, side, side)), jnp.int32)

    def take_step(state: tuple, images: jax.Array, labels: jax.Array) -> tuple:
        def compute_loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, **statistics}
            logits, updates = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, {**statistics, **updates}

        params, statistics, opt_state, key = state
        key, following = jax.random.split(key)
        (_, statistics), gradient = jax.value_and_grad(compute_loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), statistics, opt_state, following

    def make(options: dict[str, Any]) -> Callable[[], None]:
        statistics = dict(jax.jit(model.init)(jax.random.key(0), images[:1, :32, :32]))
        params = statistics.pop("params")
        state = params, statistics, optimizer.init(params), jax.random.key(1)
        step = jax.jit(take_step, donate_argnums=0, **options).lower(state, images, labels).compile()

        def call() -> None:
            nonlocal state
            state = jax.block_until_ready(step(state, images, labels))

        return call

    return {"jax.jit": make({}), "jit_options": make(jit_options())}


def pytorch(network: str, side: int, batch: int, dtype: str, classes: int = CLASSES) -> Functions:
    """Prepare the same network, loss and optimizer in PyTorch."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does, and as cuDNN's convolutions do
    model = torch_dilated() if network == DILATED else torch_fcn8s(network, classes)
    model = model.to(device, memory_format=torch.channels_last)
    call = torch.compile(model) if cuda else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, min(classes, 255), (batch, side, side), device=device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
    wait = torch.cuda.synchronize if cuda else lambda: None

    def take_step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = call(images)
        # The dilated network has auxiliary scores too, whose loss counts half.
        pairs = zip(logits, (1.0, 0.5), strict=True) if network == DILATED else [(logits, 1.0)]
        cross_entropy = torch.nn.functional.cross_entropy
        sum(share * cross_entropy(scores.float(), labels, ignore_index=255) for scores, share in pairs).backward()
        optimizer.step()
        wait()

    def forward() -> None:
        model.eval()
        with torch.no_grad(), autocast:
            call(images)
        wait()

    if cuda:
        torch.backends.cudnn.deterministic = True  # what cuDNN chooses so is not found again when it may time
        forward()  # compiles, with all cases at once
        take_step()
        torch.backends.cudnn.deterministic = False
        with alone():  # cuDNN times its algorithms
            torch.backends.cudnn.benchmark = True
            forward()
            take_step()
    memory = torch.cuda.max_memory_allocated if cuda else resident
    return {"step": take_step, "forward": forward, "memory": memory}
