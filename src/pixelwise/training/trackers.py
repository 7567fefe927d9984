"""Other places that show a run: TensorBoard's files, and MLflow and Weights & Biases where ``[run].track`` names them.

What they show is a copy. A server that does not answer costs the run nothing.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tomli_w
from jaxtyping import UInt8

from pixelwise.config import Config
from pixelwise.evaluation.pictures import Picture
from pixelwise.files import replacing
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.labels import Classes
from pixelwise.optional import optional_module
from pixelwise.runs.model_folder import ModelCard
from pixelwise.training.mlflow_run import MLflowRun

TRACKING = "tracking.json"
"""In a run's folder: what each server calls the run, so that a resumed run goes on there."""
GAP = 4
"""Pixels between the image, its truth and its prediction."""


@runtime_checkable
class Follower(Protocol):
    """Somewhere that shows a run."""

    name: str

    def row(self, row: dict) -> None:
        """Take a row of the log."""
        ...

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Take the crops of an evaluation."""
        ...

    def end(self, reason: str) -> None:
        """Take no more."""
        ...


def require_trackers(config: Config) -> None:
    """Check that the trackers of ``[run].track`` are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for name in config.run.track:
        optional_module(name)


def open_followers(
    folder: Path, config: Config, card: ModelCard, step: int, say: Callable[[str], None]
) -> list[Follower]:
    """Return those who follow a run: TensorBoard, if it is installed, and what ``[run].track`` names.

    Args:
        step: that the run goes on from.
        say: called with a sentence where a server does not answer.

    Raises:
        MissingExtraError: a tracker's extra is not installed.
    """
    followers: list[Follower] = []
    try:
        import tensorboardX  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        pass
    else:
        followers.append(TensorBoard(folder, config, card.classes, step))
    known = kept_names(folder)
    if "mlflow" in config.run.track:
        followers.append(MLflow(folder, config, card.classes, say, known.get("mlflow")))
    if "wandb" in config.run.track:
        try:
            followers.append(WeightsAndBiases(folder, config, card.classes, known.get("wandb")))
        except Exception as problem:
            why = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
            say(f"{WeightsAndBiases.name} does not follow this run ({why}). The run goes on.")
    return followers


def beside_each_other(picture: Picture, classes: Classes) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image, its truth and its prediction side by side."""
    parts = (to_picture(picture.image), colourise(picture.truth, classes), colourise(picture.prediction, classes))
    gap = np.full((parts[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)


def flat_settings(config: Config) -> dict[str, Any]:
    """Return every value of a configuration by its full name, such as ``train.steps``."""
    tables = config.model_dump(mode="json", exclude_none=True)
    return {f"{table}.{key}": value for table, keys in tables.items() for key, value in keys.items()}


class TensorBoard:
    """Writes ``events/`` in the run's folder, which ``tensorboard --logdir`` reads."""

    name = "TensorBoard"

    def __init__(self, folder: Path, config: Config, classes: Classes, step: int) -> None:
        from tensorboardX import SummaryWriter

        self.classes = classes
        # What a killed run wrote after that step is hidden: the resumed one writes it again.
        purge = step + 1 if (folder / "events").is_dir() else None
        self.writer = SummaryWriter(str(folder / "events"), purge_step=purge)
        text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
        self.writer.add_text("configuration", "\n".join(f"    {line}" for line in text.splitlines()), step)

    def row(self, row: dict) -> None:
        """Write the scalars of a row, and after an evaluation all that waits."""
        for key, value in row.items():
            if key not in ("step", "seconds") and value is not None:
                self.writer.add_scalar(key, value, row["step"])
        if "mIoU" in row:
            self.writer.flush()

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Write image, truth and prediction of each crop."""
        for i, picture in enumerate(pictures):
            drawn = beside_each_other(picture, self.classes)
            self.writer.add_image(f"validation/{i + 1}", drawn, step, dataformats="HWC")
        self.writer.flush()

    def end(self, reason: str) -> None:
        """Close the file and the thread that writes it."""
        self.writer.close()


class WeightsAndBiases:
    """Sends to Weights & Biases with its own client, which has the key and writes to ``wandb/`` where it is offline."""

    name = "Weights & Biases"

    def __init__(self, folder: Path, config: Config, classes: Classes, known: str | None) -> None:
        self.folder, self.classes = folder, classes
        self.wandb = optional_module("wandb")
        self.run = self.wandb.init(
            dir=str(folder), name=folder.name, id=known, resume="allow" if known else None, config=flat_settings(config)
        )
        keep_name(folder, "wandb", self.run.id)

    def row(self, row: dict) -> None:
        """Send a row."""
        self.run.log({key: value for key, value in row.items() if key != "step" and value is not None}, row["step"])

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Send image, truth and prediction of each crop."""
        drawn = [self.wandb.Image(beside_each_other(each, self.classes), caption=each.name) for each in pictures]
        self.run.log({"validation": drawn}, step)

    def end(self, reason: str) -> None:
        """Send the model card and the report, where there is one, and wait until all is sent."""
        _send_files(self.wandb, self.run, self.folder)
        self.run.finish(exit_code=int(reason == "error"))


