"""The map of a scene: what its bytes depend on, pieces made and kept one by one, files put together in the end."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import rasterio
from jaxtyping import Integer

from pixelwise import __version__
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.categories import categories_path
from pixelwise.geo.label_map import LabelMapWriter, check_outputs, stored_labels, stored_share
from pixelwise.geo.raster import RasterInfo, Readable, Window
from pixelwise.geo.stored_blocks import files_of, largest_block
from pixelwise.geo.vector_source import split_layer
from pixelwise.inference.networks import arithmetic_of
from pixelwise.inference.tile_grid import Place
from pixelwise.inference.tiling import Piece, Tiling
from pixelwise.labels import Classes
from pixelwise.mapping.assemble import product_paths, put_together
from pixelwise.mapping.capacity import threads, with_batch
from pixelwise.mapping.journal import Journal, StoredPiece
from pixelwise.mapping.options import MapOptions
from pixelwise.mapping.pieces import Carry, places, wanted_tiles
from pixelwise.source_name import is_local
from pixelwise.threads import thread_count

CACHE = 64 << 20
"""Bytes that GDAL keeps of what it decoded, at least."""


@dataclass(frozen=True)
class SceneMap:
    """A map that was written."""

    path: Path
    height: int
    width: int
    seconds: float
    shares: dict[str, float]
    """Class -> share of the pixels with data."""
    files: tuple[Path, ...]
    """All that was written; the map itself comes last."""


def write_map(
    tiling: Tiling,
    scene: str | Path,
    output: str | Path,
    options: MapOptions,
    *,
    tags: dict[str, str],
    settings: dict[str, object],
    batch: int | None = None,
    make: Callable[..., Iterator[tuple[Place, Piece, Carry | None]]],
    advance: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> SceneMap:
    """Map a scene. Whatever stops the work, finished pieces stay beside the output, and the same call goes on there.

    Args:
        tags: provenance, kept in the files.
        settings: what the bytes depend on besides the tiling and the scene: the model, the area, the device.
        batch: how many tiles go through the network together (`with_batch`).
        make: makes pieces, as `make_pieces` does.
        advance: called with the share that is done, 0 to 1.
        say: called with what the user should know.

    Raises:
        DataError: the scene cannot be read somewhere, or went away.
        ConfigError: the output cannot be written, or the disk is full.
    """
    started, say = time.monotonic(), say or (lambda message: None)
    wanted, same, touched = places(tiling.plan), partial(_same_scene, tiling, scene, say), _touched(scene)
    journal = Journal(output, _settings(tiling, scene, options, settings), same=same)
    with rasterio.Env(GDAL_CACHEMAX=cache_bytes(tiling)), journal, ExitStack() as stack:
        # As when the map was begun: how sums are divided among threads changes last digits. Journals from before tiles
        # had a core each do not name streams.
        count, streams = journal.noted["threads"], journal.noted.get("streams", 1)
        assert isinstance(count, int)
        assert isinstance(streams, int)
        stack.enter_context(threads(count // streams))
        for message in journal.messages:
            say(message)
        missing = [place for place in wanted if not journal.finished(place)]
        if len(missing) < len(wanted):
            say(f"{len(wanted) - len(missing)} of {len(wanted)} pieces were finished before; going on.")
        try:
            ready = with_batch(replace(tiling, streams=streams), batch)
            _make(ready, journal, missing, options, make, advance)
        except (DataError, ConfigError) as error:
            raise type(error)(f"{error} {_kept(journal, wanted)}") from None
        if _touched(scene) != touched and not same(journal):
            raise DataError(
                f"{scene} was changed while it was mapped, so its pieces do not belong together. Give the same command "
                "again when nothing writes to the scene any more; the map then starts from the beginning.",
                code="PW410",
            )
        try:
            counts = put_together(tiling, journal, Path(output), options, tags)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"{output} could not be written: {reason}. {_kept(journal, wanted)}", code="PW803"
            ) from None
        journal.remove()
    return _described(tiling, Path(output), options, counts, time.monotonic() - started)


def _described(
    tiling: Tiling, output: Path, options: MapOptions, counts: Integer[np.ndarray, " K"], seconds: float
) -> SceneMap:
    info, total = tiling.reader.info, max(1, int(counts.sum()))
    shares = {name: int(count) / total for name, count in zip(tiling.card.classes.names, counts, strict=True)}
    rasters = [*product_paths(output, options), output]
    styles = [raster.with_suffix(suffix) for raster in rasters for suffix in (".sld", ".qml")]
    files = [*styles, *rasters[:-1], categories_path(output), output]
    return SceneMap(output, info.height, info.width, seconds, shares, tuple(files))


def check_places(reader: Readable, output: str | Path, classes: Classes, options: MapOptions) -> None:
    """Check that the scene can be read to its end and the map can be written, before hours of work.

    Raises:
        DataError: the scene is truncated.
        ConfigError: the output cannot be written.
    """
    LabelMapWriter(output, reader.info, classes, tags={}, confidence=options.confidence)
    beside = product_paths(Path(output), options)
    aoi = [] if options.aoi is None else [split_layer(options.aoi)[0]]
    for what, read in (("scene", files_of(reader.info.path)), ("area of interest", aoi)):
        check_outputs(Path(output), beside, read, what)
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        reader.read(Window(reader.info.height - 1, 0, 1, reader.info.width))


def _same_scene(tiling: Tiling, scene: str | Path, say: Callable[[str], None], journal: Journal) -> bool:
    """Return whether the finished pieces of a journal were made from the scene as it is now."""
    kept = [place for place in places(tiling.plan) if journal.finished(place)]
    if kept:
        say(f"{scene} was written to since the map began; reading its finished part again to see if it changed.")
    # Through new handles: old ones remember what they have read.
    with rasterio.Env(VRT_SHARED_SOURCE=0):
        fresh = replace(tiling, reader=copy(tiling.reader))
        return all(journal.load(place).digest == _digest(fresh, place) for place in kept)


def _digest(tiling: Tiling, place: Place) -> int:
    """Return the digest of a piece (`Piece.digest`) by reading alone."""
    digest = 0
    tiles = wanted_tiles(tiling, tiling.plan.tiles(*place, begun=True))
    for tile in tiling.read(tiles):
        digest = crc32(tile.digest, digest)
    return digest


def _settings(tiling: Tiling, scene: str | Path, options: MapOptions, settings: dict[str, object]) -> dict[str, object]:
    info, plan = tiling.reader.info, tiling.plan
    card = json.dumps(asdict(tiling.card), default=str, sort_keys=True)
    return {
        "pixelwise": __version__,
        **arithmetic_of(tiling.model).version_of(tiling.model),
        **settings,
        "card": hashlib.sha256(card.encode()).hexdigest(),
        "scene": _relative_name(scene, scene),
        "header": _header(info),
        "tile": plan.tile,
        "overlap": plan.overlap,
        "pieces": plan.across.edges,
        "flips": tiling.options.flips,
        "scales": tiling.options.scales,
        "confidence": options.confidence,
        "probabilities": options.probabilities,
        "noted": {
            "touched": _touched(scene),
            "threads": thread_count(),
            "streams": tiling.streams,
        },
    }


def _touched(scene: str | Path) -> list[list[object]]:
    """Return size and time of the last change of each file that a scene is read from."""
    touched: list[list[object]] = []
    for name in files_of(scene):
        with suppress(OSError):
            status = Path(name).stat()
            touched.append([_relative_name(name, scene), status.st_size, status.st_mtime_ns])
            continue
        # A place that only GDAL can reach.
        touched.append([_relative_name(name, scene)])
    return touched


def _relative_name(name: str | Path, scene: str | Path) -> str:
    """Return a name that says nothing of the machine: relative to the scene's folder, or of a network path a digest."""
    if not is_local(name):
        return hashlib.sha256(str(name).encode()).hexdigest()
    return os.path.relpath(os.path.abspath(name), os.path.dirname(os.path.abspath(scene)))


