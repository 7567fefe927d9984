"""Values of masks that no class has, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.sample import Facts, Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.labels import MaskTable

SHOWN_VALUES = 12
CROP = 256
"""Side in pixels of the picture around a value."""
MANY = 20
"""Classes have not so many colours beside the listed ones."""
NEAR_LINE = 6.0
"""How far a mixed colour may be from the line between two of the listed ones, in steps of 255."""
NEAR_COLOUR = 40.0
"""How far JPEG moves a colour at most, mostly."""


def raw_values(facts: Facts, table: MaskTable, key: str = "values") -> dict[int, int]:
    """Return raw value -> pixels; a grey mask of three equal bands holds numbers, where numbers are expected."""
    values = {int(value): count for value, count in facts.get(key, {}).items()}
    if facts.get("packed") and not table.colours and all(_is_grey(value) for value in values):
        return {value & 0xFF: count for value, count in values.items()}
    return values


def _is_grey(value: int) -> bool:
    return value == (value & 0xFF) * 0x010101


def check_values(samples: Sequence[Sample], table: MaskTable) -> list[Finding]:
    """Return a finding for each mask with values that no class has, and one for masks of 0 and 255."""
    if table.others != "error":
        # The configuration says what other values are.
        return []
    known = {value for value, _ in table.values} | set(table.ignored)
    masked = [sample for sample in samples if sample.mask is not None and "values" in sample.facts]
    everywhere, ignored_elsewhere = Counter[int](), False
    for sample in masked:
        values = raw_values(sample.facts, table)
        everywhere.update(dict.fromkeys(values, 1))
        # 255 means 'ignored' in masks that hold the second class too.
        ignored_elsewhere |= 255 in values and bool(set(values) - {0, 255})
    findings = []
    for sample in masked:
        values = raw_values(sample.facts, table)
        unknown = {value: count for value, count in values.items() if value not in known}
        if unknown:
            findings.append(_finding(sample, values, unknown, table, everywhere))
        elif 0 in everywhere and _white(values, table) and not ignored_elsewhere:
            findings.append(_white_finding(sample, values, table))
    return _in_order(_for_some(findings, len(masked)), sorted(everywhere), table)


def _in_order(findings: list[Finding], seen: list[int], table: MaskTable) -> list[Finding]:
    """Return findings with a table of values, where masks hold as many values as there are classes, and no index."""
    names, ignored = table.classes.names, set(table.ignored)
    seen = [value for value in seen if value not in ignored]
    plain = not table.colours and not set(seen) & set(range(1, len(names)))
    if not plain or len(seen) != len(names) or not all(value < 1 << 16 for value in seen):
        return findings
    mapped = ", ".join(f'"{name}" = {value}' for name, value in zip(names, seen, strict=True))
    said = f"If the classes are in this order, write below [data]: values = {{ {mapped} }}."
    return [replace(finding, fix=said) if finding.code == "PW130" else finding for finding in findings]


def _for_some(findings: list[Finding], masks: int) -> list[Finding]:
    """Return findings with other advice where a new table of values would be wrong for the other masks."""
    several = Counter(finding.code for finding in findings)
    said = "Correct these masks; `pixelwise check --fix` does that in copies."
    alike = {code for code in ("PW131", "PW132", "PW138") if 0 < several[code] < masks}
    return [replace(finding, fix=said) if finding.code in alike else finding for finding in findings]


def class_index(samples: Sequence[Sample], table: MaskTable) -> dict[int, int]:
    """Return raw value -> class, also of values that the configuration lists under no class but gives one."""
    index = dict(table.values)
    if table.others != "error":
        seen = {value for sample in samples if sample.mask for value in raw_values(sample.facts, table)} - set(index)
        strange = np.array(sorted(seen - set(table.ignored)), np.int64)[None]
        found = table.to_indices(strange, "masks")[0] if strange.size else ()
        index |= {int(value): int(i) for value, i in zip(strange[0], found, strict=True) if i >= 0}
    return index


def _white(values: Mapping[int, int], table: MaskTable) -> bool:
    return not table.colours and len(table.classes) == 2 and 255 in table.ignored and {255} <= set(values) <= {0, 255}


def _white_finding(sample: Sample, values: Mapping[int, int], table: MaskTable) -> Finding:
    first, second = table.classes.names
    said = (
        f"{sample.mask} holds 0 and 255 alone ({values[255]:,} pixels of 255), and 255 is ignored unless it is mapped."
    )
    fix = f'Write below [data]: values = {{ "{first}" = 0, "{second}" = 255 }}. `pixelwise check --fix` does that.'
    return _of(sample, "PW132", said, fix, values, 255)


def _of(
    sample: Sample, code: str, said: str, fix: str, values: Mapping[int, int], worst: int, *, colours: bool = False
) -> Finding:
    shown = {_shown(value, colours): count for value, count in _frequent(values)[:50]}
    spot = Spot(sample.image, sample.mask, window_around(sample.facts, worst, sample.mask_info))
    return Finding(code, str(sample.mask), said, fix, shown, spot, (str(sample.image),))


def window_around(facts: Facts, value: int, info: RasterInfo | None) -> Window | None:
    """Return a window around the first pixel of a value."""
    place = facts.get("places", {}).get(str(value)) or facts.get("places", {}).get(str(value * 0x010101))
    if place is None or info is None:
        return None
    height, width = min(CROP, info.height), min(CROP, info.width)
    top = min(max(0, place[0] - height // 2), info.height - height)
    left = min(max(0, place[1] - width // 2), info.width - width)
    return Window(top, left, height, width)


def _frequent(values: Mapping[int, int]) -> list[tuple[int, int]]:
    return sorted(values.items(), key=lambda item: (-item[1], item[0]))


def _shown(value: int, colours: bool) -> str:
    return f"#{value:06x}" if colours else str(value)


def _finding(
    sample: Sample, values: Mapping[int, int], unknown: Mapping[int, int], table: MaskTable, everywhere: Counter[int]
) -> Finding:
    colours = table.colours or (bool(sample.facts.get("packed")) and not all(map(_is_grey, values)))
    code = _reason(sample, values, unknown, table, everywhere)
    worst = _frequent(unknown)
    named = ", ".join(_shown(value, colours) for value, _ in worst[:SHOWN_VALUES])
    more = f" and {len(worst) - SHOWN_VALUES} more" if len(worst) > SHOWN_VALUES else ""
    kind = "colour" if colours else "value"
    names = table.classes.names
    said = (
        f"{sample.mask} holds the {kind}{'s' if len(worst) > 1 else ''} {named}{more} ({sum(unknown.values()):,} "
        f"pixels), but [data].classes has {len(names)} names (0 to {len(names) - 1}: {', '.join(names)}) and nothing "
        f"maps {'them' if len(worst) > 1 else 'it'}. {_why(code, sample, values, unknown, table)}"
    )
    return _of(sample, code, said.rstrip(), _fix(code, values, unknown, table), unknown, worst[0][0], colours=colours)


def _reason(
    sample: Sample, values: Mapping[int, int], unknown: Mapping[int, int], table: MaskTable, everywhere: Counter[int]
) -> str:
    info = sample.mask_info
    if info is not None and info.lossy:
        return "PW136"
    few = sum(unknown.values()) <= LIMITS.mixed_values * sum(values.values())
    if table.colours:
        if all(_is_grey(value) and value < 0x101010 * 2 for value in values):
            return "PW139"
        listed = [value for value, _ in table.values] + list(table.ignored)
        if len(unknown) >= 3 and few and _share_near_lines(unknown, listed) >= 0.8:
            return "PW135"
        # JPEG changes most pixels a little.
        if len(unknown) >= (3 if few else MANY) and _share_near_colours(unknown, listed) >= 0.8:
            return "PW136"
        return "PW134"
    if sample.facts.get("packed") and not all(map(_is_grey, values)):
        return "PW133"
    count = len(table.classes)
    plain = sorted(value for value, _ in table.values) == list(range(count))
    if plain and set(unknown) == {count} and 0 not in values:
        return "PW131"
    if info is not None and info.paletted:
        return "PW137"
    if plain and _stretched(set(values) - set(table.ignored) | ({255} & set(values)), count):
        return "PW138"
    low, high = min(value for value, _ in table.values), max(value for value, _ in table.values)
    if len(unknown) >= 3 and few and all(low < value < high for value in unknown):
        return "PW135"
    return "PW130"


def _stretched(values: set[int], count: int) -> bool:
    """Return whether values are 0, s, 2 s ... of one step, up to the number of classes."""
    if len(values) < 2 or 0 not in values:
        return False
    step = int(np.gcd.reduce([value for value in values if value]))
    # A step of 2 or 3 is as likely a list of classes of which some are missing.
    return step >= 10 and max(values) // step < count and (max(values) in (254, 255, 252) or len(values) == count)


def _rgb(value: int) -> np.ndarray:
    return np.array([value >> 16, value >> 8 & 255, value & 255], float)


def _share_near_lines(unknown: Mapping[int, int], listed: Sequence[int]) -> float:
    """Return the share of unknown pixels whose colour lies between two of the listed ones."""
    pairs = [(_rgb(a), _rgb(b)) for a, b in combinations(listed, 2)]
    near = 0
    for value, count in _frequent(unknown)[:200]:
        colour = _rgb(value)
        for a, b in pairs:
            along = float(np.clip((colour - a) @ (b - a) / max(1.0, float((b - a) @ (b - a))), 0, 1))
            if np.linalg.norm(colour - a - along * (b - a)) <= NEAR_LINE:
                near += count
                break
    return near / max(1, sum(count for _, count in _frequent(unknown)[:200]))


def _share_near_colours(unknown: Mapping[int, int], listed: Sequence[int]) -> float:
    colours = np.array([_rgb(value) for value in listed])
    near = sum(
        count for value, count in unknown.items() if np.linalg.norm(colours - _rgb(value), axis=1).min() <= NEAR_COLOUR
    )
    return near / max(1, sum(unknown.values()))


def _why(code: str, sample: Sample, values: Mapping[int, int], unknown: Mapping[int, int], table: MaskTable) -> str:
    share = sum(unknown.values()) / max(1, sum(values.values()))
    return {
        "PW131": "The mask has no 0, so its classes are probably counted from 1.",
        "PW133": "They are colours, and [data.values] names none.",
        "PW134": "",
        "PW135": f"They lie between those of the classes ({share:.1%} of the pixels): the mask was probably resized or "
        "drawn with smooth edges.",
        "PW136": "The mask was compressed with losses (JPEG), which changes values along edges.",
        "PW137": "It is paletted: its palette calls them "
        + ", ".join(_palette_colour(sample, value) for value, _ in _frequent(unknown)[:4])
        + ".",
        "PW138": "Its values are evenly spread, so classes were probably stretched to be seen.",
        "PW139": "It holds numbers, and [data.values] names colours.",
    }.get(code, "")


def _palette_colour(sample: Sample, value: int) -> str:
    colour = (sample.facts.get("palette") or {}).get(str(value))
    return "#{:02x}{:02x}{:02x}".format(*colour) if colour else "nothing"


def _fix(code: str, values: Mapping[int, int], unknown: Mapping[int, int], table: MaskTable) -> str:
    names = table.classes.names
    if code == "PW131":
        mapped = ", ".join(f'"{name}" = {i + 1}' for i, name in enumerate(names[:6])) + (", ..." if names[6:] else "")
        return f"Write below [data]: values = {{ {mapped} }}. `pixelwise check --fix` takes 1 off in a copy."
    if code == "PW138":
        steps = sorted(set(values))
        mapped = ", ".join(f'"{name}" = {value}' for name, value in zip(names[:6], steps, strict=False))
        return f"Write below [data]: values = {{ {mapped} }}."
    if code in ("PW130", "PW134"):
        listed = [_shown(value, table.colours) for value in (*table.ignored, *(v for v, _ in _frequent(unknown)))]
        ignore = ", ".join(f"'{value}'" if table.colours else value for value in listed[:SHOWN_VALUES])
        what = "Add a class, map it" if len(unknown) == 1 else "Add classes, map them"
        it = "it" if len(unknown) == 1 else "them"
        return f"{what} with [data].values, or mark {it} ignored with ignore = [{ignore}]."
    if code in ("PW133", "PW137"):
        return "Map them below [data.values], such as values = { road = '#804080' }, or as numbers."
    if code == "PW135":
        return "Make the mask again by nearest neighbour; `pixelwise check --fix` sets each pixel to the nearest class."
    if code == "PW136":
        return "Export it again as PNG or TIFF; `pixelwise check --fix` sets each pixel to the nearest class."
    return ""
