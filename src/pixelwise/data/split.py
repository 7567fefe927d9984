"""Training and validation, so that no pixel of the ground is in both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from jaxtyping import Bool
from rasterio.crs import CRS
from rasterio.warp import transform, transform_bounds

from pixelwise.config import Config, DataConfig
from pixelwise.data.scenes import Scene, open_scenes
from pixelwise.errors import ConfigError
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.labels import Classes

Block = tuple[str, int, int]
"""A square of ground: the grid it belongs to, and its row and column there."""


@dataclass(frozen=True)
class Split:
    """The two sides. With blocks, both list the same scenes, each with the part of it that belongs to the side."""

    training: list[Scene]
    validation: list[Scene]


def open_parts(config: Config) -> tuple[Classes, list[Scene], list[Scene]]:
    """Open the scenes of a configuration and divide them into training and validation.

    Raises:
        ConfigError, DataError: as `open_scenes` and `split_scenes` say.
    """
    data = config.data
    classes, scenes = open_scenes(data)
    if data.validation_images is not None:
        _, validation = open_scenes(data, data.validation_images, data.validation_labels)
        return classes, scenes, validation
    split = split_scenes(scenes, data, seed=config.train.seed)
    return classes, split.training, split.validation


def split_scenes(scenes: Sequence[Scene], data: DataConfig, *, seed: int) -> Split:
    """Divide scenes as ``[data].split`` says, with about ``[data].validation`` of the pixels in validation.

    Raises:
        ConfigError: too few scenes or blocks to divide.
    """
    if data.validation == 0:
        return Split(list(scenes), [])
    divide = _split_by_scene if data.split == "scene" else _split_by_block
    return divide(scenes, data, np.random.default_rng([seed, 0x5917]))


def _split_by_scene(scenes: Sequence[Scene], data: DataConfig, rng: np.random.Generator) -> Split:
    groups = overlapping_groups([scene.info for scene in scenes])
    if len(groups) == 1:
        why = (
            "they overlap each other, so they cannot be divided without leaking" if len(scenes) > 1 else "there is one"
        )
        raise ConfigError(
            f"The {len(scenes)} scenes in {data.images} form one group: {why}. Use [data].split = 'block', "
            "or name [data].validation_images."
        )
    area = [sum(scenes[i].info.height * scenes[i].info.width for i in group) for group in groups]
    wanted = data.validation * sum(area)
    chosen: list[int] = []
    for group in rng.permutation(len(groups)):
        taken = sum(area[g] for g in chosen)
        # A group is taken while that brings the sum nearer to the share that is wanted.
        if abs(taken + area[group] - wanted) < abs(taken - wanted):
            chosen.append(int(group))
    chosen = chosen or [int(np.argmin(area))]
    if len(chosen) == len(groups):
        # Something must be left to train on; the group goes back that brings the rest nearest to the share.
        chosen.remove(min(chosen, key=lambda g: abs(sum(area) - area[g] - wanted)))
    validation = {i for g in chosen for i in groups[g]}
    return Split(
        [scene for i, scene in enumerate(scenes) if i not in validation],
        [scene for i, scene in enumerate(scenes) if i in validation],
    )


def overlapping_groups(scenes: Sequence[RasterInfo]) -> list[list[int]]:
    """Join scenes that share ground, directly or through others, into groups of their indices.

    A scene without a georeference shares ground with none. Footprints are compared as boxes, in the coordinate
    system of the scenes where it is the same, else in degrees.
    """
    group = list(range(len(scenes)))
    systems = {scene.crs.to_wkt() for scene in scenes if scene.crs}
    boxes = [_box(scene, len(systems) > 1) for scene in scenes]
    for i, mine in enumerate(boxes):
        for j, other in enumerate(boxes[:i]):
            if mine and other and _overlap(mine, other):
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    return [[i for i, g in enumerate(group) if g == name] for name in dict.fromkeys(group)]


def _box(scene: RasterInfo, in_degrees: bool) -> tuple[float, float, float, float] | None:
    if scene.crs is None:
        return None
    corners = [scene.transform @ corner for corner in _corners(scene)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    box = (min(xs), min(ys), max(xs), max(ys))
    return transform_bounds(scene.crs, "EPSG:4326", *box) if in_degrees else box


def _corners(scene: RasterInfo) -> list[tuple[int, int]]:
    return [(0, 0), (scene.width, 0), (0, scene.height), (scene.width, scene.height)]


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    # Neighbours that share an edge do not overlap; rounding in a georeference must not make them.
    slack = 1e-6 * max(a[2] - a[0], a[3] - a[1])
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


@dataclass(frozen=True)
class GroundBlocks:
    """Squares of ground over one scene; where scenes overlap, their pixels of one place fall into one block."""

    name: str
    """Of the grid: the coordinate system, or the scene itself where it has no georeference."""
    transform: Affine
    source: CRS | None
    target: CRS | None
    side: float
    """Of a block, in units of ``target``, or in pixels."""

    def indices(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return the block row and column of each pixel of a window, broadcastable to its shape."""
        rows = np.arange(window.top, window.top + window.height)[:, None] + 0.5
        columns = np.arange(window.left, window.left + window.width)[None, :] + 0.5
        a, b, c, d, e, f = self.transform[:6]
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
        if self.source is not None and self.source != self.target:
            shape = x.shape
            xs, ys = transform(self.source, self.target, x.ravel(), y.ravel())[:2]
            x, y = np.reshape(xs, shape), np.reshape(ys, shape)
        return np.floor(y / self.side).astype(np.int64), np.floor(x / self.side).astype(np.int64)


