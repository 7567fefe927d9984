"""Divide scenes into training, validation and test, so that no pixel of the ground is in two of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Bool, Int64
from rasterio.crs import CRS

from pixelwise.config import Config, DataConfig, as_places
from pixelwise.data.folder import image_place
from pixelwise.data.footprints import exact_place, overlapping_groups
from pixelwise.data.scenes import Scene, open_scenes, require_same_kind
from pixelwise.data.split_lists import (
    PARTS,
    Block,
    block_head,
    block_line,
    blocks_of_lists,
    kept_lists,
    list_paths,
    scenes_of_lists,
    write_lists,
)
from pixelwise.data.split_ways import classes_of, given_parts, scene_groups, stratified, table_parts
from pixelwise.errors import ConfigError
from pixelwise.geo.coordinates import around_globe, transformed
from pixelwise.geo.raster import Window
from pixelwise.labels import Classes


@dataclass(frozen=True)
class Split:
    """The parts. With blocks a scene may be in several, each time with the ground that belongs to the part."""

    training: list[Scene]
    validation: list[Scene]
    test: list[Scene]


def open_split(config: Config, *, kept: Path | None = None, may_be_gone: bool = False) -> tuple[Classes, Split]:
    """Open the scenes of a configuration and divide them into training, validation and test.

    Args:
        config: its table ``[data]`` says how: by lists, or by shares.
        kept: the folder ``split`` of a run. If it holds lists, they say what is in which part, so that images that came
            later change nothing.
        may_be_gone: leave out images that are in its lists and no longer there.

    Raises:
        ConfigError, DataError: as `open_scenes` and `split_scenes` say.
    """
    data = config.data
    classes, scenes = open_scenes(data)
    lists = (kept_lists(kept) if kept is not None else {}) or list_paths(data)
    if data.validation_images is None:
        return classes, split_scenes(scenes, data, seed=config.train.seed, lists=lists, may_be_gone=may_be_gone)
    _, validation = open_scenes(data, data.validation_images, data.validation_labels)
    require_same_kind([scenes[0], *validation])
    rest = data.model_copy(update={"validation": 0.0})
    lists = {part: path for part, path in lists.items() if part != "validation"}
    split = split_scenes(scenes, rest, seed=config.train.seed, lists=lists, may_be_gone=may_be_gone)
    return classes, replace(split, validation=validation)


def open_parts(config: Config) -> tuple[Classes, list[Scene], list[Scene]]:
    """Open the scenes of a configuration and return those for training and for validation.

    Raises:
        ConfigError, DataError: as `open_scenes` and `split_scenes` say.
    """
    classes, split = open_split(config)
    return classes, split.training, split.validation


def write_split(folder: Path, data: DataConfig, split: Split) -> None:
    """Write a split as lists: ``train.txt``, ``val.txt`` and ``test.txt``, which `open_split` reads back."""
    lines: dict[str, list[str]] = {}
    head = "images, as they lie in [data].images"
    for part in PARTS:
        lines[part] = []
        for scene in getattr(split, part):
            if isinstance(scene.part, BlockPart):
                head = block_head(scene.part.grid.side)
                lines[part] += [block_line(block) for block in scene.part.listed]
            else:
                apart = data.validation_images if part == "validation" else None
                folders = as_places(apart or data.images)
                lines[part].append(image_place(scene.info.path, folders))
        # Scenes that share a grid have the same blocks.
        lines[part] = list(dict.fromkeys(lines[part]))
    write_lists(folder, lines, head)


def split_scenes(
    scenes: Sequence[Scene],
    data: DataConfig,
    *,
    seed: int,
    lists: dict[str, Path] | None = None,
    may_be_gone: bool = False,
) -> Split:
    """Divide scenes as ``[data].split`` says.

    About ``[data].validation`` and ``[data].test`` of the pixels go to validation and test; scenes that share ground,
    directly or through others, stay together.

    Args:
        lists: part -> a text file that says what is in it, instead of the shares. What no list names is left out.
            Lists for training and test alone leave validation to its share of the training images.
        may_be_gone: leave out images that lists name and that are not there.

    Raises:
        ConfigError: too few scenes or blocks to divide, or a list that does not fit.
    """
    if data.split == "block" and (lists or data.validation or data.test):
        return _split_by_block(scenes, data, _rng(seed), lists or {})
    if lists:
        found = scenes_of_lists(scenes, as_places(data.images), lists, may_be_gone=may_be_gone)
        if not found["training"]:
            raise ConfigError(f"{lists.get('training', 'The lists')} names no image to train on.", code="PW310")
        if "validation" in lists or "test" not in lists or not data.validation or data.validation_images is not None:
            return Split(**found)
        rest = _split_by_scene(found["training"], data.model_copy(update={"test": 0.0}), _rng(seed))
        return replace(rest, test=found["test"])
    rng = _rng(seed)
    parts = table_parts(scenes, data) if data.split_table is not None else given_parts(scenes, data)
    if parts is not None:
        return _split_as_given(scenes, data, parts, rng)
    if not data.validation and not data.test:
        return Split(list(scenes), [], [])
    return _split_by_scene(scenes, data, rng)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0x5917])


def _split_as_given(
    scenes: Sequence[Scene], data: DataConfig, parts: dict[int, str], rng: np.random.Generator
) -> Split:
    """Divide scenes as somebody else did. Where that leaves nothing for validation, a share of the rest is taken."""
    found = {part: [scenes[i] for i, given in parts.items() if given == part] for part in PARTS}
    if not found["training"]:
        raise ConfigError(
            f"No image of {places(data)} is in the training part. Let a folder be called train, or use "
            "split = 'shares'.",
            code="PW310",
        )
    if found["validation"] or not data.validation:
        return Split(**found)
    rest = _split_by_scene(found["training"], data.model_copy(update={"test": 0.0}), rng)
    return replace(rest, test=found["test"])


def _split_by_scene(scenes: Sequence[Scene], data: DataConfig, rng: np.random.Generator) -> Split:
    groups = scene_groups(scenes, data)
    shares = {part: share for part, share in (("validation", data.validation), ("test", data.test)) if share}
    if len(groups) <= len(shares):
        why = "they overlap, so parts would share ground" if len(scenes) > 1 else "there is one"
        why = "[data].group finds the same in their paths, or they overlap" if data.group else why
        form = "one group" if len(groups) == 1 else f"{len(groups)} groups for {len(shares) + 1} parts"
        instead = "Change [data].group" if data.group else "Use [data].split = 'block'"
        raise ConfigError(
            f"The {len(scenes)} scenes in {places(data)} form {form}: {why}. {instead}, "
            "or name [data].validation_images.",
            code="PW310",
        )
    area = [sum(scenes[i].info.height * scenes[i].info.width for i in group) for group in groups]
    if data.stratify:
        present = [frozenset[int]().union(*(classes_of(scenes[i]) for i in group)) for group in groups]
        chosen = stratified(present, area, {"training": 1 - sum(shares.values()), **shares}, rng)
        part_of_scene = {i: chosen[g] for g, group in enumerate(groups) for i in group}
        return Split(**{part: [s for i, s in enumerate(scenes) if part_of_scene[i] == part] for part in PARTS})
    part_of: dict[int, str] = {}
    for left, (part, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        free = [g for g in range(len(groups)) if g not in part_of]
        # Something must stay for each later part, and for training.
        for g in _nearest_share([area[g] for g in free], share * sum(area), rng, keep=left):
            part_of[free[g]] = part
    part_of_scene = {i: part_of.get(g, "training") for g, group in enumerate(groups) for i in group}
    return Split(**{part: [s for i, s in enumerate(scenes) if part_of_scene[i] == part] for part in PARTS})


def _nearest_share(area: list[int], wanted: float, rng: np.random.Generator, *, keep: int) -> list[int]:
    """Return groups whose areas add up to about what is wanted, and leave ``keep`` of them at least."""
    chosen: list[int] = []
    taken = 0
    for group in rng.permutation(len(area)).tolist():
        # A group that brings the sum nearer to the wanted share is taken.
        if abs(taken + area[group] - wanted) < abs(taken - wanted):
            chosen.append(group)
            taken += area[group]
    chosen = chosen or [int(np.argmin(area))]
    while len(chosen) > len(area) - keep:
        # Give back the group without which the sum is nearest to the share.
        total = sum(area[g] for g in chosen)
        chosen.remove(min(chosen, key=lambda g: abs(total - area[g] - wanted)))
    return chosen


def places(data: DataConfig) -> str:
    """Return the places of the images as text."""
    return ", ".join(map(str, as_places(data.images)))


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
            ground = transformed(self.source, self.target, np.stack([x.ravel(), y.ravel()], axis=1))
            x, y = (np.nan_to_num(each, posinf=0.0, neginf=0.0).reshape(x.shape) for each in ground.T)
        circle = around_globe(self.target) if self.target is not None else None
        if circle is not None:
            # One place has one block, whether its longitude is 181 or -179 degrees.
            x = x - circle.length * np.floor((x - circle.seam) / circle.length + 1)
        return np.floor(y / self.side).astype(np.int64), np.floor(x / self.side).astype(np.int64)


@dataclass(frozen=True)
class BlockPart:
    """The pixels of a scene whose block is one of ``blocks``."""

    grid: GroundBlocks
    blocks: frozenset[Block]

    @cached_property
    def listed(self) -> tuple[Block, ...]:
        """The blocks of this grid, in order."""
        return tuple(sorted(block for block in self.blocks if block[0] == self.grid.name))

    @cached_property
    def _keys(self) -> Int64[np.ndarray, " b"]:
        return np.array([row * (1 << 32) + column for _, row, column in self.listed], np.int64)

    def read(self, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return True where a pixel belongs to this part."""
        rows, columns = self.grid.indices(window)
        return np.isin(rows * (1 << 32) + columns, self._keys)


