"""What a run keeps on disk, and how it is found again after a kill, a power cut or damage."""

import difflib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pixelwise.config import Config, parse_config, save_config
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.files import (
    HOLDER,
    LOCK,
    ensure_folder,
    flush_file,
    is_leftover,
    locked_folder,
    read_checked,
    recovered_folder,
    remove_leftovers,
    replacing,
    room_on_disk,
)
from pixelwise.runs.changed_settings import recorded_config, require_same_settings
from pixelwise.runs.kept_scores import scores_from
from pixelwise.runs.saved_state import EARLIER_STATE, STATE, load_state, read_state, save_state

LOCK_SECONDS = 60.0
"""How long an evaluation waits for another one to write its scores, which takes a moment."""


@dataclass(frozen=True)
class Run:
    """A folder: ``config.toml``, ``model/`` (the best), ``last/`` (to go on), ``log.jsonl`` and ``metrics.json``.

    With ``[train].keep_every`` there is ``checkpoints/step-000200/`` for every so many steps, each a model folder.
    """

    folder: Path

    @property
    def log(self) -> list[dict]:
        """The rows of ``log.jsonl``, without those that are damaged or that a kill cut short.

        Raises:
            ConfigError: it is not a file.
        """
        path = self.folder / "log.jsonl"
        if not path.exists():
            return []
        if not path.is_file():
            raise ConfigError(f"{path} should be the run's log, but is not a file. Remove it.", code="PW615")
        return log_rows(path.read_bytes())

    @property
    def metrics(self) -> dict:
        """The contents of ``metrics.json``; empty before the first evaluation.

        Raises:
            ConfigError: it is damaged.
        """
        path = self.folder / "metrics.json"
        if not path.exists():
            return {}
        try:
            return scores_from(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{path} is damaged ({reason}). Remove it; `pixelwise evaluate {self.folder}` writes a new one.",
                code="PW615",
            ) from None

    @property
    def split(self) -> Path:
        """The folder of the lists that say which images are in which part."""
        return self.folder / "split"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the model that ``[train].keep_every`` keeps after a step."""
        return self.folder / "checkpoints" / f"step-{step:06}"

    def begin(self, config: Config) -> None:
        """Keep the configuration, complete; from now on the folder is a run."""
        save_config(config, self.folder / "config.toml")

    def pictures(self, evaluation: str) -> Path:
        """Return the file of an evaluation's pictures."""
        return self.folder / "evaluations" / f"{evaluation}.npz"

    def blocks(self, evaluation: str) -> Path:
        """Return the file of an evaluation's counts, block by block."""
        return self.folder / "evaluations" / "blocks" / f"{evaluation}.npz"

    @property
    def samples(self) -> Path:
        """The file of the validation crops that are looked at while the run trains."""
        return self.folder / "samples.npz"

    @contextmanager
    def locked_metrics(self) -> Iterator[None]:
        """Keep other processes from changing ``metrics.json``, so that none loses what another one wrote.

        Raises:
            ConfigError: another process takes very long.
        """
        folder = ensure_folder(self.folder / "evaluations")
        work = f"keeps scores in {self.folder}"
        with locked_folder(folder, work=work, instead="another moment", wait=LOCK_SECONDS):
            yield

    def write_metrics(self, metrics: dict) -> None:
        """Replace ``metrics.json``."""
        with replacing(self.folder / "metrics.json") as temporary:
            temporary.write_text(json.dumps(metrics, indent=2), encoding="utf-8")

    def save_last(self, state: dict) -> None:
        """Keep everything that is needed to go on, in one step; the state before it is kept too.

        Raises:
            ConfigError: the disk is full. What was kept before stays.
        """
        log = self.folder / "log.jsonl"
        if log.is_file():
            # No row of a step before this one is lost in a power cut.
            flush_file(log)
        save_state(ensure_folder(self.folder / "last"), state)

    def load_last(self, say: Callable[[str], None] = lambda text: None) -> dict | None:
        """Return what `save_last` kept, or None if nothing was kept yet.

        Args:
            say: called with a sentence if the newest state is damaged and the one before is used.

        Raises:
            ConfigError: all states are damaged; or the log says that there must be one, and there is none.
        """
        last = recovered_folder(self.folder / "last")
        state = load_state(last, say)
        if state is None and any("mIoU" in row for row in self.log):
            raise ConfigError(
                f"{last / STATE} is missing, though the log says that a state was kept. Restore the folder {last} "
                "from a copy, or begin again in another folder (--run).",
                code="PW605",
            )
        return state

    def rewind_log(self, step: int, newest: dict | None = None) -> int:
        """Drop rows after a step: a killed run had written them, and the resumed one will again.

        Args:
            newest: the row of that step, which a kill may have kept from being written.

        Returns:
            how many rows up to that step are missing.
        """
        rows = {row["step"]: row for row in [*self.log, *([newest] if newest else [])] if row["step"] <= step}
        with replacing(self.folder / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(rows[n]) + "\n" for n in sorted(rows)), encoding="utf-8")
        return step - len(rows)

    @contextmanager
    def open_log(self) -> Iterator[Callable[[dict], None]]:
        """Give a function that adds a row to ``log.jsonl``.

        Raises:
            ConfigError: the disk is full.
        """
        path = self.folder / "log.jsonl"

        def add(row: dict) -> None:
            with room_on_disk(path):
                file.write(json.dumps(row) + "\n")

        file = path.open("a", encoding="utf-8", buffering=1)
        try:
            yield add
        finally:
            with room_on_disk(path):
                file.close()
        flush_file(path)

    def kept_config(self) -> Config | None:
        """Return the configuration that the run began with; from its state if ``config.toml`` is damaged.

        Returns:
            None where neither has it.

        Raises:
            ConfigError: it is not one of this version of pixelwise.
        """
        path = self.folder / "config.toml"
        try:
            return recorded_config(tomllib.loads(read_checked(path)), str(path))
        except ConfigError:
            raise
        except (OSError, ValueError):
            for state in (self.folder / "last" / STATE, self.folder / "last" / EARLIER_STATE):
                try:
                    return recorded_config(read_state(state)["config"], str(state))
                except (ValueError, KeyError):
                    continue
        return None


