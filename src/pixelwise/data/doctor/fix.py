"""Corrected copies beside what a user made: a configuration, masks and polygons. Nothing of the user's is changed."""

import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tomli_w
from jaxtyping import Integer

from pixelwise.config import Config, Places, as_places
from pixelwise.data.doctor.finding import Examination, Finding
from pixelwise.data.doctor.fix_polygons import POLYGON_CODES, fix_polygons
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.doctor.write_mask import read_mask, write_mask
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.files import replacing
from pixelwise.geo.raster import RasterInfo
from pixelwise.labels import MaskTable, make_mask_table

SUFFIX = "_fixed"
MASK_CODES = ("PW104", "PW120", "PW121", "PW131", "PW132", "PW133", "PW135", "PW136", "PW137", "PW138", "PW139")
"""Findings on masks that a copy can cure."""
MAPPED_CODES = ("PW131", "PW132", "PW138")
"""Findings that [data.values] cures, if all masks have them."""

Raw = Integer[np.ndarray, "h w"]


@dataclass
class Fixed:
    """What was done."""

    config: Path | None = None
    """The corrected configuration."""
    done: list[str] = field(default_factory=list)
    """A sentence for each correction."""
    left: list[str] = field(default_factory=list)
    """Files that a program cannot correct, and why."""


def fix(path: Path, config: Config, found: Examination) -> Fixed:
    """Write corrected copies of what was found to be wrong: ``NAME_fixed.toml`` and what it names.

    Args:
        path: the configuration's file.

    Raises:
        ConfigError: one of the copies is there already.
    """
    fixed = Fixed()
    target = path.with_name(f"{path.stem}{SUFFIX}{path.suffix}")
    table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    data = table.setdefault("data", {})
    by_file = {finding.file: finding for finding in found.findings if finding.code in MASK_CODES}
    masked = [sample for sample in found.samples if sample.mask is not None]
    everywhere = _everywhere(by_file, masked)
    changed = False
    if everywhere is not None:
        values = _mapped(everywhere, masked, config)
        if values is not None:
            data["values"], changed = values, True
            fixed.done.append(f"{target} maps {', '.join(f'{name} = {value}' for name, value in values.items())}.")
            by_file = {}
    if by_file:
        changed |= _fix_masks(by_file, found, config, data, fixed)
    changed |= _fix_shapes(found, config, data, fixed)
    handled = (*MASK_CODES, *POLYGON_CODES)
    others = {finding.code: finding for finding in found.errors if finding.code not in handled}
    fixed.left += [f"{finding.code}: {finding.message} {finding.fix}" for finding in others.values()]
    if changed:
        if target.exists():
            raise ConfigError(f"{target} is there already. Remove it, or give it another name.", code="PW801")
        head = f"# {path.name}, as `pixelwise check --fix` corrected it:\n" + "".join(f"# - {s}\n" for s in fixed.done)
        with replacing(target) as temporary:
            temporary.write_text(head + "\n" + tomli_w.dumps(table), encoding="utf-8")
        fixed.config = target
    return fixed


def _everywhere(by_file: dict[str, Finding], masked: Sequence[Sample]) -> str | None:
    codes = {by_file[str(s.mask)].code if str(s.mask) in by_file else "" for s in masked}
    return codes.pop() if len(codes) == 1 and codes <= set(MAPPED_CODES) else None


def _mapped(code: str, masked: Sequence[Sample], config: Config) -> dict[str, int] | None:
    names = config.data.classes
    if code == "PW131":
        return {name: i + 1 for i, name in enumerate(names)}
    seen = sorted({int(value) for sample in masked for value in sample.facts.get("values", {})})
    seen = sorted({value & 0xFF for value in seen}) if any(s.facts.get("packed") for s in masked) else seen
    return dict(zip(names, seen, strict=True)) if len(seen) == len(names) else None


def _fix_masks(by_file: dict[str, Finding], found: Examination, config: Config, data: dict, fixed: Fixed) -> bool:
    """Write corrected copies of masks into folders beside the old ones, with copies of those that were right."""
    assert found.classes is not None
    table = make_mask_table(found.classes, config.data.values, config.data.ignore, config.data.other_values)
    wanted = [("labels", config.data.labels), ("validation_labels", config.data.validation_labels)]
    any_changed = False
    for key, places in wanted:
        if places is None or not all(place.is_dir() for place in as_places(places)):
            continue
        folders = [place.with_name(place.name + SUFFIX) for place in as_places(places)]
        pairs = [
            _in_folder(place, folder, by_file, found) for place, folder in zip(as_places(places), folders, strict=True)
        ]
        if not any(finding for each in pairs for *_, finding in each):
            continue
        for folder, each in zip(folders, pairs, strict=True):
            if folder.exists():
                raise ConfigError(f"{folder} is there already. Remove it, or rename it.", code="PW801")
            for sample, source, target, finding in each:
                _copy_or_fix(sample, source, target, finding, table, config, fixed)
        data[key] = _renamed(data.get(key), folders, places)
        fixed.done.append(f"{', '.join(map(str, folders))} holds the masks, corrected.")
        any_changed = True
    return any_changed


def _in_folder(
    place: Path, folder: Path, by_file: dict[str, Finding], found: Examination
) -> list[tuple[Sample, Path, Path, Finding | None]]:
    """Return sample, mask, its copy and its finding, for the masks in a folder."""
    listed = []
    for sample in found.samples:
        if sample.mask is not None and sample.mask.is_relative_to(place):
            target = folder / sample.mask.relative_to(place)
            listed.append((sample, sample.mask, target, by_file.get(str(sample.mask))))
    for finding in by_file.values():
        # A pair whose names differ by case only is no sample yet.
        image, masks = Path(finding.file), [Path(other) for other in finding.others]
        if finding.code == "PW104" and masks and masks[0].is_relative_to(place) and not image.is_relative_to(place):
            target = folder / masks[0].relative_to(place).with_name(image.stem + masks[0].suffix)
            listed.append((Sample(image), masks[0], target, finding))
    return listed


