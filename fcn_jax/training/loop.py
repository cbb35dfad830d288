"""Training: one pure step, and the loop around it."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from fcn_jax.config import Config
from fcn_jax.data import dataset as datasets
from fcn_jax.data.augment import augment, step_keys
from fcn_jax.data.batches import Batch, require_room, train_batches
from fcn_jax.data.decoded import decoded
from fcn_jax.errors import InputError
from fcn_jax.inference.evaluate import Evaluation, evaluate
from fcn_jax.inference.segment import Forward, default_batch_size, make_forward
from fcn_jax.inference.visualize import Panels
from fcn_jax.layers.conv import compiler_options
from fcn_jax.models.build import Network, build
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.losses import cross_entropy
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.run_dir import Records, Run, alone, start_or_resume
from fcn_jax.runtime.memory import IN_EVALUATION, IN_TRAINING, explain_out_of_memory
from fcn_jax.runtime.trace import trace_steps
from fcn_jax.training import dry_run
from fcn_jax.training.optim import check_groups, held, learning_rate, optimizer
from fcn_jax.training.progress import InputWait, Progress, overview
from fcn_jax.training.start import starting_point
from fcn_jax.training.state import TrainState, init_state, restore_or_init
from fcn_jax.weights.merge import match_weights


def train_step(
    state: TrainState, batch: Batch, *, model: Network, config: Config
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step of SGD on a batch, a pure function of its arguments.

    Under `jax.jit` with the batch sharded over devices the sums over it, of the loss, the gradient and BatchNorm, are
    over the global batch; XLA adds the communication.

    Args:
        state: before the step.
        batch: images on a canvas, not yet augmented.
        model: the network.
        config: a resolved configuration.

    Returns:
        The state after the step, and its loss (before the update) and gradient norm.
    """
    keys, dropout_key = step_keys(config.seed, state.step, len(batch.image))
    image, label, size, origin = jax.tree.map(jnp.asarray, batch)
    augmented = partial(augment, config=config.augment, input_config=config.model.settled_input)
    images, labels = jax.vmap(augmented)(keys, image, label, size, origin=origin)
    weights = None if config.optim.class_weights is None else jnp.array(config.optim.class_weights)
    loss = partial(cross_entropy, class_weights=weights, label_smoothing=config.optim.label_smoothing)

    # Scores, and where the network has them auxiliary ones.
    apply = partial(model.apply, return_aux=True) if isinstance(model, DilatedFCN) else model.apply

    def summed_loss(params: Any, statistics: Any, part: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        images, labels, key = part
        scores, updates = apply(
            {"params": held(config.optim, params), **statistics},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        logits, *auxiliary = scores if isinstance(scores, tuple) else (scores,)
        total, weight = loss(logits, labels)
        for logits in auxiliary:
            total += config.optim.auxiliary_weight * loss(logits, labels)[0]
        return total, (weight, {**statistics, **updates})

    def add_part(sums: Any, part: tuple[Array, Array, Array]) -> tuple[Any, None]:
        gradient, total, weight, statistics = sums
        differentiated = jax.value_and_grad(summed_loss, has_aux=True)
        (part_total, (part_weight, statistics)), part_gradient = differentiated(params, statistics, part)
        gradient = jax.tree.map(jnp.add, gradient, part_gradient)
        return (gradient, total + part_total, weight + part_weight, statistics), None

    params = state.variables["params"]
    statistics = {name: value for name, value in state.variables.items() if name != "params"}
    parts = config.accumulate
    sums = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()), statistics)
    if parts == 1:
        sums, _ = add_part(sums, (images, labels, dropout_key))
    else:
        # Every parts-th image, so that each device keeps the images it holds.
        images, labels = (jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0) for x in (images, labels))
        sums, _ = jax.lax.scan(add_part, sums, (images, labels, jax.random.split(dropout_key, parts)))
    gradient, total, weight, statistics = sums

    # Where all is void the sum is 0 too, and nothing is divided by.
    scale = 1 / jnp.where(weight > 0, weight, 1.0) if config.optim.reduction == "mean" else jnp.ones(())
    gradient = jax.tree.map(lambda g: g * scale, gradient)
    updates, opt_state = optimizer(config.optim, config.steps).update(gradient, state.opt_state, params)
    variables = {"params": optax.apply_updates(params, updates), **statistics}
    metrics = {"loss": total * scale, "gradient_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, variables, opt_state), metrics


def make_step(model: Network, config: Config) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The jitted `train_step`; the state it is given is used up."""
    step = partial(train_step, model=model, config=config)
    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options())


def train(config: Config, folder: Path, say: Callable[[str], None] = print) -> Evaluation | None:
    """Trains, or goes on with the run that is there.

    Args:
        config: what to train; what it leaves open comes from the data set.
        folder: the run directory.
        say: takes lines for the user.

    Returns:
        The evaluation after the last step; None where there was nothing to do, a signal stopped the run, or it was dry.

    Raises:
        InputError: data or configuration that do not fit.
        FloatingPointError: the loss is no longer finite.
        OutOfMemory: a step or an evaluation needs more than there is.
    """
    config = config.resolved()
    sharding = _data_sharding(config)
    config, weights = starting_point(config, folder)
    data = config.data
    dataset = datasets.prepare(data.name, data.dir, data.cache, classes=data.classes, void=data.void)
    _check_classes(config, dataset.class_names)
    train_source, val_source = dataset.source(data.train_split), dataset.source(data.val_split)
    if data.decoded == "device":
        require_room(len(train_source), dataset.max_size)

    model = build(config.model, len(dataset.class_names))
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    # It runs once: on CPUs LLVM's first level of optimisation gives the same bits and is compiled in half the time.
    quickly = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    init = jax.jit(partial(init_state, model, config), out_shardings=everywhere, compiler_options=quickly)
    shapes = jax.eval_shape(init).variables
    check_groups(config.optim, shapes["params"])
    start = None if weights is None else match_weights(shapes, weights, dataset.class_names, config.model.allow)
    forward = make_forward(model, config.model.settled_input)
    if config.dry_run:
        step, like, images = partial(make_step, model), jax.eval_shape(init), default_batch_size(config.eval_batch_size)
        say(dry_run.report(config, step, forward, like, sharding, dataset.max_size, images))
        return None
    run = start_or_resume(folder, config, dataset)  # nothing is written before all of this is found right
    step_fn = make_step(model, config)
    rate = learning_rate(config.optim, config.steps)

    what = f"a training step with crops of {config.augment.crop}x{config.augment.crop}"
    with (
        alone(folder),
        Checkpoints(run.checkpoints, config.keep) as checkpoints,
        _stop_signals() as stopped,
        explain_out_of_memory(step_fn, what, IN_TRAINING) as step_fn,
    ):
        state, first = restore_or_init(checkpoints, init, everywhere)
        if start is not None:
            say(str(start))
            state = state.replace(variables=jax.device_put(start.merge_into(state.variables), everywhere))
            weights = start = None  # frees their memory
        say(overview(state.variables["params"]))
        say(f"{run.folder}: " + (f"goes on after step {first} of {config.steps}" if first else f"{config.steps} steps"))
        if data.decoded == "disk":
            train_source = decoded(dataset, data.train_split)
        batches = train_batches(train_source, dataset.max_size, config, first, sharding)
        wait, metrics = InputWait(), None
        with (
            contextlib.closing(Records(run.folder, first)) as records,
            Progress(config, first) as progress,
            trace_steps(step_fn, config.profile, run.folder / "profile", progress.say) as step_fn,
        ):
            if config.steps == 0 and checkpoints.latest() is None:
                evaluation = _evaluate(forward, state.variables, val_source, run, records, 0)
                progress.say(f"before any step: {describe(evaluation)}")
                items = {"variables": state.variables, "optimizer": state.opt_state}
                checkpoints.save(0, items, {"mean_iu": evaluation.metrics.mean_iu})
                return evaluation
            for step in range(first + 1, config.steps + 1):
                state, metrics = step_fn(state, wait.take(batches, metrics))
                last = step == config.steps or stopped()
                evaluates = step % config.eval_every == 0 or step == config.steps
                saves = step % config.checkpoint_every == 0 or last or evaluates
                logs = step % config.log_every == 0 or last
                if logs or saves:  # what has diverged is not saved
                    values = {name: float(value) for name, value in metrics.items()}
                    _require_finite(values, step)
                if logs:
                    values |= {"learning_rate": float(jnp.asarray(rate(step - 1))), "input_wait": wait.share()}
                    progress.show(step, values["loss"], values["input_wait"])
                    records.add(step, "train", values)
                evaluation = None
                if evaluates:
                    evaluation = _evaluate(forward, state.variables, val_source, run, records, step)
                    progress.say(f"step {step}: {describe(evaluation)}")
                    wait.restart()
                if saves:
                    score = {"mean_iu": evaluation.metrics.mean_iu} if evaluation else None
                    checkpoints.save(step, {"variables": state.variables, "optimizer": state.opt_state}, score)
                if step == config.steps:
                    return evaluation
                if last:
                    progress.say(f"stopped after step {step}, which is saved; the same command goes on from there")
                    return None
    say(f"{run.folder} has all of its {config.steps} steps; nothing to do")
    return None


def describe(evaluation: Evaluation) -> str:
    """An evaluation in a line."""
    metrics, seconds = evaluation.metrics, evaluation.seconds
    return (
        f"mean IU {metrics.mean_iu:.4f}, pixel accuracy {metrics.pixel_accuracy:.4f}, loss {evaluation.loss:.4f} "
        f"({evaluation.num_examples} images in {seconds:.1f} s, {evaluation.num_examples / seconds:.1f} images/s, "
        f"{evaluation.programs} canvas sizes)"
    )


def _evaluate(
    forward: Forward, variables: Any, source: Sequence[datasets.Example], run: Run, records: Records, step: int
) -> Evaluation:
    """Scores the val split, writes its line and its panels."""
    panels = Panels(source, run.palette, run.class_names)
    with explain_out_of_memory(forward, "evaluation", IN_EVALUATION) as noted:
        evaluation = evaluate(
            noted,
            variables,
            source,
            len(run.class_names),
            default_batch_size(run.config.eval_batch_size),
            run.config.workers,
            panels.add,
        )
    records.add(step, "val", evaluation.summary())
    if (picture := panels.draw()) is not None:
        records.picture(step, "image, truth, prediction", picture)
    return evaluation


def _data_sharding(config: Config) -> NamedSharding:
    """Batches split over all devices of all hosts along their first axis, the mesh axis "data"."""
    devices = jax.device_count()
    if config.batch_size % (devices * config.accumulate):
        raise InputError(
            f"batch-size {config.batch_size} cannot be split over {devices} devices and {config.accumulate} "
            f"accumulation steps; give a multiple of {devices * config.accumulate}"
        )
    return NamedSharding(jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))


def _check_classes(config: Config, class_names: tuple[str, ...]) -> None:
    weights = config.optim.class_weights
    if weights and len(weights) != len(class_names):
        raise InputError(
            f"optim.class-weights has {len(weights)} values for {len(class_names)} classes; give one for each of "
            + ", ".join(class_names)
        )


def _require_finite(values: dict[str, float], step: int) -> None:
    if not all(math.isfinite(value) for value in values.values()):
        raise FloatingPointError(
            f"loss {values['loss']} and gradient norm {values['gradient_norm']} at step {step}: training has diverged; "
            "lower --optim.learning-rate, add --optim.warmup-steps or set --optim.clip-norm"
        )


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a wish to stop after the running step; a second SIGINT interrupts."""
    received = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    # Hosts that stop at different steps would wait for each other for ever, so only a lone process does this.
    numbers = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else ()
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
