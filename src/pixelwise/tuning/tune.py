"""A search on one page: choose a trial, train it, tell what came of it, and keep what is best."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from pixelwise.config import Config, RunConfig, TuneConfig, load_config, override_config
from pixelwise.data.split import open_split
from pixelwise.errors import ConfigError, MissingExtraError, PixelwiseError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.files import replacing
from pixelwise.optional import optional_module
from pixelwise.runs.run_folder import Run, holds_run
from pixelwise.training.events import Evaluated, Event
from pixelwise.training.train import Progress, train
from pixelwise.training.watching import Callback
from pixelwise.tuning.page import write_page
from pixelwise.tuning.space import Value, check_space, read_space, with_values
from pixelwise.tuning.study import Study, open_study
from pixelwise.tuning.trials import Trial, trials_of

BEST = "best.toml"
FAILURES = 3
"""After so many trials of one start in a row that fail for one reason, something else is wrong than their values."""

Say = Callable[[Progress | str], None]


@dataclass(frozen=True)
class Search:
    """What a search has found so far."""

    folder: Path
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score of those that were not ended early."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.score is not None]
        return max(complete, key=lambda trial: (trial.score, -trial.number), default=None)


def tune(
    config: Config | str | Path,
    *,
    overrides: Sequence[str] = (),
    folder: str | Path | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    report: Say | None = None,
) -> Search:
    """Search for values of a configuration's keys with which the network scores best on the validation part.

    What is tried is in [tune.space]. Each trial is a run below ``trials``. The search goes on where it was stopped, and
    several processes can work on it at once.

    Args:
        config: a configuration, or the path of one; relative paths in [tune.space] count from its folder.
        overrides: assignments such as ``"train.steps=200"`` that change the configuration.
        folder: the search's; None: as [tune].folder says.
        trials, minutes: None: as in [tune].
        report: called with a `Progress` after each step of a trial, and with sentences about the work.

    Returns:
        the search; its folder has ``best.toml``, which `train` takes, and ``tune.html``.

    Raises:
        ConfigError: a space that does not work, other settings than the search began with, or no validation part.
        PixelwiseError: trials fail one after the other for the same reason.
        MissingExtraError: the extra ``tune`` is not installed.
    """
    optional_module("optuna")
    base = Path.cwd() if isinstance(config, Config) else Path(config).resolve().parent
    config = override_config(config, overrides) if isinstance(config, Config) else load_config(config, overrides)
    say, began = report or (lambda _: None), time.monotonic()
    wanted, most = trials or config.tune.trials, minutes or config.tune.minutes
    place = Path(folder) if folder is not None else config.tune.folder
    if place is None:
        raise ConfigError("A configuration that was not read from a file needs [tune].folder. Name the folder.")
    space = read_space(config)
    check_space(config, space, base)
    if not open_split(config)[1].validation:
        raise ConfigError(
            "No scenes are kept for validation, and trials are compared on these. Set [data].validation.", code="PW613"
        )
    study = open_study(config, space, place)
    failed: list[str] = []
    while True:
        if most is not None and time.monotonic() - began > 60 * most:
            say(f"{most:g} minutes are over, so no more trials begin. The same command goes on.")
            break
        with study.next_trial(wanted) as chosen:
            if chosen is None:
                break
            trial, begun = chosen
            values = {parameter.key: parameter.suggest(trial) for parameter in space}
            shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
            say(f"Trial {trial.number + 1} of {wanted}{' goes on' if begun else ''}: {shown}")
            reason = _make(study, trial, values, base, report)
            failed = [*failed, reason] if reason else []
        search = Search(place, trials_of(study))
        say(_told(next(each for each in search.trials if each.number == trial.number), search.best))
        with study.locked():
            _keep(study, search, base)
        if len(failed) >= FAILURES and len(set(failed[-FAILURES:])) == 1:
            raise PixelwiseError(
                f"{FAILURES} trials in a row failed for one reason, so the search stops: {failed[-1]} The same command "
                "goes on once that is fixed.",
                code="PW616",
            )
    search = Search(place, trials_of(study))
    if search.trials:
        with study.locked():
            _keep(study, search, base)
    return search


def _make(study: Study, trial: Any, values: dict[str, Value], base: Path, report: Say | None) -> str:
    """Train a trial, and tell the study what came of it; return why it failed, or an empty text.

    Ctrl-C and a kill leave it begun. The next start goes on with it.
    """
    optuna = optional_module("optuna")
    state, folder = optuna.trial.TrialState, study.run_folder(trial.number)
    try:
        config = with_values(study.config, values, base, f"Trial {trial.number + 1}")
        config = config.model_copy(update={"run": RunConfig(folder=folder), "tune": TuneConfig()})
        # Its sentences are the same for each trial.
        shown = None if report is None else lambda event: None if isinstance(event, str) else report(event)
        run = train(config, resume=holds_run(folder), report=shown, callback=_asks_the_study(trial, config))
        score = best_score(run)
        evaluate(run.folder)
    except _EndedEarly:
        study.optuna_study.tell(trial, state=state.PRUNED)
    except Exception as error:  # of any kind: one trial must not end the search
        reason = str(error) if isinstance(error, PixelwiseError) else f"{type(error).__name__}: {error}"
        trial.set_user_attr("reason", reason)
        study.optuna_study.tell(trial, state=state.FAIL)
        return reason
    else:
        study.optuna_study.tell(trial, score)
    # What a run needs to go on takes several times the room of its model.
    shutil.rmtree(folder / "last", ignore_errors=True)
    return ""


class _EndedEarly(KeyboardInterrupt):
    """Ends a trial as Ctrl-C would, since its run has not failed."""


def _asks_the_study(trial: Any, config: Config) -> Callback:
    """Return what hears of a run: it tells the study each score, and ends the trial early if the study says so."""
    known = set(trial.storage.get_trial(trial._trial_id).intermediate_values)

    def hear(event: Event) -> None:
        if not isinstance(event, Evaluated):
            return
        if event.step not in known:
            trial.report(event.scores.miou or 0.0, event.step)
        if event.step < config.train.steps and trial.should_prune():
            raise _EndedEarly(f"The search ended this trial early, after step {event.step}.")

    return hear


def best_score(run: Run) -> float:
    """Return the highest mIoU of a finished run, which is that of the model it kept."""
    return max((row["mIoU"] for row in run.log if row.get("mIoU") is not None), default=0.0)


def _told(trial: Trial, best: Trial | None) -> str:
    number = trial.number + 1
    if trial.state == "failed":
        return f"Trial {number} failed, and the search goes on: {trial.reason}"
    if trial.state == "pruned":
        score = "" if trial.score is None else f" at mIoU {trial.score:.3f}"
        return f"Trial {number} was ended early{score}, after {trial.steps} steps."
    if best is None or best.number == trial.number:
        return f"Trial {number}: mIoU {trial.score:.3f}, the best so far."
    return f"Trial {number}: mIoU {trial.score:.3f}; the best is {best.score:.3f}, of trial {best.number + 1}."


def _keep(study: Study, search: Search, base: Path) -> None:
    """Write the best configuration, and the page if its extra is installed."""
    best, text = search.best, None
    if best is not None:
        text = best_text(study, best, base)
        with replacing(search.folder / BEST) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    try:
        write_page(study, search.trials, best, text)
    except MissingExtraError:
        return


def best_text(study: Study, best: Trial, base: Path) -> str:
    """Return the configuration of a trial as TOML that `train` takes."""
    config = with_values(study.config, best.values, base, f"Trial {best.number + 1}")
    table = config.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"run", "tune"})
    head = f"# Trial {best.number + 1} of {study.folder}: mIoU {best.score:.4f} on the validation part.\n"
    return head + tomli_w.dumps(table)


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