def log_rows(text: bytes) -> list[dict]:
    """Return the rows in whole lines of ``log.jsonl``, without those that are damaged."""
    lines = text.decode("utf-8", errors="replace").splitlines()
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    numbers = isinstance(row, dict) and all(value is None or type(value) in (int, float) for value in row.values())
    return row if numbers and type(row.get("step")) is int and row["step"] > 0 else None


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds a run, whole or damaged."""
    _recover_earlier_names(folder)
    return any(os.path.lexists(folder / name) for name in ("config.toml", "last", "model"))


def _recover_earlier_names(folder: Path) -> None:
    # Up to version 0.1 a replaced folder was called NAME.old for a moment, in which a process could be killed.
    for name, kept in (("last", STATE), ("model", "model.toml")):
        recovered_folder(folder / name)
        old = folder / f"{name}.old"
        if (old / kept).is_file() and not os.path.lexists(folder / name):
            os.replace(old, folder / name)


@contextmanager
def locked_run(config: Config, *, resume: bool) -> Iterator[Run]:
    """Open a run as `open_run` does, and keep every other process from training in its folder.

    Raises:
        ConfigError: another process trains there; or as `open_run` says.
    """
    folder = open_run(config, resume=resume).folder
    with locked_folder(folder, work=f"is training in {folder}", instead="another folder (--run)"):
        # Earlier versions left a half-written state, which may fill the disk.
        if (folder / "last.new" / STATE).is_file():
            shutil.rmtree(folder / "last.new")
        remove_leftovers(folder)
        if (folder / "last").is_dir():
            remove_leftovers(folder / "last")
        # Another process may have trained here before the lock was ours.
        yield open_run(config, resume=resume)


def open_run(config: Config, *, resume: bool) -> Run:
    """Make a run's folder, or find it again; `Run.begin` makes it a run.

    Raises:
        ConfigError: the folder holds another run and ``resume`` is not set, no run and it is, or a run of other
            settings that has kept weights.
    """
    if config.run.folder is None:
        raise ConfigError("A configuration that was not read from a file needs [run].folder. Name the run's folder.")
    folder, run = config.run.folder, Run(config.run.folder)
    if not holds_run(folder):
        if folder.is_dir() and not all(map(_left_by_begin, folder.iterdir())):
            raise ConfigError(f"{folder} is not empty and holds no run. Choose another [run].folder.", code="PW602")
        # A run that was killed before it kept anything has left its folder.
        if resume and not folder.is_dir():
            raise ConfigError(
                f"There is no run in {folder} to go on with.{_near(folder)} Leave --resume out to begin it.",
                code="PW606",
            )
        ensure_folder(folder)
        return run
    if not resume:
        raise ConfigError(
            f"{folder} holds a run already. Go on with it (--resume), or choose another folder (--run or "
            "[run].folder).",
            code="PW602",
        )
    # A run that has kept nothing yet begins again, maybe after its user fixed a mistake.
    has_kept = any((folder / each).exists() for each in ("model", "last"))
    # A state of an early version kept no configuration; if it fits the network, the run goes on.
    if has_kept and (before := run.kept_config()) is not None:
        require_same_settings(folder, before, config)
    return run


def _left_by_begin(path: Path) -> bool:
    """Return whether a killed process may have left a file before its folder became a run."""
    return path.name in (LOCK, HOLDER) or is_leftover(path) or bool(re.fullmatch(r"\.config\.\d+\.toml", path.name))


def _near(folder: Path) -> str:
    """Suggest a run whose folder has nearly this name."""
    if not folder.parent.is_dir():
        return ""
    runs = [each.name for each in folder.parent.iterdir() if each.is_dir() and holds_run(each)]
    near = difflib.get_close_matches(folder.name, runs, n=1)
    return f" Did you mean {folder.with_name(near[0])}?" if near else ""


def open_finished_run(folder: str | Path) -> tuple[Run, Config]:
    """Find a run and its configuration.

    Raises:
        ConfigError: no run there, or a damaged configuration.
    """
    kept = Path(folder) / "config.toml"
    if not os.path.lexists(kept):
        raise ConfigError(
            f"{folder} is not a run (it has no config.toml). Name the folder that `pixelwise train` made.", code="PW601"
        )
    try:
        return Run(Path(folder)), parse_config(tomllib.loads(read_checked(kept)), str(kept))
    except PixelwiseError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{kept} is damaged ({' '.join(str(error).split())[:200]}). "
            "`pixelwise train CONFIG --resume` with the run's own configuration writes a new one.",
            code="PW601",
        ) from None
