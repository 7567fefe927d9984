"""The files of a scene's map, put together from finished pieces block by block, in memory that does not grow."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer, Shaped

from pixelwise.array_upsampling import softmax, upsample
from pixelwise.files import replacing
from pixelwise.geo.label_map import (
    SHARE_NODATA,
    LabelMapWriter,
    confidence_path,
    forget_product,
    label_nodata,
    probabilities_path,
    stored_share,
)
from pixelwise.geo.map_file import BLOCK, writing_map
from pixelwise.geo.outputs import PRODUCT_TAG, side_files
from pixelwise.geo.qgis import write_map_style, write_share_style
from pixelwise.geo.sld import write_map_sld, write_share_sld
from pixelwise.inference.tile_grid import Place, Rect, StripPlan
from pixelwise.inference.tiling import Tiling
from pixelwise.mapping.journal import Journal
from pixelwise.mapping.options import MapOptions

PROBABILITY_BLOCK = 256
"""Side in pixels of what is upsampled at once for all classes."""
HELD = 8
"""Pieces that stay in memory, since blocks that follow need them again."""


def product_paths(output: Path, options: MapOptions) -> list[Path]:
    """Return the rasters that are written beside a map."""
    wanted = ((probabilities_path, options.probabilities), (confidence_path, options.confidence))
    return [path_of(output) for path_of, asked in wanted if asked]


def put_together(
    tiling: Tiling, journal: Journal, output: Path, options: MapOptions, tags: dict[str, str]
) -> Integer[np.ndarray, " K"]:
    """Write the files from finished pieces; return how many pixels each class has."""
    plan, info, classes = tiling.plan, tiling.reader.info, tiling.card.classes
    load = lru_cache(HELD)(journal.load)
    counts = np.zeros(label_nodata(len(classes)) + 1, np.int64)
    with ExitStack() as stack:
        # The map gets its name last: where it is, all is.
        writer = LabelMapWriter(
            output, info, classes, tags=tags, confidence=options.confidence, cog=options.cog, scratch=journal.folder
        )
        stack.enter_context(writer)
        for top in range(0, plan.height, BLOCK):
            for left, right in pairwise(plan.across.edges):
                block = Rect(top, left * plan.stride, top + BLOCK, right * plan.stride) & plan.raster
                labels = _joined_pixels(plan, block, lambda place: load(place).labels)
                shares = None
                if options.confidence:
                    shares = _joined_pixels(plan, block, lambda place: load(place).confidence)
                writer.write_stored(top, labels, shares, left=block.left)
                counts += np.bincount(labels.ravel(), minlength=len(counts))
        if options.probabilities:
            _write_probabilities(tiling, journal, probabilities_path(output), options, tags)
        else:
            forget_product(probabilities_path(output))
        write_map_style(output, classes)
        write_map_sld(output, classes)
        for beside in product_paths(output, options):
            write_share_style(beside)
            write_share_sld(beside)
    return counts[: len(classes)]


def _joined(
    parts: Iterable[tuple[Place, Rect]], wanted: Rect, load: Callable[[Place], Shaped[np.ndarray, "*K h w"] | None]
) -> Shaped[np.ndarray, "*K n m"]:
    """Return a rectangle that lies in several pieces.

    Args:
        parts: all pieces that it lies in, and where they are.
        load: gives the values of a piece.
    """
    joined: np.ndarray | None = None
    for place, part in parts:
        shared = part & wanted
        if shared.empty:
            continue
        piece = load(place)
        assert piece is not None, "pieces of one journal hold the same files"
        joined = np.empty((*piece.shape[:-2], *wanted.shape), piece.dtype) if joined is None else joined
        joined[..., *shared.inside(wanted)] = piece[..., *shared.inside(part)]
    assert joined is not None, "a map is covered by its pieces"
    return joined


def _joined_pixels(
    plan: StripPlan, wanted: Rect, load: Callable[[Place], Shaped[np.ndarray, "h w"] | None]
) -> Shaped[np.ndarray, "n m"]:
    cells = plan.covering(wanted)
    return _joined(((place, plan.pixels(plan.piece(place))) for place in plan.places(cells)), wanted, load)


def _joined_cells(
    plan: StripPlan, wanted: Rect, load: Callable[[Place], Shaped[np.ndarray, "K h w"]]
) -> Shaped[np.ndarray, "K n m"]:
    return _joined(((place, plan.piece(place)) for place in plan.places(wanted)), wanted, load)


def _write_probabilities(
    tiling: Tiling, journal: Journal, path: Path, options: MapOptions, tags: dict[str, str]
) -> None:
    """Upsample the blended logits block by block: full-size probabilities of all classes exist for one block only."""
    info, plan, names = tiling.reader.info, tiling.plan, tiling.card.classes.names
    side, nodata = PROBABILITY_BLOCK, label_nodata(len(tiling.card.classes))
    load = lru_cache(HELD)(journal.load)
    own = {**tags, PRODUCT_TAG: "probabilities"}
    with replacing(path, scratch=journal.folder) as temporary:
        bands = [f"{name}: its probability, 0 to 254 for 0 to 1" for name in names]
        with writing_map(
            temporary, path, info, "uint8", SHARE_NODATA, bands=bands, tags=own, block=side, cog=options.cog
        ) as file:
            for top, left in product(range(0, plan.height, side), range(0, plan.width, side)):
                block = Rect(top, left, top + side, left + side) & plan.raster
                labels = _joined_pixels(plan, block, lambda place: load(place).labels)
                file.write(stored_share(_probabilities(tiling, journal, block), labels != nodata), top, left)
    for part in side_files(path):
        part.unlink(missing_ok=True)


def _probabilities(tiling: Tiling, journal: Journal, block: Rect) -> Float32[np.ndarray, "K n m"]:
    """Return the probabilities of all classes in a rectangle of pixels that starts at multiples of 32."""
    plan, temperature = tiling.plan, np.float32(tiling.card.temperature)
    if tiling.single:
        # Its cells are pixels.
        logits = journal.cells((0, 0))[:, *block.inside(plan.raster)]
        return softmax(np.array(logits) / temperature)
    # One more cell on each side, for upsampling; at the rim the outermost stands for it.
    around = plan.covering(block).grown(1)
    there = around & plan.cells
    cells = np.pad(_joined_cells(plan, there, journal.cells), ((0, 0), *there.short_of(around)), mode="edge")
    pixels = around.times(plan.stride)
    full = upsample(cells[None], pixels.shape)[0]
    return softmax(full[:, *block.inside(pixels)] / temperature)
