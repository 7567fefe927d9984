"""Everyone who follows a run hears of it here: a callback, the run's notes, TensorBoard, trackers; and its warnings."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.evaluation.evaluate import Evaluation
from pixelwise.evaluation.pictures import save_pictures
from pixelwise.processes import is_first
from pixelwise.runs.run_notes import add_note, read_notes
from pixelwise.training import alarms
from pixelwise.training.events import (
    Began,
    Ended,
    Evaluated,
    Event,
    Kept,
    Reason,
    Saved,
    Step,
    StopTraining,
    Warned,
)
from pixelwise.training.forecast import Timing
from pixelwise.training.samples import choose_windows, sample_pictures
from pixelwise.training.state import Training
from pixelwise.training.trackers import Follower
from pixelwise.training.training_data import TrainingData

Callback = Callable[[Event], object]


class Watch:
    """Tells those who follow a run what happens, warns once of what looks wrong, and says when to stop early.

    Of processes that train together the first one tells and warns; the others count the evaluations along.
    """

    def __init__(
        self,
        training: Training,
        say: Callable[[str], None],
        callback: Callback | None = None,
        followers: Sequence[Follower] = (),
    ) -> None:
        self.training, self.say, self.callback, self.followers = training, say, callback, list(followers)
        self.stopping: str | None = None
        """Why the run is to end before its last step; None: it is not."""
        self.reason: Reason = "complete"
        self._steps, self._folder = training.config.train.steps, training.run.folder
        self._warned = {note.code for note in read_notes(self._folder) if note.kind == "warned"}
        losses = [row["loss"] for row in training.run.log if row.get("loss") is not None]
        self._first = losses[: alarms.FIRST]
        self._newest = deque(losses[alarms.FIRST :], maxlen=alarms.LATER)
        self._matrices: deque = deque(maxlen=alarms.EVALUATIONS)
        validation = training.data.validation
        pixels = sum(scene.info.height * scene.info.width for scene in validation)
        self._timing = Timing(training.config, pixels)
        self._windows = choose_windows(validation, training.config.train.crop_size)

    def begin(self) -> None:
        """Tell that the run begins, at the step that it goes on from.

        Raises:
            ConfigError: ``[train].patience`` without a validation part.
            PixelwiseError: the callback raised an error.
        """
        self._note("began", "", "")
        training = self.training
        self._tell(Began(training.step, self._steps, self._folder))
        if (unlike := _unlike(training.data)) is not None:
            self.warn("validation-unlike-training", unlike)
        self._ask_patience()

    def steps(self, rows: Sequence[dict]) -> None:
        """Tell of the steps that were made since the last time, from their rows of the log."""
        for row in rows:
            told = (row[key] for key in ("loss", "learning_rate", "seconds", "waited"))
            self._tell(Step(row["step"], self._steps, *told))
            losses = self._first if len(self._first) < alarms.FIRST else self._newest
            losses.append(row["loss"])
            high = alarms.rate_too_high(self._first, list(self._newest), self.training.rate)
            if high is not None:
                self.warn("rate-too-high", high)
        if rows and (ahead := self._timing.after(rows[-1]["step"], len(rows))) is not None:
            self.say(ahead)

    def logged(self, row: dict) -> None:
        """Tell of a row that is in the log and, where it has scores, of the evaluation and of what was saved."""
        self._follow(lambda each: each.row(row))
        found = self.training.evaluation
        if "mIoU" in row and found is not None:
            self._evaluated(row["step"], found)
            self._ask_patience()
        self._timing.go_on()

    def saved(self, what: Kept, path: Path) -> None:
        """Tell that something is on the disk: ``model``, ``state`` or ``checkpoint``."""
        self._tell(Saved(self.training.step, what, path))

    def warn(self, code: str, text: str) -> None:
        """Say a warning, unless the run has said one with that code already."""
        if code in self._warned:
            return
        self._warned.add(code)
        self.say(f"Warning: {text}")
        self._note("warned", code, text)
        self._tell(Warned(self.training.step, code, text))

    def end(self, reason: Reason, text: str) -> None:
        """Tell how the run ended."""
        self._note("ended", reason, text)
        self._follow(lambda each: each.end(reason))
        self._tell(Ended(self.training.step, reason, text))

    def _evaluated(self, step: int, found: Evaluation) -> None:
        # All processes together make the network whole.
        judged = self.training.judged
        if not is_first():
            return
        best = self.training.without_better == 0
        if best:
            self.saved("model", self._folder / "model")
        self._tell(Evaluated(step, found.scores, best))
        pictures = sample_pictures(judged, self._windows, self.training.card)
        save_pictures(self.training.run.samples, pictures, [])
        self._follow(lambda each: each.pictures(step, pictures))
        self._matrices.append(found.matrix)
        missing = alarms.never_predicted(
            found.scores.names, list(self._matrices), self.training.data.class_pixels, step / self._steps
        )
        if missing is not None:
            self.warn("never-predicted", missing)

    def _ask_patience(self) -> None:
        patience, count = self.training.config.train.patience, self.training.without_better
        if patience is None:
            return
        if not self.training.data.validation:
            raise ConfigError(
                "[train].patience counts evaluations on the validation part, and there is none. Leave patience out, or "
                "give [data].validation a share of the scenes.",
                code="PW613",
            )
        if count >= patience and self.training.step < self._steps:
            self.reason = "patience"
            self.stopping = (
                f"Stopped after step {self.training.step}: {count} evaluations brought no better score than mIoU "
                f"{self.training.best:.3f} ([train].patience = {patience})."
            )

    def _note(self, kind: str, code: str, text: str) -> None:
        if is_first():
            add_note(self._folder, kind, self.training.step, code, text)

    def _tell(self, event: Event) -> None:
        if self.callback is None:
            return
        try:
            self.callback(event)
        except StopTraining as stop:
            self.reason, self.stopping = "callback", f"The callback ended the run: {stop}."
        except Exception as error:
            name = getattr(self.callback, "__qualname__", "the callback")
            # It hears no more, so that it does not hide why the run ended.
            self.callback = None
            raise PixelwiseError(
                f"The callback raised {type(error).__name__} ({' '.join(str(error).split())[:200]}) at the event "
                f"{type(event).__name__} of step {event.step}, so the run ended. Fix {name}; resume=True (--resume) "
                "then goes on from the last saved step.",
                code="PW612",
            ) from error

    def _follow(self, call: Callable[[Follower], None]) -> None:
        for follower in list(self.followers):
            try:
                call(follower)
            except Exception as problem:
                # Numbers that are shown elsewhere too are no reason to lose a run.
                self.followers.remove(follower)
                self.say(
                    f"{follower.name} no longer follows this run ({type(problem).__name__}: "
                    f"{' '.join(str(problem).split())[:200]}). The run goes on, and log.jsonl has every number."
                )


@contextmanager
def watched(
    training: Training, say: Callable[[str], None], callback: Callback | None, followers: Sequence[Follower]
) -> Iterator[Watch]:
    """Give a `Watch`, and tell how the run ended, whatever ends it.

    Raises:
        ConfigError: ``[train].patience`` without a validation part.
        PixelwiseError: the callback raised an error.
    """
    watch = Watch(training, say, callback, followers)
    try:
        watch.begin()
        yield watch
    except (Exception, KeyboardInterrupt) as error:
        # A disk that is full is full for this note too, and must not hide the error.
        with suppress(PixelwiseError, OSError):
            if isinstance(error, KeyboardInterrupt):
                watch.end("interrupted", str(error) or f"Interrupted after step {training.step}.")
            else:
                watch.end("error", " ".join(str(error).split()) or type(error).__name__)
        raise
    if watch.stopping:
        say(watch.stopping)
    watch.end(watch.reason, watch.stopping or f"All {training.step} steps are made.")


def _unlike(data: TrainingData) -> str | None:
    if data.validation_statistics is None or data.training_statistics is None:
        return None
    return alarms.unlike_training(
        data.classes.names,
        (data.training_statistics, data.class_pixels),
        (data.validation_statistics, data.validation_pixels),
        data.training[0].reader.bands,
    )
