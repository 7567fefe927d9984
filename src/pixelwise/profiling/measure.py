"""The profile of a model: where time and memory go, by stage and by layer."""

import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelwise import __version__
from pixelwise.errors import ConfigError, ContractWarning
from pixelwise.files import replacing
from pixelwise.inference.networks import arithmetic_of
from pixelwise.inference.options import TileOptions
from pixelwise.inference.tiling import read_tile
from pixelwise.machine import instructions
from pixelwise.predictor import load
from pixelwise.profiling.layers import LayerTime, Watched, watch
from pixelwise.profiling.stages import synthetic_image, timed_map
from pixelwise.profiling.timeline import Span, StageTime, by_stage
from pixelwise.profiling.trace import trace_of
from pixelwise.threads import thread_count

REPEATS = 3
"""Runs of the network on a tile."""
FORMAT = "pixelwise profile"


@dataclass(frozen=True)
class Profile:
    """What was measured."""

    model: str
    runtime: str
    device: str
    threads: int
    processor: str
    image: str
    height: int
    width: int
    tile: tuple[int, int]
    """Height and width of the tile that layers were measured on."""
    tiles: int
    wall_seconds: float
    """From opening the image to the map on disk."""
    stages: tuple[StageTime, ...]
    network: Watched
    spans: tuple[Span, ...]

    @property
    def rest_seconds(self) -> float:
        """What no stage has of the wall-clock time."""
        return self.wall_seconds - sum(stage.seconds for stage in self.stages)

    @property
    def layers(self) -> tuple[LayerTime, ...]:
        """The slowest first."""
        return self.network.layers

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` writes: seconds and bytes."""
        told = {key: value for key, value in asdict(self).items() if key not in ("spans", "network")}
        network = {"seconds": self.network.seconds, "watched_seconds": self.network.watched_seconds}
        layers = [asdict(layer) for layer in self.layers]
        head = {"format": FORMAT, "pixelwise": __version__}
        return {**head, **told, "rest_seconds": self.rest_seconds, "network": network, "layers": layers}

    def trace(self) -> dict[str, Any]:
        """Return what ``--trace`` writes, for Perfetto and Chrome."""
        return {
            **trace_of(self.spans, self.network.calls, network=f"Layers of one tile ({self.runtime})"),
            "otherData": {"format": FORMAT, "model": self.model},
        }


def profile(
    model: str | Path,
    image: str | Path | None = None,
    *,
    device: str = "auto",
    options: Mapping[str, object] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    whole: bool = False,
    repeats: int = REPEATS,
) -> Profile:
    """Measure what a model takes: a map of an image by stage, and the network on a tile by layer.

    The map is made once to get warm and once with the clock, one tile after the other, and thrown away.

    Args:
        model: a run, a model folder, or an exported file.
        image: a photo or a scene; None: noise of four tiles.
        device, options: as `pixelwise.load` takes them.
        tile, overlap: as in `TileOptions`.
        whole: all of a large scene, not only the middle.
        repeats: runs of the network on a tile.

    Raises:
        ConfigError: a device or a tile that does not work, or a number of runs below 1.
        DataError: an image that cannot be read, or that the model does not take.
        WeightsError: no model there.
    """
    if repeats < 1:
        raise ConfigError(f"The network runs at least once, not {repeats} times.")
    predictor, tiles = load(model, device=device, options=options), TileOptions(tile, overlap)
    network, card, arithmetic = predictor.model, predictor.card, arithmetic_of(predictor.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.tif" if image is None else Path(image)
        with warnings.catch_warnings():
            if image is None:
                # Noise is like no training image.
                warnings.simplefilter("ignore", ContractWarning)
                side, shared = tiles.grid(card)
                synthetic_image(path, card, (2 * side - shared,) * 2)
            for name in ("warm.tif", "map.tif"):
                out = Path(folder) / name
                timeline, tiling, made = timed_map(
                    network, card, path, out, tiles, model_hash=predictor.model_hash, whole=whole
                )
        window = tiling.plan.rows[0][0]
        sample = read_tile(tiling.reader, window, card).image[None]
        watched = watch(network, lambda: arithmetic.taken(tiling.logits(sample)), repeats)
    return Profile(
        model=str(model),
        runtime=watched.runtime,
        device=arithmetic.device_of(network),
        threads=thread_count(),
        processor=instructions(),
        image="noise" if image is None else str(image),
        height=made.height,
        width=made.width,
        tile=(sample.shape[2], sample.shape[3]),
        tiles=sum(map(len, tiling.plan.rows)),
        wall_seconds=timeline.seconds,
        stages=tuple(by_stage(timeline.spans)),
        network=watched,
        spans=tuple(timeline.spans),
    )


def write_profile(told: dict[str, Any], path: Path) -> None:
    """Write a profile or its trace as JSON. Another file of that name is kept.

    Raises:
        ConfigError: a file that is no profile is there, or it cannot be written.
    """
    require_replaceable(path)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told, indent=1), encoding="utf-8")


def require_replaceable(path: Path) -> None:
    """Check that a profile replaces nothing but a profile.

    Raises:
        ConfigError: another file is there.
    """
    if path.exists() and not _is_profile(path):
        raise ConfigError(
            f"{path} is there and no profile of pixelwise, so it is kept. Choose another name.", code="PW801"
        )


def _is_profile(path: Path) -> bool:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and FORMAT in (told.get("format"), (told.get("otherData") or {}).get("format"))
