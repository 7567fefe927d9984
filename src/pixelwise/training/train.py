"""Training on one page: build, restore, step, evaluate and save."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise import machine
from pixelwise.config import Config, load_config
from pixelwise.data.footprints import resolution_note
from pixelwise.data.scenes import Scene
from pixelwise.data.split import open_split, write_split
from pixelwise.data.unlabelled import open_unlabelled
from pixelwise.errors import ConfigError, PixelwiseError, TrainingStopped, WeightsError, enough_memory
from pixelwise.evaluation.calibrate import calibrate_model
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.mapping.capacity import free_memory, threads
from pixelwise.processes import agreed, collected, from_first, is_first, own_range, world
from pixelwise.runs.changed_settings import recorded_config, require_own_state, say_changes
from pixelwise.runs.model_folder import load_model
from pixelwise.runs.run_folder import Run, open_run
from pixelwise.training.bad_batch import not_finite
from pixelwise.training.boundary_losses import with_boundary_losses
from pixelwise.training.checkpointing import smaller_step
from pixelwise.training.crops import read_batches
from pixelwise.training.data_wait import Waiting
from pixelwise.training.distributed import (
    data_of_first,
    log_of_first,
    own_device,
    require_shares,
    run_of_all,
)
from pixelwise.training.exactness import threads_to_go_on
from pixelwise.training.first_weights import first_weights
from pixelwise.training.forecast import room_needed
from pixelwise.training.joining import first_alone, joined
from pixelwise.training.model_check import require_compiler, require_mask_loss
from pixelwise.training.readings import Readings
from pixelwise.training.state import Training
from pixelwise.training.stopping import Stopping, stopped_by_signals
from pixelwise.training.trackers import open_followers, require_trackers
from pixelwise.training.training_data import as_begun, read_training_data
from pixelwise.training.watching import Callback, Watch, watched


@dataclass(frozen=True)
class Progress:
    """How far a run is; the caller gets one after every step."""

    step: int
    steps: int
    loss: float
    score: float | None
    """mIoU of the newest evaluation, 0 to 1."""


Say = Callable[[Progress | str], None]


def train(
    config: Config | str | Path,
    *,
    resume: bool = False,
    report: Say | None = None,
    callback: Callback | None = None,
) -> Run:
    """Train a network on a configuration's data, and keep the best one.

    The first weights are those of a resumed run, else ``[model].weights``, else fresh ones. The same configuration
    gives the same weights on the same machine, however often the run was killed and resumed. The process keeps freed
    memory from then on (`keep_freed_memory`). In the main thread, signals end the run after a step (`stopping.py`).
    Processes that torchrun has started train one network together, and the first of them reports and writes.

    Args:
        config: a configuration, or the path of one.
        resume: go on with the run that is in the folder.
        report: called with a `Progress` after each step, and with sentences about the work.
        callback: called with each event of the run (`pixelwise.training.events`). It ends the run in good order if it
            raises `StopTraining`; another exception ends it at once.

    Returns:
        the run; its folder has the model, the log and the scores.

    Raises:
        ConfigError, DataError, WeightsError: a user's mistake, found before the first step; or a full disk.
        NotEnoughMemoryError: the batch or the crop is too large for the machine.
        PixelwiseError: the loss is no longer a finite number; or the callback raised an error.
        TrainingStopped: a signal came, such as Ctrl-C; the state is saved.
    """
    config = load_config(config) if not isinstance(config, Config) else config
    with joined(config):
        if not is_first():
            report = callback = None
        return _train_together(config, resume, report or (lambda _: None), callback)


def _train_together(config: Config, resume: bool, say: Say, callback: Callback | None) -> Run:
    require_shares(config)
    config = with_boundary_losses(config, say)
    device = own_device(config.train.device)
    require_mask_loss(config)
    require_trackers(config)
    if config.train.compile:
        require_compiler(device)
    kept = open_run(config, resume=resume).split if resume else None
    # Before any data is read: what is not allowed, or cannot be fetched, is said at once.
    start = None if resume else first_weights(config.model, say=say)
    classes, split = open_split(config, kept=kept, may_be_gone=resume)
    if (note := resolution_note([scene.info for scene in [*split.training, *split.validation]])) is not None:
        say(note)
    with run_of_all(config, resume=resume) as run:
        unlabelled = []
        if config.data.unlabelled is not None:
            unlabelled = open_unlabelled(config.data, split.training[0], [*split.validation, *split.test], say)
        with first_alone() as first:
            data = read_training_data(classes, split.training, split.validation, say, unlabelled) if first else None
        data = data_of_first(data, classes, split.training, split.validation)
        state = from_first(_kept_state(run, config, say) if is_first() else None) if resume else None
        if state is not None and "data" in state:
            data = as_begun(data, state["data"], say)
        keep_freed_memory()
        room = free_memory(device)
        if resume and state is None:
            start = first_weights(config.model, say=say)
        training = Training(config, data, device, run, start, state, say, unlabelled)
        with enough_memory(lambda: smaller_step(training.model, config.train.batch_size, config.train.crop_size, room)):
            _require_room_for_a_batch(config, len(data.training[0].reader.bands))
        say(room_needed(training.model, config, run.folder, room))
        if is_first():
            run.begin(config)
            write_split(run.split, config.data, split)
        made_with = {} if state is None else state.get("made_with", {})
        count = threads_to_go_on(made_with, device, say, training.practice.half)
        with (
            threads(count),
            enough_memory(lambda: smaller_step(training.model, config.train.batch_size, config.train.crop_size, room)),
        ):
            training.prepare()
            if state is not None:
                training.restore(state)
                _require_best_model(training, say)
            _make_steps(training, say, callback)
        with first_alone() as first:
            if first and split.validation:
                _calibrate(run, split.validation, config, say)
    return run


def _calibrate(run: Run, validation: Sequence[Scene], config: Config, say: Say) -> None:
    try:
        calibrate_model(run.folder, validation, config.predict, device=config.train.device, report=say)
    except PixelwiseError as problem:
        # The training is complete, and nothing of it depends on a temperature.
        say(f"The confidence is not calibrated: {problem}")


def _require_room_for_a_batch(config: Config, bands: int) -> None:
    # Crops are read one after the other: the system would end this process before the batch is whole.
    batch, room = 4 * bands * len(own_range(config.train.batch_size)) * config.train.crop_size**2, machine.free_memory()
    if room is not None and batch > room:
        raise MemoryError(f"the images of a batch alone take {batch / 1e9:,.1f} GB")


def _kept_state(run: Run, config: Config, say: Say) -> dict | None:
    """Return the state that a run goes on from, and rewind its log to there.

    Raises:
        ConfigError: the run has made more steps than the configuration asks for, or was made with other settings; or as
            `Run.load_last` says.
    """
    state = run.load_last(say)
    if state is None:
        say("This run has saved no state yet, so it begins again.")
        run.rewind_log(0)
        return None
    step, steps = state["step"], config.train.steps
    if step > steps:
        raise ConfigError(
            f"The run in {run.folder} has made {step} steps, and [train].steps is {steps}. Give {step} or more.",
            code="PW607",
        )
    say(f"Going on from step {step} of {steps}.")
    if "config" in state:
        before = recorded_config(state["config"], f"The state in {run.folder / 'last'}")
        require_own_state(run.folder / "last", before, config)
        if (changes := say_changes(before, config)) is not None:
            say(changes)
    missing = run.rewind_log(step, state.get("row"))
    if missing:
        say(f"{missing} of the {step} rows of {run.folder / 'log.jsonl'} are lost, so curves have gaps.")
    return state


def _require_best_model(training: Training, say: Say) -> None:
    """Check that the best model of a resumed run can be read; else the newest takes its place."""
    if training.best_step == 0:
        return
    folder, of_this_step = training.run.folder / "model", training.best_step == training.step
    problem, step = from_first(_kept_model(folder) if is_first() else (None, None))
    if problem is not None:
        say(f"{problem} The model of step {training.step} takes its place.")
        if not of_this_step:
            training.forget_scores()
            return
    elif not of_this_step or step == str(training.step):
        return
    # A kill came after the state was saved, and before the model was.
    training.save_model(folder)


def _kept_model(folder: Path) -> tuple[str | None, object]:
    """Return why a run's best model cannot be read, or of which step it is."""
    try:
        _, card, _ = load_model(folder)
    except WeightsError as problem:
        return str(problem), None
    return None, card.provenance.get("step")