def _renamed(given: object, folders: list[Path], places: Places) -> object:
    # Relative paths stay so, as the user wrote them.
    if isinstance(given, str):
        return given.rstrip("/") + SUFFIX
    if isinstance(given, list):
        return [str(each).rstrip("/") + SUFFIX for each in given]
    return [str(folder) for folder in folders] if isinstance(places, list) else str(folders[0])


def _copy_or_fix(
    sample: Sample, source: Path, target: Path, finding: Finding | None, table: MaskTable, config: Config, fixed: Fixed
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if finding is not None and finding.code != "PW104":
        try:
            raw, said = _corrected(sample, finding, table, config)
        except PixelwiseError as problem:
            fixed.left.append(f"{source}: {problem}")
        else:
            written = write_mask(target, source, raw, colours=table.colours, like=sample.info)
            fixed.done.append(f"{written}: {said}.")
            return
    if finding is not None and finding.code == "PW104":
        fixed.done.append(f"{target}: renamed to fit its image.")
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _corrected(sample: Sample, finding: Finding, table: MaskTable, config: Config) -> tuple[Raw, str]:
    """Return the raw values, or packed colours, of a corrected mask, and what was done.

    Raises:
        ConfigError: it is not known what is right.
    """
    assert sample.mask is not None
    raw, packed = read_mask(sample.mask, colours=table.colours)
    code = finding.code
    if code in _OF_GEOMETRY:
        assert sample.info is not None
        return _OF_GEOMETRY[code](raw, sample.info)
    if code in ("PW135", "PW136"):
        return _nearest(raw, table), "each pixel has the nearest class"
    if code == "PW131":
        return np.where(raw > 0, raw - 1, 255), "1 taken off"
    if code == "PW132":
        return np.where(raw == 255, 1, raw), "255 is 1"
    if code == "PW138":
        step = int(np.gcd.reduce(np.unique(raw[raw > 0])))
        return raw // step, f"divided by {step}"
    if code == "PW139":
        return _lookup(raw, {i: value for i, (value, _) in enumerate(table.values)}), "numbers became colours"
    colours = config.data.palette
    if colours is None:
        raise ConfigError("it holds colours; list those of the classes in [data].palette, and it becomes numbers.")
    if not packed:
        raw, _ = read_mask(sample.mask, colours=True)
    by_class = {int(colour[1:], 16): value for colour, (value, _) in zip(colours, table.values, strict=False)}
    return _lookup(raw, by_class), "colours became numbers, by [data].palette"


def _resized(raw: Raw, image: RasterInfo) -> tuple[Integer[np.ndarray, "H W"], str]:
    height, width = raw.shape
    if abs((width / image.width) / (height / image.height) - 1) >= 0.02:
        raise ConfigError("it has other proportions than its image, so it was cropped; nobody knows where.")
    rows = ((np.arange(image.height) + 0.5) * height / image.height).astype(int)
    columns = ((np.arange(image.width) + 0.5) * width / image.width).astype(int)
    return raw[rows][:, columns], f"resized from {width}x{height} to {image.width}x{image.height} by nearest neighbour"


def _turned(raw: Raw, image: RasterInfo) -> tuple[Integer[np.ndarray, "H W"], str]:
    turned = image.turn.upright(raw)
    if turned.shape != (image.height, image.width):
        raise ConfigError("its orientation and that of its image do not explain its size.")
    return turned, "turned as EXIF turns its image"


_OF_GEOMETRY: dict[str, Callable[[Raw, RasterInfo], tuple[Raw, str]]] = {"PW120": _resized, "PW121": _turned}


def _nearest(raw: Raw, table: MaskTable) -> Raw:
    listed = np.array([value for value, _ in table.values] + list(table.ignored), np.int64)
    found, where = np.unique(raw, return_inverse=True)
    points, known = (_points(each, table.colours) for each in (found.astype(np.int64), listed))
    nearest = [int(((known - point) ** 2).sum(axis=1).argmin()) for point in points]
    return listed[nearest][where.reshape(raw.shape)]


def _points(values: np.ndarray, colours: bool) -> np.ndarray:
    return np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1) if colours else values[:, None]


def _lookup(raw: Raw, table: dict[int, int]) -> Raw:
    found, where = np.unique(raw, return_inverse=True)
    missing = [value for value in found.tolist() if value not in table]
    if missing:
        raise ConfigError(f"nothing says what {missing[0]:#x} becomes.")
    return np.array([table[value] for value in found.tolist()], np.int64)[where.reshape(raw.shape)]


def _fix_shapes(found: Examination, config: Config, data: dict, fixed: Fixed) -> bool:
    changed = False
    for place in as_places(config.data.labels or []):
        findings = [f for f in found.findings if f.file == str(place) and f.code in POLYGON_CODES]
        if findings and place.is_file():
            target = place.with_name(f"{place.stem}{SUFFIX}.gpkg")
            fixed.done += fix_polygons(place, target, findings, layer=config.data.layer)
            given = data.get("labels")
            if isinstance(given, list):
                data["labels"] = [str(target) if Path(each).name == place.name else each for each in given]
            else:
                data["labels"] = str(Path(given).with_name(target.name)) if isinstance(given, str) else str(target)
            changed = True
    return changed
