"""Train: set up, open the run, and take the steps."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.absent import describe_absent_classes
from fcn_jax.data.batches import load_on_devices, train_batches
from fcn_jax.data.dataset import Example
from fcn_jax.data.decoded import open_decoded
from fcn_jax.data.sources import get_source
from fcn_jax.errors import Diverged, InputError, Stopped
from fcn_jax.inference.evaluate import Evaluation, evaluate
from fcn_jax.inference.segment import default_batch_size
from fcn_jax.inference.visualize import Panels
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import find_latest_step
from fcn_jax.runs.damage import set_aside_damaged
from fcn_jax.runs.metrics_log import MetricsLog, is_logged
from fcn_jax.runs.mirror import Mirror, open_mirror
from fcn_jax.runs.run_dir import Run, Start, describe_start, open_for_training, require_last_start, require_shared
from fcn_jax.runtime.bucket import find_url
from fcn_jax.runtime.files import expand_home
from fcn_jax.runtime.memory import IN_EVALUATION, IN_TRAINING, explain_out_of_memory
from fcn_jax.runtime.processes import explain_lost_process, fail_together, gather, was_stopped
from fcn_jax.runtime.progress import show_progress, show_step
from fcn_jax.runtime.signals import StopWish, catch_stop_signals
from fcn_jax.runtime.trace import trace_steps
from fcn_jax.runtime.traced import trace_anew
from fcn_jax.runtime.watchdog import watch
from fcn_jax.training.advice import advise_steady
from fcn_jax.training.agreement import require_agreement
from fcn_jax.training.divergence import describe_images, describe_origin, find_first_bad
from fcn_jax.training.dry_run import describe_needs
from fcn_jax.training.optim import make_schedule
from fcn_jax.training.progress import InputWait, Progress, format_evaluation, format_extensions, format_parameters
from fcn_jax.training.rewind import rewind
from fcn_jax.training.setup import Setup, set_up
from fcn_jax.training.state import TrainState, restore_state, save_state

REWINDS = 10  # divergences after which a rewinding training gives up: the rate is then a thousandth of what it was


def train(
    config: Config, options: RunOptions, run_dir: str | Path, say: Callable[[str], None] = print
) -> Evaluation | None:
    """Train a new run, or resume the run in the directory.

    With `on_divergence` "rewind" a training that diverges goes back to its last checkpoint with half the learning rate,
    up to `REWINDS` times.

    Args:
        config: what to train; values left open are the data set's defaults.
        options: how to conduct the run.
        run_dir: the run directory, or its URL in a bucket.
        say: function that shows a line to the user.

    Returns:
        The evaluation after the last step; None if there was nothing to do, or it was a dry run.

    Raises:
        Stopped: a signal has stopped the run, and its state is saved.
        InputError: configuration, data or weights that do not fit.
        Diverged: the loss or the norm of the gradient is no longer finite.
        ProcessLost: another process of the training has ended.
        WriteFailed: a checkpoint could not be written; the run goes on from the one before it.
        OutOfMemory: a step or an evaluation needs more memory than there is.
    """
    if url := find_url(run_dir):
        with open_mirror(url, options.data.cache, say) as mirror:
            folder = mirror.folder
            return _train_or_rewind(config, options, folder, lambda line: say(line.replace(str(folder), url)), mirror)
    return _train_or_rewind(config, options, expand_home(run_dir), say, None)


def _train_or_rewind(
    config: Config, options: RunOptions, run_dir: Path, say: Callable[[str], None], mirror: Mirror | None
) -> Evaluation | None:
    """Train, and go back if the training diverges and the options ask for that."""
    for _ in range(REWINDS if options.on_divergence == "rewind" else 0):
        try:
            return _train(config, options, run_dir, say, mirror)
        except Diverged as error:
            reason = str(error)
        config, step = rewind(config, run_dir)
        if mirror is not None:
            mirror.share()
        say(f"{reason}; the training goes back to step {step}, and the learning rate after it is halved")
    return _train(config, dataclasses.replace(options, on_divergence="stop"), run_dir, say, mirror)


def _train(
    config: Config, options: RunOptions, run_dir: Path, say: Callable[[str], None], mirror: Mirror | None
) -> Evaluation | None:
    """Train until the last step, or until a signal or divergence."""
    with fail_together():
        if (jax.process_index() == 0 or mirror is not None) and not options.dry_run:
            set_aside_damaged(run_dir)
    # A dry run counts the operations of what it traces.
    with fail_together(), trace_anew() if options.dry_run else contextlib.nullcontext():
        setup = set_up(config, options, run_dir)
    require_agreement(setup)
    extensions = format_extensions(setup.config)
    if setup.resume_step is None:
        _warn_of_data(setup, say)
    if options.dry_run:
        say("\n".join([*extensions, describe_needs(setup)]))
        return None
    start = describe_start()
    is_unscored = _is_unscored(setup, run_dir)
    is_finished = setup.resume_step == setup.config.ends[-1] and not is_unscored
    what = f"a training step with crops of {setup.config.augment.crop}x{setup.config.augment.crop}"
    with (
        _open_together(run_dir, setup, mirror, start, is_finished) as run,
        catch_stop_signals() as stop,  # also while the last checkpoint is written
        Checkpoints(
            run.checkpoints,
            run.options.keep,
            before_save=partial(require_last_start, run.folder, start),
            after_save=mirror and mirror.upload,
        ) as checkpoints,
        explain_out_of_memory(setup.step, what, IN_TRAINING) as step,
        explain_lost_process(),
    ):
        first, last = setup.resume_step or 0, run.config.ends[-1]
        stop.after(first)  # the step from which several processes count
        if was_stopped():
            raise Stopped(f"stopped before step {first + 1}; the same command goes on from there")
        if is_finished:
            say(f"{run_dir} has all of its {last} steps; nothing to do")
            return None
        state = _begin(setup, checkpoints, say)
        if first < last:  # this may take longer than a stuck step
            setup = setup._replace(train_source=_open_train_source(setup))
        say(format_parameters(state.variables["params"]))
        begins = f"{run_dir}: " + (f"goes on after step {first} of {last}" if first else f"{last} steps")
        say("\n".join([begins, *extensions]))
        with (
            MetricsLog(run_dir, first) as log,
            Progress(run.config, first) as progress,
            trace_steps(step, run.options.profile, run_dir / "profile", progress.say) as step,
            watch(run.options.stuck_after) as watched,
        ):
            setup = setup._replace(
                step=watched("training step", step), forward=watched("batch of an evaluation", setup.forward)
            )
            if last == 0 and setup.resume_step is None:
                save_state(checkpoints, state, 0)
            evaluation = None
            if is_unscored or last == 0:
                evaluation = _evaluate(setup, run, state.variables, first, checkpoints, log, progress, stop)
            if first == last:
                return evaluation
            return take_steps(setup, run, state, first, checkpoints, log, progress, stop)


def take_steps(
    setup: Setup,
    run: Run,
    state: TrainState,
    first: int,
    checkpoints: Checkpoints,
    log: MetricsLog,
    progress: Progress,
    stop: StopWish,
) -> Evaluation:
    """Take the steps after step `first`, and log, save and evaluate on the way.

    Args:
        setup: the parts of the training.
        run: the run directory, with the configuration that decides the last step.
        state: the state after step `first`.
        first: the number of steps taken, at least 0.
        checkpoints: where states are saved.
        log: where losses and scores are written.
        progress: what the user sees.
        stop: the wish to stop, which is asked for after each step.

    Returns:
        The evaluation after the last step.

    Raises:
        Stopped: the run was asked to stop, and its state is saved.
        Diverged: the loss or the norm of the gradient is no longer finite.
        WriteFailed: a checkpoint could not be written.
        OutOfMemory: an evaluation needs more memory than there is.
    """
    config, options = run.config, run.options
    assert options.eval_every
    assert options.checkpoint_every
    rate = make_schedule(config)
    batches = train_batches(setup.train_source, setup.dataset.max_size, config, options, first, setup.sharding)
    wait, metrics, unread = InputWait(), None, []
    for step in range(first + 1, config.ends[-1] + 1):
        with show_step("compiling the training step") if step == first + 1 else contextlib.nullcontext():
            state, metrics = setup.step(state, wait.take(batches, metrics))
        unread.append(metrics)
        checkpoints.look_after()
        if step == first + 1:
            jax.block_until_ready(metrics)
            progress.restart(step)

        ends = step == config.ends[-1]
        stops = stop.after(step) or ends
        evaluates = _is_evaluated(step, config, options)
        saves = stops or evaluates or step % options.checkpoint_every == 0
        logs = stops or step % options.log_every == 0
        if logs or saves:  # a state that has diverged is not saved
            if (place := find_first_bad(unread)) is not None:
                del state
                raise _explain_divergence(setup, checkpoints, step - len(unread) + 1 + place, unread[place])
            values = {name: float(value) for name, value in metrics.items()}
            unread.clear()
        if logs:
            values |= {"learning_rate": float(jnp.asarray(rate(step - 1))), "input_wait": wait.share()}
            progress.show(step, values["loss"], values["input_wait"])
            log.add(step, "train", values)
        if saves:
            save_state(checkpoints, state, step)
        if stops and not ends:
            raise Stopped(f"stopped after step {step}, which is saved; the same command goes on from there")
        if evaluates:
            evaluation = _evaluate(setup, run, state.variables, step, checkpoints, log, progress, stop)
            if ends:
                return evaluation
            wait.restart()
        if saves:
            progress.restart(step)
    raise AssertionError("there is no step to take")


@contextlib.contextmanager
def _open_together(run_dir: Path, setup: Setup, mirror: Mirror | None, start: Start, finished: bool) -> Iterator[Run]:
    """Open the run directory in all processes, which have to see the same one, or copies of the same one."""
    with contextlib.ExitStack() as stack:
        with fail_together():
            if jax.process_index() == 0:  # before it notes a start, which ends others that have no lock in common
                _require_latest(find_latest_step(run_dir), setup)
            opened = open_for_training(run_dir, setup.config, setup.options, setup.dataset, start, finished)
            run = stack.enter_context(opened)
            if mirror is not None:
                mirror.claim()
        with fail_together():
            if mirror is None:
                require_shared(run_dir)
        yield run


def _warn_of_data(setup: Setup, say: Callable[[str], None]) -> None:
    dataset, split = setup.dataset, setup.config.data.train_split
    if dataset.left_out:
        say(f"warning: {dataset.left_out}")
    takes_map = get_source(dataset.name).takes_map
    for task, pixels in zip(dataset.tasks, dataset.pixels[split], strict=True):
        if absent := describe_absent_classes(pixels, task, takes_map):
            say(f"warning: split {split}: {absent}")


def _begin(setup: Setup, checkpoints: Checkpoints, say: Callable[[str], None]) -> TrainState:
    """Restore the state that the run resumes from, or make a new one."""
    _require_latest(checkpoints.latest(), setup)
    if setup.resume_step is not None:
        return restore_state(checkpoints, setup.resume_step, setup.init, setup.everywhere)
    return _start(setup, say)


def _require_latest(step: int | None, setup: Setup) -> None:
    """Check that the latest checkpoint is the one that this training was set up to resume from."""
    if step != setup.resume_step:
        raise InputError("another process has trained this run meanwhile; give the same command again")


def _start(setup: Setup, say: Callable[[str], None]) -> TrainState:
    """Initialise the state before the first step, and load the weights it starts from."""
    with show_step("drawing the parameters"):
        state = setup.init()
    if setup.start is None:
        return state
    say(str(setup.start))
    return state.replace(variables=jax.device_put(setup.start.merge_into(state.variables), setup.everywhere))


def _open_train_source(setup: Setup) -> Sequence[Example]:
    """Open the split to train on where its decoded images are kept."""
    match setup.options.data.decoded:
        case "disk":
            return open_decoded(setup.dataset, setup.config.data.train_split)
        case "device":
            with show_step("loading the images onto the devices"):
                workers = setup.options.workers
                return load_on_devices(setup.train_source, setup.dataset.max_size, setup.sharding, workers)
        case _:
            return setup.train_source


def _is_evaluated(step: int, config: Config, options: RunOptions) -> bool:
    """Return whether the state after so many steps is scored on val."""
    assert options.eval_every
    return step in config.ends or step % options.eval_every == 0


def _is_unscored(setup: Setup, run_dir: Path) -> bool:
    """Return whether the state that a run resumes from has still to be scored, because it was stopped before that."""
    step = setup.resume_step
    unscored = (
        step is not None and _is_evaluated(step, setup.config, setup.options) and not is_logged(run_dir, step, "val")
    )
    return gather(str(unscored))[0] == "True"  # other hosts may see the file of process 0 late


def _evaluate(
    setup: Setup,
    run: Run,
    variables: Any,
    step: int,
    checkpoints: Checkpoints,
    log: MetricsLog,
    progress: Progress,
    stop: StopWish,
) -> Evaluation:
    """Score the val split with the state of a step, which is saved; note and log the score, and log a picture.

    Raises:
        Stopped: a signal has come. The score is computed when the run goes on.
    """
    panels = Panels(setup.val_source, run.tasks)
    share = len(range(0, len(setup.val_source), jax.process_count()))  # of the first process, which shows its progress

    def show(example: Example, class_map: np.ndarray) -> None:
        if stop.now():
            raise Stopped(
                f"stopped in the evaluation of step {step}, which is saved; the same command goes on from there"
            )
        panels.add(example, class_map)
        advance(1)

    with (
        explain_out_of_memory(setup.forward, "evaluation", IN_EVALUATION) as forward,
        show_progress(f"scoring step {step}", share, "images", brief=True) as advance,
    ):
        evaluation = evaluate(
            forward,
            variables,
            setup.val_source,
            run.tasks,
            default_batch_size(run.options.eval_batch_size),
            run.options.workers,
            show,
            setup.tiling,
        )
    checkpoints.note_score(step, evaluation.metrics.mean_iu)
    log.add(step, "val", evaluation.summary())
    if (picture := panels.draw()) is not None:
        log.add_picture(step, "image, truth, prediction", picture)
    progress.say(f"step {step}: {format_evaluation(evaluation)}")
    return evaluation


def _explain_divergence(setup: Setup, checkpoints: Checkpoints, step: int, metrics: dict[str, jax.Array]) -> Diverged:
    """Describe how a training has diverged at a step with these metrics, and what would have helped."""
    text = f"loss {float(metrics['loss'])} and gradient norm {float(metrics['gradient_norm'])} at step {step}"
    text = f"{text}: training has diverged"
    if setup.options.on_divergence == "rewind":  # the next try tells whether the rate was the reason
        return Diverged(text)
    if not checkpoints.has_all:
        return Diverged(f"{text}. {describe_images(setup, step)}; {advise_steady(setup.config)}")
    checkpoints.wait()
    first = checkpoints.latest()
    if first is None:
        state, first = _start(setup, lambda line: None), 0
    else:
        state = restore_state(checkpoints, first, setup.init, setup.everywhere)
    origin = describe_origin(setup, state, first, step)
    return Diverged(f"{text}. {origin}; {advise_steady(setup.config)}")