class MLflow:
    """Sends to the MLflow server that ``MLFLOW_TRACKING_URI`` names, from a thread of its own."""

    name = "MLflow"

    def __init__(
        self, folder: Path, config: Config, classes: Classes, say: Callable[[str], None], known: str | None
    ) -> None:
        self.folder, self.classes, self.say = folder, classes, say
        mlflow, settings = optional_module("mlflow"), flat_settings(config)
        self.run = MLflowRun(mlflow, folder.name, known, settings, partial(keep_name, folder, "mlflow"))

    def row(self, row: dict) -> None:
        """Take a row; it is sent within seconds."""
        self.run.add_row(row)
        if (problem := self.run.problem()) is not None:
            self.say(f"MLflow takes no numbers ({problem}). The run goes on; they are sent when it answers again.")

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Take image, truth and prediction of each crop."""
        for i, picture in enumerate(pictures):
            self.run.add_picture(f"validation/{i + 1}/step-{step:06}.png", beside_each_other(picture, self.classes))

    def end(self, reason: str) -> None:
        """Send what is left, and the files of the run."""
        status = {"error": "FAILED", "interrupted": "KILLED"}.get(reason, "FINISHED")
        if not self.run.end(status, files_to_send(self.folder)):
            self.say("MLflow did not take all numbers of this run. They are in log.jsonl.")


def files_to_send(folder: Path) -> list[tuple[Path, str | None]]:
    """Return the files of a run that are kept with its numbers, as far as they are there, and their folders."""
    places = {"config.toml": None, "model/model.toml": "model", "metrics.json": None, "report.html": None}
    return [(folder / name, place) for name, place in places.items() if (folder / name).is_file()]


def kept_names(folder: Path) -> dict[str, str]:
    """Return what each server calls the run; nothing where that is not known."""
    try:
        found = json.loads((folder / TRACKING).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def keep_name(folder: Path, server: str, name: str) -> None:
    """Keep what a server calls the run."""
    with replacing(folder / TRACKING) as temporary:
        temporary.write_text(json.dumps(kept_names(folder) | {server: name}), encoding="utf-8")


def send_report(folder: Path, config: Config, say: Callable[[str], None]) -> None:
    """Send the scores and the page of a run that has ended to the servers that followed it; say so if one fails."""
    for name, known in kept_names(folder).items():
        if name not in config.run.track:
            continue
        try:
            _send_again(name, known, folder)
        except Exception as problem:
            why = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
            say(f"The report was not sent to {name} ({why}).")


def _send_again(server: str, known: str, folder: Path) -> None:
    module = optional_module(server)
    if server == "wandb":
        run = module.init(dir=str(folder), id=known, resume="allow")
        _send_files(module, run, folder)
        run.finish()
        return
    client = module.MlflowClient()
    for path, place in files_to_send(folder):
        client.log_artifact(known, str(path), place)


def _send_files(wandb: ModuleType, run: Any, folder: Path) -> None:
    artifact = wandb.Artifact(f"pixelwise-{run.id}", "run")
    for path, _ in files_to_send(folder):
        artifact.add_file(str(path), path.relative_to(folder).as_posix())
    run.log_artifact(artifact)