def _header(info: RasterInfo) -> list[object]:
    crs = None if info.crs is None else info.crs.to_wkt()
    return [info.height, info.width, info.count, info.dtype, str(info.nodata), crs, list(info.transform)[:6]]


def _kept(journal: Journal, wanted: list[Place]) -> str:
    kept = sum(journal.finished(place) for place in wanted)
    if not kept:
        return "Nothing was finished yet."
    return f"{kept} of {len(wanted)} pieces are finished and kept in {journal.folder}; the same command goes on there."


def _make(
    tiling: Tiling,
    journal: Journal,
    missing: list[Place],
    options: MapOptions,
    make: Callable[..., Iterator[tuple[Place, Piece, Carry | None]]],
    advance: Callable[[float], None] | None,
) -> None:
    """Make pieces that are missing; while one is written, the next is being made."""
    tiles = max(1, sum(len(wanted_tiles(tiling, row)) for row in tiling.plan.rows))

    def done(left: int) -> None:
        if advance:
            advance(max(0.0, 1 - left / tiles))

    if not missing:
        done(0)
        return
    made = make(tiling, missing, journal.carries, done, confidence=options.confidence, cells=options.probabilities)
    with ThreadPoolExecutor(1) as pool:
        writing: Future[None] | None = None
        try:
            for place, piece, carry in made:
                if writing is not None:
                    writing.result()
                writing = pool.submit(_keep, tiling, journal, place, piece, carry)
        finally:
            if writing is not None:
                writing.result()


def _keep(tiling: Tiling, journal: Journal, place: Place, piece: Piece, carry: Carry | None) -> None:
    """Store a piece, with nodata where the scene has none and outside the area of interest."""
    valid, (height, width) = piece.valid, piece.labels.shape
    if tiling.aoi is not None and height:
        valid = valid & (tiling.aoi.read(Window(piece.top, piece.left, height, width)) > 0)
    shares = None if piece.confidence is None else stored_share(piece.confidence, valid)
    labels = stored_labels(piece.labels, valid, len(tiling.card.classes))
    journal.keep(place, StoredPiece(labels, shares, piece.digest), piece.cells, carry)


def cache_bytes(tiling: Tiling) -> int:
    """Return the memory that GDAL gets: as little as lets it decode few blocks of the scene more than twice.

    Where the scene is stored in small blocks that does not depend on its width. Where it is stored in lines, or in
    blocks that many rows of tiles share, these stay over the full width, since each tile would decode them again.
    """
    # Left alone, it would fill a twentieth of the machine's.
    info, tile = tiling.reader.info, tiling.plan.tile
    pixel = len(info.colour_bands) * np.dtype(info.dtype).itemsize + 3
    down, across = largest_block(info.path)
    if across < info.width and down <= 2 * tile:
        return max(CACHE, 4 * down * across * pixel)
    return max(CACHE, (2 * tile + down) * info.width * pixel)
