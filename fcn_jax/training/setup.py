"""Turn a configuration into everything that a training needs, built and checked before the run is written to."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fcn_jax.config import TILE, Config, InputConfig, RunOptions
from fcn_jax.data.batches import require_room
from fcn_jax.data.dataset import Dataset, Example, Source, prepare_configured
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.inputs import describe_inputs
from fcn_jax.data.outline import outline_dataset
from fcn_jax.data.sources import choose_inputs, get_source
from fcn_jax.data.tasks import Task, count_classes, name_scores
from fcn_jax.errors import InputError
from fcn_jax.inference.segment import Forward, make_forward
from fcn_jax.inference.tiles import Tiling, plan_tiles
from fcn_jax.layers.backend import count_devices, is_cpu
from fcn_jax.models.build import Network, build, shape_variables
from fcn_jax.runs.checkpoint_files import find_latest_step
from fcn_jax.runs.run_dir import open_run
from fcn_jax.runtime.traced import keep_traced
from fcn_jax.training.optim import check_groups
from fcn_jax.training.rewind import adopt_rate_cuts
from fcn_jax.training.start import choose_input, is_at_hand, match_start, read_start
from fcn_jax.training.state import TrainState, init_state
from fcn_jax.training.step import make_step
from fcn_jax.weights.merge import Match


class Setup(NamedTuple):
    """Everything that a training needs.

    Attributes:
        config: the values that decide the numbers, all of them set.
        options: the conduct of the run, with every interval set.
        resume_step: step of the checkpoint that the run resumes from; None: the run is new.
        dataset: the prepared data.
        train_source: the split to train on.
        val_source: the split to evaluate on.
        sharding: sharding of batches over the devices of all hosts, along the mesh axis "data".
        everywhere: sharding of the state, a copy on every device.
        model: the network.
        init: jitted function that initialises the state before the first step on all devices.
        start: the weights that a new run starts from, matched to the network; None: it starts from scratch.
        step: the training step, jitted.
        forward: the forward pass of the evaluation, jitted.
        tiling: size of the tiles of large images in the evaluation.
    """

    config: Config
    options: RunOptions
    resume_step: int | None
    dataset: Dataset
    train_source: Sequence[Example]
    val_source: Sequence[Example]
    sharding: NamedSharding
    everywhere: NamedSharding
    model: Network
    init: Callable[[], TrainState]
    start: Match | None
    step: Callable[..., Any]
    forward: Forward
    tiling: Tiling | None


def set_up(config: Config, options: RunOptions, run_dir: Path) -> Setup:
    """Build and check everything that a training needs.

    This is the one place that decides where a run resumes: at its latest checkpoint. A resumed run does not read the
    weights it started from, so their files may be gone. A dry run does without weights that are not there, and without
    the files of a data set whose sizes are known.

    Args:
        config: what to train; values left open are the data set's defaults.
        options: how to conduct the run.
        run_dir: the run directory, which may not exist yet.

    Raises:
        InputError: configuration, data or weights that do not fit.
    """
    config = adopt_rate_cuts(fill_config(config), run_dir)
    options = fill_options(options, config)
    sharding = _shard_batches(config)
    resume_step = find_latest_step(run_dir)
    if resume_step is not None and resume_step > config.ends[-1]:
        raise InputError(
            f"{run_dir} has taken {resume_step} steps, and these flags end at step {config.ends[-1]}; give the --steps "
            "and --extend that it was trained with, or another --run-dir"
        )
    weights, inputs = None, choose_inputs(get_source(config.data.name), config.data.inputs)
    if resume_step is None and (is_at_hand(config.model) or not options.dry_run):
        weights = read_start(config.model, options.data.cache, [each.name for each in inputs])
    stored = None if resume_step is None else open_run(run_dir).config.model.input

    def choose(data: InputConfig) -> InputConfig:
        given = config.model.input
        # A run of other channels is refused later, with all that differs from it.
        if given is None and stored and (stored.channels, stored.dtype) == (data.channels, data.dtype):
            given = stored
        return choose_input(given, weights, config.model.allow, data)

    if all(each.mean for each in inputs):  # nothing has to be measured, so wrong flags fail before the data is prepared
        choose(describe_inputs(inputs))

    data = options.data
    dataset = outline_dataset(config.data, data) if options.dry_run else None
    dataset = dataset or prepare_configured(config.data, data, options.on_bad_example == "skip")
    model_config = dataclasses.replace(config.model, input=choose(dataset.input))
    config = fill_config(dataclasses.replace(config, model=model_config))
    _check_class_weights(config, dataset.tasks)
    train_source = _open_split(dataset, "--data.train-split", config.data.train_split)
    val_source = _open_split(dataset, "--data.val-split", data.val_split, config.data.train_split)
    if data.decoded == "device":
        require_room(len(train_source), dataset.max_size, dataset.input.bytes_per_pixel + len(dataset.tasks))

    model = build(config.model, *count_classes(dataset.tasks))
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    # `init` runs once. On CPUs LLVM's first level of optimisation gives the same bits and compiles in half the time.
    fast_compile = {"xla_backend_optimization_level": 1} if is_cpu() else None
    traced = keep_traced(partial(init_state, model, config), model, config)
    init = jax.jit(traced, out_shardings=everywhere, compiler_options=fast_compile)
    shapes = shape_variables(model, config.model.input_or_default.num_channels)
    check_groups(config.optim, shapes["params"])
    start = None if weights is None else match_start(config.model, shapes, weights, dataset.tasks)
    return Setup(
        config=config,
        options=options,
        resume_step=resume_step,
        dataset=dataset,
        train_source=train_source,
        val_source=val_source,
        sharding=sharding,
        everywhere=everywhere,
        model=model,
        init=init,
        start=start,
        step=make_step(model, config),
        forward=make_forward(model, config.model.input_or_default),
        tiling=plan_tiles(model, TILE, config.model.input_or_default.num_channels),
    )


def _shard_batches(config: Config) -> NamedSharding:
    """Make the sharding that splits batches along their first axis over all devices of all hosts."""
    devices = count_devices()
    assert config.batch_size is not None
    if config.batch_size % (devices * config.accumulate):
        raise InputError(
            f"batch-size {config.batch_size} cannot be split over {devices} devices and {config.accumulate} "
            f"accumulation steps; give a multiple of {devices * config.accumulate}"
        )
    return NamedSharding(jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))


def _open_split(dataset: Dataset, flag: str, split: str | None, trained_on: str | None = None) -> Source:
    assert split
    if split not in (*dataset.splits, *dataset.unlabelled):
        remedies = [f"choose one with {flag}"] if any(other != trained_on for other in dataset.splits) else []
        remedies += ["set a tenth of the training split apart with --data.hold-out 0.1"] if trained_on else []
        raise InputError(
            f"{dataset.name} has no split {split!r} here; it has {', '.join(dataset.splits)}: {', or '.join(remedies)}"
        )
    return dataset.source(split)


def _check_class_weights(config: Config, tasks: tuple[Task, ...]) -> None:
    weights, class_names = config.optim.class_weights, name_scores(tasks)
    if weights and len(weights) != len(class_names):
        raise InputError(
            f"optim.class-weights has {len(weights)} values for {len(class_names)} classes; give one for each of "
            + ", ".join(class_names)
        )
