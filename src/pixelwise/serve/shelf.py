"""The models that are served: by name and version, loaded, and loaded anew where their files change."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.exported.network_file import is_exported
from pixelwise.inference.augmented import output_stride
from pixelwise.inference.networks import ArrayNetwork, device_of
from pixelwise.predictor import Predictor, load
from pixelwise.runs.model_card import ModelCard
from pixelwise.serve.gathering import Gathering, gather
from pixelwise.serve.job import listed_classes
from pixelwise.serve.refusals import Refusal

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Loaded:
    """A model as it was loaded. A request keeps it, whatever is loaded later."""

    predictor: Predictor
    stride: int
    """Of the grid that its tiles are blended on (`output_stride`), so that not every request asks the network."""
    gathering: Gathering | None
    """What lets images go together; None where they go alone."""


@dataclass
class ServedModel:
    """One version of a model: where it is, and what was loaded from there."""

    name: str
    version: str
    path: Path
    loaded: Loaded
    stamp: Stamp
    """Of the files that were loaded."""
    problem: str = ""
    """Why files that changed were not loaded."""
    refused: Stamp = ()
    """Of the files that could not be loaded, so that they are not tried again and again."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def predictor(self) -> Predictor:
        """The newest that was loaded."""
        return self.loaded.predictor

    @property
    def card(self) -> ModelCard:
        """What the model says of itself."""
        return self.predictor.card

    @property
    def runtime(self) -> str:
        """What runs it: 'torch', 'onnxruntime' or 'openvino', with its version."""
        network = self.predictor.model
        if isinstance(network, ArrayNetwork):
            return network.version
        import torch

        return f"torch {torch.__version__}"

    def described(self) -> dict[str, Any]:
        """Return what clients are told of it."""
        card = self.card
        licences = sorted({origin.licence for origin in card.origins or ()})
        return {
            "name": self.name,
            "version": self.version,
            "ready": True,
            "runtime": self.runtime,
            "device": device_of(self.predictor.model),
            "network": card.architecture.name,
            "bands": len(card.bands),
            "dtype": card.dtype,
            "ground_resolution": None if card.contract is None else card.contract.pixel,
            "licence": ", ".join(licences) or card.provenance.get("licence"),
            "digest": self.predictor.model_hash[:16],
            "classes": listed_classes(card.classes),
        }


class Shelf:
    """All models. A request takes one, and keeps what it took, whatever is loaded meanwhile."""

    def __init__(self, models: Sequence[str], *, device: str = "auto", batch: int | None = None) -> None:
        """Load models.

        Args:
            models: paths that `pixelwise.load` takes; NAME=PATH gives a name. Of a name that comes several times these
                are versions 1, 2, 3 ..., the last of which answers who names none.
            device, batch: as in `pixelwise.serve.options.Work`.

        Raises:
            ConfigError: no models, or a name that does not fit into an address.
            WeightsError: a model that cannot be loaded.
        """
        if not models:
            raise ConfigError("A server needs a model. Name a run, a model folder or an exported file.")
        self.device, self.batch = device, batch
        self._models: dict[str, dict[str, ServedModel]] = {}
        for text in models:
            name, path = _named(text)
            versions = self._models.setdefault(name, {})
            version, place = str(len(versions) + 1), _place(path)
            versions[version] = ServedModel(name, version, place, self._loaded(place), stamp_of(place))

    def __iter__(self):
        return (model for versions in self._models.values() for model in versions.values())

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model."""
        return list(self._models.get(name, {}))

    def find(self, name: str | None, version: str | None = None) -> ServedModel:
        """Return a model; of a name alone the last version, and where there is one name only, that.

        Raises:
            Refusal: 404 for one that is not served.
        """
        if not name:
            if len(self._models) > 1:
                raise Refusal(422, "no_model", "No model is named.", f"Name one of {', '.join(self._models)}.")
            name = next(iter(self._models))
        versions = self._models.get(name)
        if versions is None:
            raise Refusal(404, "no_model", f"No model {name[:100]!r} is served.", f"Name one of {self.names}.")
        if not version:
            return next(reversed(versions.values()))
        if version not in versions:
            known = ", ".join(versions)
            raise Refusal(404, "no_model", f"{name} has no version {version[:100]!r}.", f"It has {known}.")
        return versions[version]

    @property
    def names(self) -> str:
        """All names, for people."""
        return ", ".join(self._models)

    def refresh(self, model: ServedModel, *, settle: float = 1.0, again: bool = False) -> bool:
        """Load a model anew if its files have changed and then rested for a while; return whether it was.

        What cannot be loaded leaves the older model in its place, and `ServedModel.problem` says why.

        Args:
            settle: seconds of rest.
            again: try files once more that could not be loaded.
        """
        with model.lock:
            stamp = stamp_of(model.path)
            if not stamp or stamp == model.stamp or (stamp == model.refused and not again):
                return False
            time.sleep(settle)
            if stamp_of(model.path) != stamp:
                return False
            try:
                loaded = self._loaded(model.path)
            except PixelwiseError as problem:
                model.problem, model.refused = str(problem), stamp
                return False
            model.loaded, model.stamp, model.problem = loaded, stamp, ""
            return True

    def _loaded(self, path: Path) -> Loaded:
        predictor = load(path, device=self.device)
        gathering = gather(predictor.model, self.batch, predictor.card.tile)
        return Loaded(predictor, output_stride(predictor.model), gathering)


def _named(text: str) -> tuple[str, Path]:
    name, equals, rest = text.partition("=")
    if equals and name and "/" not in name and os.sep not in name and not Path(text).exists():
        path = Path(rest)
    else:
        path = Path(text)
        place = path.resolve()
        name = path.stem if is_exported(path) else place.parent.name if place.name == "model" else place.name
    if not name or name.startswith(".") or any(letter in name for letter in "/?#%\\") or not name.isprintable():
        raise ConfigError(f"{name!r} does not fit into an address. Give the model another name: NAME={path}.")
    return name, path


def _place(path: Path) -> Path:
    """Return the folder or file that is loaded: of a run, that of its best model."""
    if not is_exported(path) and not (path / "model.toml").exists() and (path / "model").is_dir():
        return (path / "model").absolute()
    return path.absolute()


def stamp_of(path: Path) -> Stamp:
    """Return what tells whether a model's files have changed; empty while some are missing."""
    if is_exported(path):
        files = [path, *([path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [])]
    else:
        files = [path / "model.toml", path / "model.safetensors"]
    try:
        return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in map(os.stat, files))
    except OSError:
        return ()
