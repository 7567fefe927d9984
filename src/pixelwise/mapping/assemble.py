"""The files of a scene's map, put together from finished pieces block by block, in memory that does not grow."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Integer, Shaped

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
from pixelwise.inference.tile_grid import Place
from pixelwise.inference.tiling import Tiling
from pixelwise.mapping.journal import Journal

PROBABILITY_BLOCK = 256
"""Side in pixels of what is upsampled at once for all classes."""
HELD = 8
"""Pieces that stay in memory, since blocks that follow need them again."""

Range = tuple[int, int]


@dataclass(frozen=True)
class Products:
    """What is written for a scene beside its classes, and how."""

    confidence: bool = False
    """NAME.confidence.tif: the probability of the class."""
    probabilities: bool = False
    """NAME.probabilities.tif: that of every class, a band each."""
    cog: bool = False
    """Cloud-optimised GeoTIFFs."""


def product_paths(output: Path, products: Products) -> list[Path]:
    """Return the rasters that are written beside a map."""
    wanted = ((probabilities_path, products.probabilities), (confidence_path, products.confidence))
    return [path_of(output) for path_of, asked in wanted if asked]


def put_together(
    tiling: Tiling, journal: Journal, output: Path, products: Products, tags: dict[str, str]
) -> Integer[np.ndarray, " K"]:
    """Write the files from finished pieces; return how many pixels each class has."""
    plan, info, classes = tiling.plan, tiling.reader.info, tiling.card.classes
    load = lru_cache(HELD)(journal.load)
    counts = np.zeros(label_nodata(len(classes)) + 1, np.int64)
    with ExitStack() as stack:
        # The map gets its name last: where it is, all is.
        writer = LabelMapWriter(
            output, info, classes, tags=tags, confidence=products.confidence, cog=products.cog, scratch=journal.folder
        )
        stack.enter_context(writer)
        strips, columns = _pixels(tiling)
        for top in range(0, plan.height, BLOCK):
            rows = (top, min(plan.height, top + BLOCK))
            for column in columns:
                labels = _joined(strips, columns, rows, column, lambda place: load(place).labels)
                sure = None
                if products.confidence:
                    sure = _joined(strips, columns, rows, column, lambda place: load(place).confidence)
                writer.write_stored(top, labels, sure, left=column[0])
                counts += np.bincount(labels.ravel(), minlength=len(counts))
        if products.probabilities:
            _write_probabilities(tiling, journal, probabilities_path(output), products, tags)
        else:
            forget_product(probabilities_path(output))
        write_map_style(output, classes)
        write_map_sld(output, classes)
        for beside in product_paths(output, products):
            write_share_style(beside)
            write_share_sld(beside)
    return counts[: len(classes)]


def _pixels(tiling: Tiling) -> tuple[list[Range], list[Range]]:
    """Return the rows of each strip, and the columns of pixels of each column of pieces."""
    down, across = tiling.plan.down, tiling.plan.across
    return [down.pixels(row) for row in range(len(down))], [across.pixels(column) for column in range(len(across))]


def _joined(
    strips: Sequence[Range],
    columns: Sequence[Range],
    rows: Range,
    across: Range,
    load: Callable[[Place], Shaped[np.ndarray, "*K h w"] | None],
) -> Shaped[np.ndarray, "*K n m"]:
    """Return a rectangle that lies in several pieces.

    Args:
        strips, columns: where pieces begin and end.
        rows, across: what is wanted.
        load: gives the values of a piece.
    """
    lines = []
    for row, (top, bottom) in enumerate(strips):
        if max(top, rows[0]) >= min(bottom, rows[1]):
            continue
        line = []
        for column, (left, right) in enumerate(columns):
            if max(left, across[0]) < min(right, across[1]):
                piece = load((row, column))
                assert piece is not None, "pieces of one journal hold the same products"
                own = slice(max(0, rows[0] - top), rows[1] - top), slice(max(0, across[0] - left), across[1] - left)
                line.append(piece[..., *own])
        lines.append(np.concatenate(line, axis=-1))
    return np.concatenate(lines, axis=-2)


def _write_probabilities(
    tiling: Tiling, journal: Journal, path: Path, products: Products, tags: dict[str, str]
) -> None:
    """Upsample the blended logits block by block: full-size probabilities of all classes exist for one block only."""
    info, plan, names = tiling.reader.info, tiling.plan, tiling.card.classes.names
    side, nodata = PROBABILITY_BLOCK, label_nodata(len(tiling.card.classes))
    load, (strips, pieces) = lru_cache(HELD)(journal.load), _pixels(tiling)
    own = {**tags, PRODUCT_TAG: "probabilities"}
    with replacing(path, scratch=journal.folder) as temporary:
        bands = [f"{name}: its probability, 0 to 254 for 0 to 1" for name in names]
        with writing_map(
            temporary, path, info, "uint8", SHARE_NODATA, bands=bands, tags=own, block=side, cog=products.cog
        ) as file:
            for top in range(0, plan.height, side):
                rows = (top, min(plan.height, top + side))
                for left in range(0, plan.width, side):
                    columns = (left, min(plan.width, left + side))
                    labels = _joined(strips, pieces, rows, columns, lambda place: load(place).labels)
                    shares = _probabilities(tiling, journal, rows, columns)
                    file.write(stored_share(shares, labels != nodata), top, left)
    for part in side_files(path):
        part.unlink(missing_ok=True)


def _probabilities(tiling: Tiling, journal: Journal, rows: Range, columns: Range) -> Float32[np.ndarray, "K n m"]:
    """Return the probabilities of all classes in a rectangle that starts at multiples of 32."""
    down, across = tiling.plan.down, tiling.plan.across
    if tiling.single:
        # Its cells are pixels.
        logits = journal.cells((0, 0))[:, slice(*rows), slice(*columns)]
        return torch.from_numpy(np.array(logits)).softmax(dim=0).numpy()
    strips, pieces = ([cuts.cells(part) for part in range(len(cuts))] for cuts in (down, across))
    stride, wanted, padding = down.stride, list[Range](), list[Range]()
    for cuts, (start, end) in ((down, rows), (across, columns)):
        # One more cell on each side, for upsampling; at the rim the outermost stands for it.
        first, last = start // stride - 1, -(-end // stride) + 1
        wanted.append((max(0, first), min(last, cuts.edges[-1])))
        padding.append((int(first < 0), int(last > cuts.edges[-1])))
    cells = np.pad(_joined(strips, pieces, wanted[0], wanted[1], journal.cells), ((0, 0), *padding), mode="edge")
    full = F.interpolate(torch.from_numpy(cells)[None], scale_factor=stride, mode="bilinear")
    (top, bottom), (left, right) = rows, columns
    return full[0, :, stride : stride + bottom - top, stride : stride + right - left].softmax(dim=0).numpy()