@dataclass(frozen=True)
class BlockPart:
    """The pixels of a scene whose block is, or is not, one of ``blocks``."""

    grid: GroundBlocks
    blocks: frozenset[Block]
    inside: bool

    def read(self, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return True where a pixel belongs to this side."""
        rows, columns = self.grid.indices(window)
        key = rows * (1 << 32) + columns
        wanted = np.array(
            [row * (1 << 32) + column for name, row, column in self.blocks if name == self.grid.name], np.int64
        )
        return np.isin(key, wanted) == self.inside


def _split_by_block(scenes: Sequence[Scene], data: DataConfig, rng: np.random.Generator) -> Split:
    grids = _grids(scenes, data.block)
    blocks: dict[Block, int] = {}
    for scene, grid in zip(scenes, grids, strict=True):
        for top in range(0, scene.info.height, 1024):
            strip = Window(top, 0, min(1024, scene.info.height - top), scene.info.width)
            rows, columns = grid.indices(strip)
            # As one number each: pairs are sorted fifty times slower.
            keys, counts = np.unique(rows * (1 << 32) + columns, return_counts=True)
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                row = (key + (1 << 31)) >> 32
                block = (grid.name, row, key - (row << 32))
                blocks[block] = blocks.get(block, 0) + count
    if len(blocks) < 2:
        raise ConfigError(f"A block of {data.block} pixels covers all of {data.images}. Make [data].block smaller.")
    order = sorted(blocks)
    chosen: set[Block] = set()
    for i in rng.permutation(len(order)):
        # Slivers at a scene's rim are blocks too, so the share is counted in pixels.
        if sum(blocks[b] for b in chosen) + blocks[order[i]] / 2 <= data.validation * sum(blocks.values()):
            chosen.add(order[i])
    chosen = chosen or {min(order, key=lambda block: blocks[block])}
    if len(chosen) == len(order):
        chosen.remove(max(chosen, key=lambda block: blocks[block]))
    held = frozenset(chosen)

    def side(inside: bool) -> list[Scene]:
        parts = [(scene, BlockPart(grid, held, inside)) for scene, grid in zip(scenes, grids, strict=True)]
        made = [
            Scene(scene.name, scene.reader, scene.labels, part=part) for scene, part in parts if _touches(scene, part)
        ]
        for scene in made:
            scene.resident = scenes[0].resident
        return made

    return Split(side(False), side(True))


def _touches(scene: Scene, part: BlockPart) -> bool:
    info = scene.info
    strips = (Window(top, 0, min(1024, info.height - top), info.width) for top in range(0, info.height, 1024))
    return any(part.read(strip).any() for strip in strips)


def _grids(scenes: Sequence[Scene], block: int) -> list[GroundBlocks]:
    placed = [scene.info for scene in scenes if scene.info.crs]
    systems = {info.crs.to_wkt() for info in placed if info.crs}
    # Scenes of several zones meet in one equal-area system, so that a place has one block in all of them.
    target = (CRS.from_epsg(6933) if len(systems) > 1 else placed[0].crs) if placed else None
    side = 0.0
    if placed:
        first = placed[0].transform
        side = block * math.sqrt(abs(first.a * first.e - first.b * first.d))
        if len(systems) > 1 and placed[0].crs is not None and placed[0].crs.is_geographic:
            side *= 111_320
    grids = []
    for i, scene in enumerate(scenes):
        info = scene.info
        if info.crs is None:
            grids.append(GroundBlocks(f"{i}:{scene.name}", Affine.identity(), None, None, float(block)))
        else:
            grids.append(GroundBlocks("ground", info.transform, info.crs, target, side))
    return grids
