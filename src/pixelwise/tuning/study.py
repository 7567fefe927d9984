"""A search on disk: its settings, Optuna's journal of trials, and which process works on which trial."""

import os
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock

from pixelwise.config import Config, parse_config
from pixelwise.errors import ConfigError
from pixelwise.files import (
    HOLDER,
    LOCK,
    ensure_folder,
    is_leftover,
    locked_folder,
    read_checked,
    replacing,
    with_checksum,
)
from pixelwise.optional import optional_module
from pixelwise.runs.changed_settings import BITS, NOTHING, PLACE, changes, goes_or_comes
from pixelwise.tuning.space import Parameter, own_values

SETTINGS, JOURNAL, TRIALS = "study.toml", "study.journal", "trials"
"""In a search's folder: its configuration, Optuna's journal, and the runs."""
WAIT = 60.0
"""Seconds that a process waits for another one to choose its trial, which takes a moment."""
RANDOM_TRIALS = 10
"""At most so many trials are drawn at random before earlier ones say where to look."""


@dataclass(frozen=True)
class Study:
    """A search. Several processes may hold one at the same time."""

    folder: Path
    config: Config
    space: tuple[Parameter, ...]
    optuna_study: Any
    """An ``optuna.Study``."""

    def run_folder(self, number: int) -> Path:
        """Return the folder of a trial's run."""
        return self.folder / TRIALS / f"trial-{number:04}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time choose a trial or write what all of them give."""
        with locked_folder(self.folder, work=f"is at work in {self.folder}", instead="another moment", wait=WAIT):
            yield

    @contextmanager
    def next_trial(self, trials: int) -> Iterator[tuple[Any, bool] | None]:
        """Give a trial that no other process works on, and whether it was begun before; None when there are enough.

        A trial whose process ended without an answer comes first. The system releases the lock of a process that ends.
        """
        with ExitStack() as held:
            with self.locked():
                chosen = self._begun(held) or self._new(held, trials)
            yield chosen

    def _begun(self, held: ExitStack) -> tuple[Any, bool] | None:
        optuna = optional_module("optuna")
        for frozen in self.optuna_study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            try:
                held.enter_context(self._claimed(frozen.number))
            except ConfigError:
                continue
            return optuna.trial.Trial(self.optuna_study, frozen._trial_id), True
        return None

    def _new(self, held: ExitStack, trials: int) -> tuple[Any, bool] | None:
        optuna = optional_module("optuna")
        waiting = optuna.trial.TrialState.WAITING
        known = [each for each in self.optuna_study.get_trials(deepcopy=False) if each.state != waiting]
        if len(known) >= trials:
            return None
        self.optuna_study.sampler = sampler(self.config, len(known), trials)
        trial = self.optuna_study.ask()
        for parameter in self.space:
            parameter.suggest(trial)
        held.enter_context(self._claimed(trial.number))
        return trial, False

    def _claimed(self, number: int) -> Any:
        folder = ensure_folder(self.folder / "locks" / f"{number:04}")
        return locked_folder(folder, work=f"works on trial {number}", instead="another trial")


def sampler(config: Config, number: int, trials: int) -> Any:
    """Return what chooses the values of the trial of a number: a tree-structured Parzen estimator (Bergstra 2011).

    Its draws depend on the number alone, so that two processes do not draw the same.
    """
    optuna = optional_module("optuna")
    random_trials = max(2, min(RANDOM_TRIALS, trials // 3))
    return optuna.samplers.TPESampler(
        seed=config.tune.seed * 1_000_003 + number, n_startup_trials=random_trials, constant_liar=True
    )


def pruner(config: Config) -> Any:
    """Return what ends trials early, fed with the mIoU of each evaluation."""
    optuna, steps = optional_module("optuna"), config.train.steps
    every = evaluation_steps(config)
    if config.tune.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=min(steps, every), max_resource=steps, reduction_factor=3)
    if config.tune.pruner == "median":
        # The first evaluation says little.
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=every + 1)
    return optuna.pruners.NopPruner()


def evaluation_steps(config: Config) -> int:
    """Return the steps between two evaluations of a run."""
    return config.train.evaluate_every or max(1, config.train.steps // 10)


def open_study(config: Config, space: tuple[Parameter, ...], folder: Path) -> Study:
    """Begin a search in a folder, or find it again.

    Raises:
        ConfigError: the folder holds something else, a search of other settings, or a damaged one.
        MissingExtraError: the extra ``tune`` is not installed.
    """
    optuna = optional_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A start that was killed may have left its lock.
    held = list(folder.iterdir()) if folder.is_dir() and not (folder / SETTINGS).exists() else []
    if any(path.name not in (LOCK, HOLDER) and not is_leftover(path) for path in held):
        raise ConfigError(f"{folder} is not empty and holds no search. Choose another folder (--folder).", code="PW616")
    ensure_folder(folder)
    with locked_folder(folder, work=f"is at work in {folder}", instead="another folder (--folder)", wait=WAIT):
        if (folder / SETTINGS).exists():
            _require_same(config, folder)
        else:
            with replacing(folder / SETTINGS) as temporary:
                table = config.model_dump(mode="json", exclude_none=True)
                temporary.write_text(with_checksum(tomli_w.dumps(table)), encoding="utf-8", newline="\n")
        journal = folder / JOURNAL
        lock = FileLock(f"{journal}.lock")
        with lock:
            _drop_torn_line(journal)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                storage = optuna.storages.JournalStorage(
                    optuna.storages.journal.JournalFileBackend(str(journal), lock_obj=lock)
                )
                study = optuna.create_study(
                    storage=storage, study_name="pixelwise", direction="maximize", load_if_exists=True
                )
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{journal} is damaged ({reason}). Restore it from a copy, or choose another folder (--folder); the "
                f"runs in {folder / TRIALS} stay.",
                code="PW616",
            ) from None
        study.pruner = pruner(config)
        if not study.get_trials(deepcopy=False) and (own := own_values(config, space)) is not None:
            study.enqueue_trial(own)
    return Study(folder, config, space, study)


def _drop_torn_line(journal: Path) -> None:
    """Cut off a last line that a kill or a power cut left without its end; else the next one would join it."""
    if not journal.exists():
        return
    held = journal.read_bytes()
    whole = held.rfind(b"\n") + 1
    if whole < len(held):
        os.truncate(journal, whole)


def _require_same(config: Config, folder: Path) -> None:
    """Check that a search goes on with the settings that it began with.

    Raises:
        ConfigError: it does not, or what was kept is damaged.
    """
    path = folder / SETTINGS
    try:
        before = parse_config(tomllib.loads(read_checked(path)), str(path))
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}). Restore it from a copy, or choose another "
            "folder (--folder).",
            code="PW616",
        ) from None
    changed = [
        f"{name} was {was} and is {is_now}"
        for name, was, is_now, effect in changes(before, config)
        if effect not in (PLACE, NOTHING, BITS) or goes_or_comes(name, was, is_now)
    ]
    if before.tune.space != config.tune.space:
        changed.append("[tune].space")
    if changed:
        raise ConfigError(
            f"The search in {folder} began with other settings ({', '.join(changed[:5])}), and its scores would not "
            "compare with new ones. Give the same ones, or choose another folder (--folder).",
            code="PW616",
        )
