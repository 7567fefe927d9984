"""What a run keeps on disk, and how it is found again after a kill."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pixelwise.config import Config, parse_config, save_config
from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, recovered_folder, replacing, replacing_folder


@dataclass(frozen=True)
class Run:
    """A folder: ``config.toml``, ``model/`` (the best), ``last/`` (to go on), ``log.jsonl`` and ``metrics.json``."""

    folder: Path

    @property
    def log(self) -> list[dict]:
        """The rows of ``log.jsonl``; a last row that a kill cut short is left out."""
        path = self.folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [row for row in map(_row, lines) if row is not None]

    @property
    def metrics(self) -> dict:
        """The contents of ``metrics.json``; empty before the first evaluation."""
        path = self.folder / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def begin(self, config: Config) -> None:
        """Keep the configuration, complete; from now on the folder is a run."""
        save_config(config, self.folder / "config.toml")

    def write_metrics(self, metrics: dict) -> None:
        """Replace ``metrics.json``."""
        with replacing(self.folder / "metrics.json") as temporary:
            temporary.write_text(json.dumps(metrics, indent=2), encoding="utf-8")

    def save_last(self, state: dict) -> None:
        """Keep everything that is needed to go on, in one step."""
        with replacing_folder(self.folder / "last") as temporary:
            torch.save(state, temporary / "state.pt")

    def load_last(self) -> dict | None:
        """Return what `save_last` kept, or None."""
        path = recovered_folder(self.folder / "last") / "state.pt"
        return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None

    def rewind_log(self, step: int) -> None:
        """Drop rows after a step: a killed run had written them, and the resumed one will again."""
        rows = [row for row in self.log if row["step"] <= step]
        with replacing(self.folder / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _row(line: str) -> dict | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def open_run(config: Config, *, resume: bool) -> Run:
    """Make a run's folder, or find it again; `Run.begin` makes it a run.

    Raises:
        ConfigError: the folder holds another run and ``resume`` is not set, or a run of other settings that has kept
            weights.
    """
    if config.run.folder is None:
        raise ConfigError("A configuration that was not read from a file needs [run].folder. Name the run's folder.")
    folder = config.run.folder
    kept = folder / "config.toml"
    if not kept.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and holds no run. Choose another [run].folder.")
        ensure_folder(folder)
        return Run(folder)
    if not resume:
        raise ConfigError(
            f"{folder} holds a run already. Go on with it (--resume), or choose another folder (--run or [run].folder)."
        )
    before = parse_config(tomllib.loads(kept.read_text(encoding="utf-8")), str(kept))
    changed = [
        f"[{table}].{key}"
        for table in type(config).model_fields
        for key in type(getattr(config, table)).model_fields
        if table != "run" and getattr(getattr(config, table), key) != getattr(getattr(before, table), key)
    ]
    # A run that has kept nothing yet begins anew, maybe with a mistake mended.
    if changed and any(recovered_folder(folder / each).exists() for each in ("model", "last")):
        raise ConfigError(
            f"{folder} was begun with other settings ({', '.join(changed[:5])}). "
            "Resume with the same ones, or choose another folder (--run)."
        )
    return Run(folder)


def open_finished_run(folder: str | Path) -> tuple[Run, Config]:
    """Find a run and its configuration.

    Raises:
        ConfigError: no run there.
    """
    kept = Path(folder) / "config.toml"
    if not kept.exists():
        raise ConfigError(
            f"{folder} is not a run (it has no config.toml). Name the folder that `pixelwise train` made."
        )
    return Run(Path(folder)), parse_config(tomllib.loads(kept.read_text(encoding="utf-8")), str(kept))


def events_writer(folder: Path) -> Callable[[dict], None]:
    """Return a function that adds a row of the log to TensorBoard's events; it does nothing without the extra."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        return lambda row: None
    writer = SummaryWriter(str(folder / "events"))

    def write(row: dict) -> None:
        for key in ("loss", "learning_rate", "mIoU", "pixel_accuracy"):
            if row.get(key) is not None:
                writer.add_scalar(key, row[key], row["step"])
        if "mIoU" in row:
            writer.flush()

    return write