def _make_steps(training: Training, say: Say, callback: Callback | None) -> None:
    """Make the steps that are left; evaluate and save now and then, and after the last.

    Raises:
        TrainingStopped: a signal came; the state is saved.
    """
    settings, run = training.config.train, training.run
    started = time.monotonic() - training.seconds
    workers = settings.workers if settings.workers is not None else max(1, (os.cpu_count() or 2) // 2)
    waiting, readings = Waiting(), Readings(training.practice.log_every)
    followers = open_followers(run.folder, training.config, training.card, training.step, say) if is_first() else []
    with (
        stopped_by_signals(settings.save_every_minutes) as stopping,
        watched(training, say, callback, followers) as watch,
    ):
        if training.must_evaluate and _evaluated(training, stopping):
            # A signal came before it, the best model is lost, or other steps were to be evaluated.
            training.row["seconds"] = time.monotonic() - started
            training.save()
            watch.saved("state", run.folder / "last")
            if is_first():
                run.rewind_log(training.step, training.row)
            watch.logged(training.row)
        _stop_if_asked(training, stopping)
        with log_of_first(run) as log:

            def tell(row: dict) -> None:
                log(row)
                watch.logged(row)
                say(Progress(row["step"], settings.steps, row["loss"], training.score))

            # A run that has stopped early goes on with more patience only.
            for batch, unlabelled in () if _ends(watch) else waiting.over(read_batches(training, workers)):
                made = training.learn(batch, unlabelled)
                training.row = {"step": training.step, "loss": None, "learning_rate": made.rate}
                training.row |= {"waited": waiting.seconds, "seconds": time.monotonic() - started}
                readings.add(training.row, made)
                if (hint := waiting.hint(workers)) is not None:
                    watch.warn("waiting-for-crops", hint)
                keep = bool(settings.keep_every) and training.step % settings.keep_every == 0
                save, stop = agreed(*stopping.after_step())
                if not (readings.due or keep or save or training.must_evaluate):
                    continue
                # Read before anything is kept, so that what is kept is good.
                rows, bad = readings.read()
                watch.steps(rows)
                # A state has the newest row itself; those before it must be in the log.
                for row in rows[:-1]:
                    tell(row)
                if bad is None:
                    if keep:
                        training.save_model(run.checkpoint(training.step))
                        watch.saved("checkpoint", run.checkpoint(training.step))
                    if (training.must_evaluate or _ends(watch)) and not stop:
                        save, stop = True, not _evaluated(training, stopping)
                        training.row["seconds"] = time.monotonic() - started
                    if save:
                        training.save()
                        stopping.saved()
                        watch.saved("state", run.folder / "last")
                for row in rows[-1:]:
                    tell(row)
                if bad is not None:
                    raise PixelwiseError(not_finite(training, bad), code="PW608")
                if stop or (_ends(watch) and training.evaluated == training.step):
                    break
        # Also one that came after the last step.
        _stop_if_asked(training, stopping)


def _ends(watch: Watch) -> bool:
    """Return whether the run is to end before its last step, in all of the processes that train together."""
    return agreed(watch.stopping is not None)[0]


def _evaluated(training: Training, stopping: Stopping) -> bool:
    """Evaluate; return False if a signal ended it."""
    # A process that leaves by itself would let the others wait.
    scores = training.evaluate() if world() > 1 else stopping.unless_stopped(training.evaluate)
    if scores is None:
        return False
    training.take_scores(scores)
    return True


def _stop_if_asked(training: Training, stopping: Stopping) -> None:
    """Raise `TrainingStopped` if a signal came, to any of the processes that train together."""
    # One number for all, so that all end with the same status.
    number = max(collected(stopping.signal or 0))
    if number:
        raise TrainingStopped(number, training.step, training.run.folder)
