"""The map of a scene: what its bytes depend on, strips made and kept one by one, files put together in the end."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Integer, UInt8

from pixelwise import __version__
from pixelwise.errors import ConfigError, DataError
from pixelwise.files import replacing
from pixelwise.geo.label_map import (
    SHARE_NODATA,
    LabelMapWriter,
    confidence_path,
    label_nodata,
    probabilities_path,
    stored_labels,
    stored_share,
)
from pixelwise.geo.map_file import BLOCK, writing_map
from pixelwise.geo.qgis import write_map_style
from pixelwise.geo.raster import RasterInfo, Readable, Window
from pixelwise.jobs.journal import Journal, StoredStrip
from pixelwise.jobs.read_ahead import read_ahead
from pixelwise.jobs.tiling import RowSum, Strip, Tiling
from pixelwise.labels import Classes

PROBABILITY_BLOCK = 256
"""Side in pixels of what is upsampled at once for all classes."""


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


@dataclass(frozen=True)
class Products:
    """What is written for a scene beside its classes, and how."""

    confidence: bool = False
    """NAME.confidence.tif: the probability of the class."""
    probabilities: bool = False
    """NAME.probabilities.tif: that of every class, a band each."""
    cog: bool = False
    """Cloud-optimised GeoTIFFs."""


def write_map(
    tiling: Tiling,
    scene: str | Path,
    output: str | Path,
    products: Products,
    *,
    tags: dict[str, str],
    settings: dict[str, object],
    batch: int | None = None,
    strips: Callable[..., Iterator[tuple[int, Strip, dict[int, RowSum]]]] | None = None,
    advance: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> SceneMap:
    """Map a scene. Whatever stops the work, finished strips stay beside the output, and the same call goes on.

    Args:
        tags: provenance, kept in the files.
        settings: what the bytes depend on besides the tiling and the scene: the model, the area, the device.
        batch: how many tiles go together (`with_batch`).
        strips: makes strips as `Tiling.make` does, which is taken where this is None.
        advance: called with the share that is done, 0 to 1.
        say: called with what the user should know.

    Raises:
        DataError: the scene cannot be read somewhere, or went away.
        ConfigError: the output cannot be, or the disk is full.
    """
    started = time.monotonic()
    plan, info, classes = tiling.plan, tiling.reader.info, tiling.card.classes

    def same(journal: Journal) -> bool:
        kept = [strip for strip in range(len(plan)) if journal.finished(strip)]
        if tiling.single:
            return not kept
        if say and kept:
            say(f"{scene} was written to since the map began; reading its finished part again to see if it changed.")
        return all(journal.load(strip).digest == _digest(tiling, strip) for strip in kept)

    journal = Journal(output, _settings(tiling, scene, products, settings), same=same)
    with rasterio.Env(GDAL_CACHEMAX=cache_bytes(tiling)), journal, _threads(journal.noted["threads"]):
        if say:
            for message in journal.messages:
                say(message)
        missing = [strip for strip in range(len(plan)) if not journal.finished(strip)]
        if say and len(missing) < len(plan):
            say(f"{len(plan) - len(missing)} of {len(plan)} strips were finished before; going on.")
        try:
            _make(tiling, journal, missing, products, strips or tiling.make, advance)
        except DataError as error:
            raise DataError(f"{error} {_kept(journal, plan_size=len(plan))}") from None
        except ConfigError as error:
            raise ConfigError(f"{error} {_kept(journal, plan_size=len(plan))}") from None
        counts = _put_together(tiling, journal, Path(output), products, tags)
        journal.remove()
    output, total = Path(output), max(1, int(counts.sum()))
    shares = {name: int(count) / total for name, count in zip(classes.names, counts, strict=True)}
    files = [output.with_suffix(".qml"), output]
    if products.confidence:
        files.insert(0, confidence_path(output))
    if products.probabilities:
        files.insert(0, probabilities_path(output))
    return SceneMap(output, info.height, info.width, time.monotonic() - started, shares, tuple(files))


def check_places(reader: Readable, output: str | Path, classes: Classes, products: Products) -> None:
    """See that a scene can be read to its end and a map be written, before hours of work.

    Raises:
        DataError: the scene is truncated.
        ConfigError: the output cannot be.
    """
    LabelMapWriter(output, reader.info, classes, tags={}, confidence=products.confidence)
    if probabilities_path(output).resolve() == reader.info.path.resolve():
        raise ConfigError(f"{reader.info.path} is the scene itself. Choose another output, so that the scene is kept.")
    reader.read(Window(reader.info.height - 1, 0, 1, reader.info.width))


def _digest(tiling: Tiling, row: int) -> int:
    """Return the digest of a row of tiles (`RowSum`) by reading alone."""
    digest = 0
    for *_, read in read_ahead(tiling.read, tiling.wanted(row), 8):
        digest = crc32(read, digest)
    return digest


def _settings(tiling: Tiling, scene: str | Path, products: Products, settings: dict[str, object]) -> dict[str, object]:
    info, plan = tiling.reader.info, tiling.plan
    card = json.dumps(asdict(tiling.card), default=str, sort_keys=True)
    try:
        status = Path(scene).stat()
        touched = [status.st_size, status.st_mtime_ns]
    except OSError:
        # A place that only GDAL can reach.
        touched = None
    return {
        "pixelwise": __version__,
        "torch": torch.__version__,
        **settings,
        "card": hashlib.sha256(card.encode()).hexdigest(),
        "scene": str(scene if str(scene).startswith("/vsi") else Path(scene).resolve()),
        "header": _header(info),
        "tile": plan.tile,
        "overlap": plan.overlap,
        "flips": tiling.flips,
        "scales": tiling.scales,
        "confidence": products.confidence,
        "probabilities": products.probabilities,
        "noted": {"touched": touched, "threads": torch.get_num_threads()},
    }


def _header(info: RasterInfo) -> list[object]:
    crs = None if info.crs is None else info.crs.to_wkt()
    return [info.height, info.width, info.count, info.dtype, str(info.nodata), crs, list(info.transform)[:6]]


@contextmanager
def _threads(count: object) -> Iterator[None]:
    """Compute with as many threads as when the map was begun: how sums are divided among them changes last digits."""
    assert isinstance(count, int)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kept(journal: Journal, *, plan_size: int) -> str:
    kept = sum(journal.finished(strip) for strip in range(plan_size))
    if not kept:
        return "Nothing was finished yet."
    return f"{kept} of {plan_size} strips are finished and kept in {journal.folder}; the same command goes on there."


def _make(
    tiling: Tiling,
    journal: Journal,
    missing: list[int],
    products: Products,
    strips: Callable[..., Iterator[tuple[int, Strip, dict[int, RowSum]]]],
    advance: Callable[[float], None] | None,
) -> None:
    """Make strips that are missing; while one is written, the next is being made."""
    plan, classes = tiling.plan, len(tiling.card.classes)
    tiles = sum(len(row) for row in plan.rows)

    def done(left: int) -> None:
        if advance:
            advance(max(0.0, 1 - left / tiles))

    def keep(number: int, strip: Strip, carry: dict[int, RowSum]) -> None:
        sure = None if strip.confidence is None else stored_share(strip.confidence, strip.valid)
        labels = stored_labels(strip.labels, strip.valid, classes)
        journal.keep(number, StoredStrip(labels, sure, strip.cells, strip.digest), carry)

    if not missing:
        done(0)
        return
    made = strips(
        missing, journal.carry(missing[0]), done, confidence=products.confidence, cells=products.probabilities
    )
    with ThreadPoolExecutor(1) as pool:
        writing: Future[None] | None = None
        try:
            for number, strip, carry in made:
                if writing is not None:
                    writing.result()
                writing = pool.submit(keep, number, strip, carry)
        finally:
            if writing is not None:
                writing.result()


def _put_together(
    tiling: Tiling, journal: Journal, output: Path, products: Products, tags: dict[str, str]
) -> Integer[np.ndarray, " K"]:
    """Write the files from finished strips; return how many pixels each class has."""
    info, classes = tiling.reader.info, tiling.card.classes
    counts = np.zeros(len(classes) + 1, np.int64)
    with ExitStack() as stack:
        # The map gets its name last: where it is, all is.
        writer = LabelMapWriter(
            output, info, classes, tags=tags, confidence=products.confidence, cog=products.cog, scratch=journal.folder
        )
        stack.enter_context(writer)
        for top, labels, confidence in _block_rows(tiling, journal):
            writer.write_stored(top, labels, confidence)
            counts += np.bincount(np.minimum(labels, len(classes)).ravel(), minlength=len(counts))
        probabilities_path(output).unlink(missing_ok=True)
        if products.probabilities:
            _write_probabilities(tiling, journal, probabilities_path(output), products, tags)
        write_map_style(output, classes)
    return counts[:-1]


def _block_rows(
    tiling: Tiling, journal: Journal
) -> Iterator[tuple[int, Integer[np.ndarray, "n W"], UInt8[np.ndarray, "n W"] | None]]:
    """Give finished rows by `BLOCK`, so that each block of the file is written once."""
    plan = tiling.plan
    waiting: list[StoredStrip] = []
    rows = top = 0
    for strip in range(len(plan)):
        stored = journal.load(strip)
        rows += len(stored.labels)
        waiting.append(stored)
        while rows >= BLOCK or (rows and top + rows == plan.height):
            count = min(BLOCK, rows)
            labels = np.concatenate([each.labels for each in waiting])
            sure = None
            if stored.confidence is not None:
                sure = np.concatenate([each.confidence for each in waiting if each.confidence is not None])
            yield top, labels[:count], None if sure is None else sure[:count]
            waiting = [StoredStrip(labels[count:], None if sure is None else sure[count:], None, 0)]
            top, rows = top + count, rows - count


def _write_probabilities(
    tiling: Tiling, journal: Journal, path: Path, products: Products, tags: dict[str, str]
) -> None:
    """Upsample the blended logits block by block: full-size probabilities of all classes exist for one block only."""
    info, plan, names = tiling.reader.info, tiling.plan, tiling.card.classes.names
    side = PROBABILITY_BLOCK
    with replacing(path, scratch=journal.folder) as temporary:
        bands = [f"{name}: its probability, 0 to 254 for 0 to 1" for name in names]
        with writing_map(
            temporary, path, info, "uint8", SHARE_NODATA, bands=bands, tags=tags, block=side, cog=products.cog
        ) as file:
            for top in range(0, plan.height, side):
                height = min(side, plan.height - top)
                band = _Band(tiling, journal, top, height)
                for left in range(0, plan.width, side):
                    width = min(side, plan.width - left)
                    file.write(band.shares(left, width), top, left)


class _Band:
    """Full-width rows of a map: their labels, and the cells around them."""

    def __init__(self, tiling: Tiling, journal: Journal, top: int, height: int) -> None:
        plan = tiling.plan
        self.height = height
        self.stride = 1 if tiling.single else plan.stride
        bottom = top + height
        # One more row of cells above and below, for upsampling; at the rim the outermost stands for it.
        self.first = top // self.stride - 1
        last = -(-bottom // self.stride) + 1
        parts, labels = [], []
        for strip in range(len(plan)):
            start, end = (0, plan.height) if tiling.single else plan.cells(strip)
            above, below = plan.pixels(strip)
            if max(start, self.first) >= min(end, last) and max(above, top) >= min(below, bottom):
                continue
            stored = journal.load(strip)
            assert stored.cells is not None
            parts.append(np.asarray(stored.cells[:, max(0, self.first - start) : max(0, last - start)]))
            labels.append(stored.labels[max(0, top - above) : max(0, bottom - above)])
        cells = np.concatenate(parts, axis=1)
        missing = last - self.first - cells.shape[1]
        before = int(self.first < 0)
        self.cells = np.pad(cells, ((0, 0), (before, missing - before), (1, 1)), mode="edge")
        self.valid = np.concatenate(labels) != label_nodata(len(tiling.card.classes))

    def shares(self, left: int, width: int) -> UInt8[np.ndarray, "K n w"]:
        """Return stored probabilities of a range of columns, whose start is a multiple of 32."""
        first, last = left // self.stride, -(-(left + width) // self.stride) + 2
        part: Float32[np.ndarray, "K n w"] = self.cells[:, :, first:last]
        full = F.interpolate(
            torch.from_numpy(np.ascontiguousarray(part))[None], scale_factor=self.stride, mode="bilinear"
        )
        inside = full[0, :, self.stride : self.stride + self.height, self.stride : self.stride + width]
        return stored_share(inside.softmax(dim=0).numpy(), self.valid[:, left : left + width])


def cache_bytes(tiling: Tiling) -> int:
    """Return the memory that GDAL gets: enough for two rows of tiles, so that no block is read twice."""
    # Left alone, it would fill a twentieth of the machine's.
    info = tiling.reader.info
    pixel = len(info.colour_bands) * np.dtype(info.dtype).itemsize + 3
    return max(64 << 20, 2 * tiling.plan.tile * info.width * pixel)