def _split_by_block(
    scenes: Sequence[Scene], data: DataConfig, rng: np.random.Generator, lists: dict[str, Path]
) -> Split:
    grids = _grids(scenes, data)
    blocks: dict[Block, int] = {}
    for scene, grid in zip(scenes, grids, strict=True):
        for top in range(0, scene.info.height, 1024):
            strip = Window(top, 0, min(1024, scene.info.height - top), scene.info.width)
            rows, columns = grid.indices(strip)
            # One number for each block, because numpy sorts pairs fifty times slower.
            keys, counts = np.unique(rows * (1 << 32) + columns, return_counts=True)
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                row = (key + (1 << 31)) >> 32
                block = (grid.name, row, key - (row << 32))
                blocks[block] = blocks.get(block, 0) + count
    parts = blocks_of_lists(lists, grids[0].side) if lists else _chosen_blocks(blocks, data, rng)

    def part(name: str) -> list[Scene]:
        listed = frozenset(set(blocks) & parts[name])
        made = [
            Scene(scene.name, scene.reader, scene.labels, part=BlockPart(grid, listed))
            for scene, grid in zip(scenes, grids, strict=True)
        ]
        made = [scene for scene in made if isinstance(scene.part, BlockPart) and touches(scene, scene.part)]
        for scene in made:
            scene.resident = scenes[0].resident
        return made

    return Split(part("training"), part("validation"), part("test"))


