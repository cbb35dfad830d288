"""Train: set up, open the run, and take the steps."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.absent import describe_absent_classes
from fcn_jax.data.batches import train_batches
from fcn_jax.data.decoded import open_decoded
from fcn_jax.data.sources import get_source
from fcn_jax.errors import InputError, Stopped
from fcn_jax.inference.evaluate import Evaluation, evaluate
from fcn_jax.inference.segment import default_batch_size
from fcn_jax.inference.visualize import Panels
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.metrics_log import MetricsLog
from fcn_jax.runs.run_dir import Run, open_for_training, require_shared
from fcn_jax.runtime.files import expand_home
from fcn_jax.runtime.memory import IN_EVALUATION, IN_TRAINING, explain_out_of_memory
from fcn_jax.runtime.processes import explain_lost_process, fail_together
from fcn_jax.runtime.signals import catch_stop_signals
from fcn_jax.runtime.trace import trace_steps
from fcn_jax.training.advice import advise_steady
from fcn_jax.training.agreement import require_agreement
from fcn_jax.training.dry_run import describe_needs
from fcn_jax.training.optim import make_schedule
from fcn_jax.training.progress import InputWait, Progress, format_evaluation, format_extensions, format_parameters
from fcn_jax.training.setup import Setup, set_up
from fcn_jax.training.state import TrainState, restore_state, save_state


def train(
    config: Config, options: RunOptions, run_dir: str | Path, say: Callable[[str], None] = print
) -> Evaluation | None:
    """Train a new run, or resume the run in the directory.

    Args:
        config: what to train; values left open are the data set's defaults.
        options: how to conduct the run.
        run_dir: the run directory.
        say: function that shows a line to the user.

    Returns:
        The evaluation after the last step; None if there was nothing to do, or it was a dry run.

    Raises:
        Stopped: a signal has stopped the run, and its state is saved.
        InputError: configuration, data or weights that do not fit.
        FloatingPointError: the loss or the norm of the gradient is no longer finite.
        ProcessLost: another process of the training has ended.
        WriteFailed: a checkpoint could not be written; the run goes on from the one before it.
        OutOfMemory: a step or an evaluation needs more memory than there is.
    """
    run_dir = expand_home(run_dir)
    with fail_together():
        setup = set_up(config, options, run_dir)
    require_agreement(setup)
    extensions = format_extensions(setup.config)
    if setup.resume_step is None:
        _warn_of_absent_classes(setup, say)
    if options.dry_run:
        say("\n".join([*extensions, describe_needs(setup)]))
        return None
    what = f"a training step with crops of {setup.config.augment.crop}x{setup.config.augment.crop}"
    with (
        _open_together(run_dir, setup) as run,
        Checkpoints(run.checkpoints, run.options.keep) as checkpoints,
        catch_stop_signals() as is_stop_wanted,
        explain_out_of_memory(setup.step, what, IN_TRAINING) as step,
        explain_lost_process(),
    ):
        first, last = setup.resume_step or 0, run.config.ends[-1]
        if setup.resume_step == last:
            say(f"{run_dir} has all of its {last} steps; nothing to do")
            return None
        state = _begin(setup, checkpoints, say)
        say(format_parameters(state.variables["params"]))
        begins = f"{run_dir}: " + (f"goes on after step {first} of {last}" if first else f"{last} steps")
        say("\n".join([begins, *extensions]))
        with (
            MetricsLog(run_dir, first) as log,
            Progress(run.config, first) as progress,
            trace_steps(step, run.options.profile, run_dir / "profile", progress.say) as step,
        ):
            setup = setup._replace(step=step)
            if last == 0:
                return _score_start(setup, run, state, checkpoints, log, progress)
            return take_steps(setup, run, state, first, checkpoints, log, progress, is_stop_wanted)


def take_steps(
    setup: Setup,
    run: Run,
    state: TrainState,
    first: int,
    checkpoints: Checkpoints,
    log: MetricsLog,
    progress: Progress,
    is_stop_wanted: Callable[[int], bool],
) -> Evaluation:
    """Take the steps after step `first`, and log, evaluate and save on the way.

    Returns:
        The evaluation after the last step.

    Raises:
        Stopped: the run was asked to stop, and its state is saved.
        FloatingPointError: the loss or the norm of the gradient is no longer finite.
        WriteFailed: a checkpoint could not be written.
        OutOfMemory: an evaluation needs more memory than there is.
    """
    config, options = run.config, run.options
    assert options.eval_every
    assert options.checkpoint_every
    rate = make_schedule(config)
    source = setup.train_source
    if options.data.decoded == "disk":
        source = open_decoded(setup.dataset, config.data.train_split)
    batches = train_batches(source, setup.dataset.max_size, config, options, first, setup.sharding)
    wait, metrics = InputWait(), None
    for step in range(first + 1, config.ends[-1] + 1):
        state, metrics = setup.step(state, wait.take(batches, metrics))
        checkpoints.look_after()
        if step == first + 1:
            jax.block_until_ready(metrics)
            progress.restart(step)

        ends = step == config.ends[-1]
        stops = is_stop_wanted(step) or ends
        evaluates = step in config.ends or step % options.eval_every == 0
        saves = stops or evaluates or step % options.checkpoint_every == 0
        logs = stops or step % options.log_every == 0
        if logs or saves:  # a state that has diverged is not saved
            values = _read_finite(metrics, step, config)
        if logs:
            values |= {"learning_rate": float(jnp.asarray(rate(step - 1))), "input_wait": wait.share()}
            progress.show(step, values["loss"], values["input_wait"])
            log.add(step, "train", values)
        evaluation = None
        if evaluates:
            evaluation = _evaluate(setup, run, state.variables, log, step)
            progress.say(f"step {step}: {format_evaluation(evaluation)}")
            wait.restart()
        if saves:
            save_state(checkpoints, state, step, evaluation.metrics.mean_iu if evaluation else None)
            progress.restart(step)
        if ends:
            assert evaluation is not None
            return evaluation
        if stops:
            raise Stopped(f"stopped after step {step}, which is saved; the same command goes on from there")
    raise AssertionError("there is no step to take")


@contextlib.contextmanager
def _open_together(run_dir: Path, setup: Setup) -> Iterator[Run]:
    """Open the run directory in all processes, which have to see the same one."""
    with contextlib.ExitStack() as stack:
        with fail_together():
            run = stack.enter_context(open_for_training(run_dir, setup.config, setup.options, setup.dataset))
        with fail_together():
            require_shared(run_dir)
        yield run


def _warn_of_absent_classes(setup: Setup, say: Callable[[str], None]) -> None:
    dataset, split = setup.dataset, setup.config.data.train_split
    takes_map = get_source(dataset.name).takes_classes
    if absent := describe_absent_classes(dataset.pixels[split], dataset.class_names, takes_map):
        say(f"warning: split {split}: {absent}")


def _begin(setup: Setup, checkpoints: Checkpoints, say: Callable[[str], None]) -> TrainState:
    """Restore the state that the run resumes from, or initialise a new one and load the weights it starts from."""
    if checkpoints.latest() != setup.resume_step:
        raise InputError("another process has trained this run meanwhile; give the same command again")
    if setup.resume_step is not None:
        return restore_state(checkpoints, setup.resume_step, setup.init, setup.everywhere)
    state = setup.init()
    if setup.start is None:
        return state
    say(str(setup.start))
    return state.replace(variables=jax.device_put(setup.start.merge_into(state.variables), setup.everywhere))


def _score_start(
    setup: Setup, run: Run, state: TrainState, checkpoints: Checkpoints, log: MetricsLog, progress: Progress
) -> Evaluation:
    """Score and save the initial state of a run that takes no steps."""
    evaluation = _evaluate(setup, run, state.variables, log, 0)
    progress.say(f"before any step: {format_evaluation(evaluation)}")
    save_state(checkpoints, state, 0, evaluation.metrics.mean_iu)
    return evaluation


def _evaluate(setup: Setup, run: Run, variables: Any, log: MetricsLog, step: int) -> Evaluation:
    """Score the val split, and log the score and a picture."""
    panels = Panels(setup.val_source, run.palette, run.class_names)
    with explain_out_of_memory(setup.forward, "evaluation", IN_EVALUATION) as forward:
        evaluation = evaluate(
            forward,
            variables,
            setup.val_source,
            len(run.class_names),
            default_batch_size(run.options.eval_batch_size),
            run.options.workers,
            panels.add,
        )
    log.add(step, "val", evaluation.summary())
    if (picture := panels.draw()) is not None:
        log.add_picture(step, "image, truth, prediction", picture)
    return evaluation


def _read_finite(metrics: dict[str, jax.Array], step: int, config: Config) -> dict[str, float]:
    """Read the metrics of a step; raise FloatingPointError if one is not finite."""
    values = {name: float(value) for name, value in metrics.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise FloatingPointError(
            f"loss {values['loss']} and gradient norm {values['gradient_norm']} at step {step}: training has diverged; "
            + advise_steady(config)
        )
    return values