def _chosen_blocks(blocks: dict[Block, int], data: DataConfig, rng: np.random.Generator) -> dict[str, frozenset[Block]]:
    shares = {part: share for part, share in (("validation", data.validation), ("test", data.test)) if share}
    if len(blocks) <= len(shares):
        raise ConfigError(
            f"Blocks of {data.block} pixels divide {places(data)} into {len(blocks)}, and {len(shares) + 1} parts are "
            "wanted. Make [data].block smaller.",
            code="PW310",
        )
    found: dict[str, frozenset[Block]] = {part: frozenset() for part in PARTS}
    free, total = sorted(blocks), sum(blocks.values())
    for left, (part, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        chosen: set[Block] = set()
        for i in rng.permutation(len(free)):
            # Blocks at the edge of a scene may be small, so the share is counted in pixels.
            if sum(blocks[b] for b in chosen) + blocks[free[i]] / 2 <= share * total:
                chosen.add(free[i])
        chosen = chosen or {min(free, key=lambda block: blocks[block])}
        while len(chosen) > len(free) - left:
            chosen.remove(max(chosen, key=lambda block: blocks[block]))
        found[part] = frozenset(chosen)
        free = [block for block in free if block not in chosen]
    return found | {"training": frozenset(free)}


def touches(scene: Scene, part: BlockPart) -> bool:
    """Return whether some pixel of a scene belongs to a part."""
    info = scene.info
    strips = (Window(top, 0, min(1024, info.height - top), info.width) for top in range(0, info.height, 1024))
    return any(part.read(strip).any() for strip in strips)


def _grids(scenes: Sequence[Scene], data: DataConfig) -> list[GroundBlocks]:
    places = [exact_place(scene.info) for scene in scenes]
    bent = {i for i, place in enumerate(places) if place is None and (scenes[i].info.rpcs or scenes[i].info.gcps)}
    for group in overlapping_groups([scene.info for scene in scenes]) if bent else []:
        if len(group) > 1 and bent & set(group):
            raise ConfigError(
                f"{scenes[min(bent & set(group))].info.path} is placed by control points or a camera model and shares "
                "ground with another scene, so blocks cannot keep that ground in one part. Use [data].split = 'scene', "
                "or warp it first.",
                code="PW310",
            )
    found = [place for place in places if place is not None]
    systems = {crs.to_wkt() for crs, _ in found}
    # For scenes in several zones an equal-area system gives each place one block.
    target = (CRS.from_epsg(6933) if len(systems) > 1 else found[0][0]) if found else None
    side = float(data.block)
    if found:
        crs, first = found[0]
        side = data.block * math.sqrt(abs(first.a * first.e - first.b * first.d))
        if len(systems) > 1:
            side *= 111_320 if crs.is_geographic else crs.linear_units_factor[1]
    grids = []
    for i, (scene, place) in enumerate(zip(scenes, places, strict=True)):
        if place is None:
            grids.append(GroundBlocks(f"{i}:{scene.name}", Affine.identity(), None, None, float(data.block)))
        else:
            grids.append(GroundBlocks("ground", place[1], place[0], target, side))
    return grids
