"""Classes, their names and colours, and what is ignored, from what masks hold."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pixelwise.data.survey.known import known_classes
from pixelwise.data.survey.names import VOID, NameFile
from pixelwise.data.survey.values import MaskValues, choose_values
from pixelwise.labels import Value

Ask = Callable[[str, Sequence[str]], int]
"""Asks a question with answers; returns the number of the chosen one. The first one is the guess."""

SHOWN = 12
MUCH = 0.3
"""From this share of the pixels on, 0 may be a background."""
LISTED_STRAYS = 8
"""So many stray values are listed as ignored; more are left to a rule."""
COLOUR_NAMES = {
    "black": 0x000000, "white": 0xFFFFFF, "grey": 0x808080, "light grey": 0xC8C8C8, "dark grey": 0x404040,
    "red": 0xE6194B, "dark red": 0x800000, "orange": 0xF58231, "brown": 0x9A6324, "yellow": 0xFFE119,
    "olive": 0x808000, "lime": 0xBFEF45, "green": 0x3CB44B, "bright green": 0x00FF00, "dark green": 0x006400,
    "teal": 0x469990, "cyan": 0x42D4F4, "light blue": 0x6EC1E4, "blue": 0x4363D8, "pure blue": 0x0000FF,
    "navy": 0x000075, "indigo": 0x3C1098, "violet": 0x8429F6, "purple": 0x911EB4, "magenta": 0xF032E6,
    "pink": 0xFABED4, "beige": 0xFFFAC8, "sand": 0xE2A929,
}  # fmt: skip
"""For colours that no file names."""


@dataclass
class ClassTable:
    """What a configuration says of classes."""

    names: list[str]
    values: dict[str, list[Value]] | None = None
    ignore: list[Value] | None = None
    palette: list[str] | None = None
    other_values: str | None = None
    shares: dict[str, float] = field(default_factory=dict)
    """Class -> its share of the labelled pixels."""
    saw: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)


def classes_of_masks(found: MaskValues, files: Sequence[NameFile], places: Sequence[str], ask: Ask) -> ClassTable:
    """Read classes from masks' values.

    Args:
        files: that name classes.
        places: of some masks, as they lie in their folder, without suffixes.
        ask: where two readings are equally likely.
    """
    if not found.pixels:
        return ClassTable([])
    if found.coloured:
        return _of_colours(found, files)
    chosen = choose_values(found)
    if chosen.instances:
        return _of_instances(found)
    table = _of_numbers(found, list(chosen.values), files, places, ask)
    if chosen.strays:
        share = found.share(chosen.strays)
        table.other_values = "nearest"
        why = "compressed with losses" if found.lossy else "smoothed at the edges"
        table.saw.append(f"The masks were {why}: {len(chosen.strays)} stray values on {share:.2%} of the pixels.")
        table.guessed.append("A stray value counts as the class with the nearest value (other_values).")
    return table


def _of_instances(found: MaskValues) -> ClassTable:
    first = min(found.pixels)
    share = found.pixels[first] / found.total
    return ClassTable(
        ["background", "object"],
        values={"background": [first]},
        ignore=[],
        other_values="object",
        shares={"background": share, "object": 1 - share},
        saw=[
            f"Each object in the masks has a number of its own ({len(found.pixels) - 1} numbers, {first} is outside)."
        ],
        guessed=["All objects are one class, 'object' (other_values)."],
    )


def _of_numbers(
    found: MaskValues, values: list[int], files: Sequence[NameFile], places: Sequence[str], ask: Ask
) -> ClassTable:
    saw = [f"Values in the masks: {_listed(found, values)}."]
    guessed: list[str] = []
    names, ignored = _names_of_numbers(found, values, files, places, saw, guessed, ask)
    # Grey levels that are spread evenly up to 255 are all classes; else 255 is the usual number of no class.
    spread = len(values) > 1 and values[0] == 0 and values[-1] == 255 and len(set(_steps(values))) == 1
    if 255 in values and 255 not in names and len(values) > 2 and not spread:
        ignored.add(255)
        guessed.append("255 is no class: it is ignored.")
    if len(values) > 3 and max(_steps(values), default=0) > 100 and values[-1] != 255 and values[-1] not in names:
        last = values[-1]
        question = f"The value {last} stands far from the other {len(values) - 1}. Is it a class?"
        if found.share([last]) < 0.05 and ask(question, ["no, ignore it", "yes, a class"]) == 0:
            ignored.add(last)
            guessed.append(f"{last} is no class, since it stands far from the other values: it is ignored.")
    if below := [value for value in values if value < 0 and value not in names]:
        ignored.update(below)
        guessed.append(f"{_few(list(map(str, below)))} is no class, since it is below 0: it is ignored.")
    kept = [value for value in values if value not in ignored]
    if len(kept) == 2 and not names:
        names = {kept[0]: "background", kept[1]: "object"}
        guessed.append(f"{kept[0]} is the background and {kept[1]} an object; give the object its name.")
    elif len(kept) > 2 and not names:
        names = {value: f"class_{value}" for value in kept}
        if kept[0] == 0 and found.share([0]) > MUCH:
            names[0] = "background"
        guessed.append("No file names the classes, so they are called by their values; give them their names.")
    table = ClassTable(_distinct([names.get(value, f"class_{value}") for value in kept]), saw=saw, guessed=guessed)
    if kept != list(range(len(kept))):
        table.values = {name: [value] for name, value in zip(table.names, kept, strict=True)}
        if kept and kept[0] == 1 and kept == list(range(1, len(kept) + 1)):
            saw.append("The values count from 1.")
    if ignored - {255} or (255 in kept):
        table.ignore = [int(value) for value in sorted(ignored | ({255} - set(kept) if 255 in ignored else set()))]
    elif 255 in ignored:
        table.ignore = [255]
    _palette(found, table, kept)
    _shares(found, table, kept)
    return table


def _names_of_numbers(
    found: MaskValues,
    values: list[int],
    files: Sequence[NameFile],
    places: Sequence[str],
    saw: list[str],
    guessed: list[str],
    ask: Ask,
) -> tuple[dict[int, str], set[int]]:
    """Return the names of values, and values that are no class by their names."""
    for file in files:
        if (table := file.by_value(values)) is None:
            continue
        names = {value: name for value, name in table.items() if value in values or not VOID.search(name)}
        void = {value for value in values if VOID.search(names.get(value, ""))}
        saw.append(f"{file.path.name} names the values.")
        if void:
            guessed.append(f"{_few(sorted(names[v] for v in void))} is no class: it is ignored.")
        if 0 in values and 0 not in table:
            if any(name.lower() == "background" for name in table.values()):
                return {}, set()
            if len(set(values) - {0, 255}) < 2 or _is_background(found, file, ask):
                table = {0: "background", **table}
                names[0] = "background"
                guessed.append(f"{file.path.name} has no name for 0, on {found.share([0]):.0%}: it is the background.")
            else:
                void.add(0)
                guessed.append(f"{file.path.name} has no name for 0, so 0 is not labelled: it is ignored.")
        return {value: names[value] for value in values if value in names and value not in void}, void
    known = known_classes(values, places)
    if known is not None:
        guessed.append(f"The values and names are those of {known.title}, so the classes have its names.")
        return dict(known.names), {value for value in values if value in known.ignored}
    for file in files:
        saw.append(f"{file.path.name} names {len(file.classes)} classes, which do not fit the values in the masks.")
    return {}, set()


def _is_background(found: MaskValues, file: NameFile, ask: Ask) -> bool:
    """Return whether 0, which a file of classes does not name, is a class all the same."""
    if found.share([0]) <= MUCH:
        return False
    question = f"{file.path.name} has no name for 0, which is on {found.share([0]):.0%} of the pixels. What is it?"
    answers = ["the background, a class", "nobody labelled it: ignore it"]
    # Numbers that somebody gave from 1 on leave 0 to the background.
    numbered = any(each.value is not None for each in file.classes)
    return answers[:: 1 if numbered else -1][ask(question, answers[:: 1 if numbered else -1])] == answers[0]


def _of_colours(found: MaskValues, files: Sequence[NameFile]) -> ClassTable:
    named = {colour: name for file in reversed(files) for colour, name in file.by_colour(found.pixels).items()}
    chosen = choose_values(found, named)
    values = [value for value in chosen.values if value not in named or found.share([value]) > 0]
    table = ClassTable([], saw=[f"Colours in the masks: {_listed(found, values)}."])
    for file in files:
        hits = {each.colour for each in file.classes} & set(values)
        if len(hits) == len(file.classes):
            table.saw.append(f"{file.path.name} names the colours.")
            continue
        if not any(each.colour is not None for each in file.classes):
            if len(file.classes) >= 2:
                table.saw.append(f"{file.path.name} names {len(file.classes)} classes, but no colours.")
            continue
        absent = [each for each in file.classes if each.colour not in values]
        table.saw.append(
            f"{file.path.name} does not match the masks: no mask has its colours of "
            + _few([f"{each.name} ({_hex(each.colour)})" for each in absent if each.colour is not None])
            + "."
        )
    ignored = [value for value in values if VOID.search(named.get(value, ""))]
    if ignored:
        table.guessed.append(
            f"{_few([f'{named[value]} ({_hex(value)})' for value in ignored])} is no class: it is ignored."
        )
    if named and 0 in values and 0 not in named and len(named) - len(ignored) >= len(values) - len(ignored) - 1:
        ignored.append(0)
        table.guessed.append("Black has no name where all other colours have one, so it is ignored.")
    kept = [value for value in values if value not in ignored]
    order = [each.colour for file in files for each in file.classes]
    kept.sort(key=lambda value: order.index(value) if value in order else len(order))
    table.names = _distinct([named.get(value) or _colour_name(value) for value in kept])
    unnamed = [name for name, value in zip(table.names, kept, strict=True) if value not in named]
    if unnamed:
        table.guessed.append(f"No file names {_few(unnamed)}: they are called as they look; give them their names.")
    table.values = {name: [_hex(value)] for name, value in zip(table.names, kept, strict=True)}
    table.palette = [_hex(value) for value in kept]
    _stray_colours(found, chosen.strays, ignored, table)
    table.ignore = [_hex(value) for value in ignored] if ignored else None
    _shares(found, table, kept)
    return table


def _stray_colours(found: MaskValues, strays: Sequence[int], ignored: list[int], table: ClassTable) -> None:
    """Say what becomes of colours that are no class."""
    if not strays:
        return
    counted = f"{found.share(strays):.3%} of the pixels"
    if len(strays) <= LISTED_STRAYS and not found.lossy:
        ignored += strays
        told = _few([_hex(value) for value in strays])
        table.saw.append(f"Stray colours: {told}, on {counted}.")
        table.guessed.append(f"{told} is no class, since so few pixels have it: it is ignored.")
    else:
        why = "compressed with losses" if found.lossy else "smoothed at the edges"
        table.saw.append(f"The masks were {why}: {len(strays)} stray colours on {counted}.")
        table.guessed.append("A stray colour counts as the class with the nearest colour (other_values).")
        table.other_values = "nearest"


def _palette(found: MaskValues, table: ClassTable, kept: Sequence[int]) -> None:
    if found.palette is None or not all(value in found.palette for value in kept):
        return
    colours = [found.palette[value][:3] for value in kept]
    # A ramp of greys is how programs show numbers, not a choice of colours.
    if len(set(colours)) == len(colours) and any(len(set(colour)) > 1 for colour in colours):
        table.palette = [_hex(r << 16 | g << 8 | b) for r, g, b in colours]
        table.saw.append("The colours of the classes are those of the masks' palette.")


def _shares(found: MaskValues, table: ClassTable, kept: Sequence[int]) -> None:
    total = max(1, sum(found.pixels[value] for value in kept))
    table.shares = {name: found.pixels[value] / total for name, value in zip(table.names, kept, strict=True)}


def _steps(values: Sequence[int]) -> list[int]:
    return [b - a for a, b in pairwise(values)]


def _listed(found: MaskValues, values: Sequence[int]) -> str:
    shown = [f"{_hex(v) if found.coloured else v} ({found.share([v]):.2%})" for v in values[:SHOWN]]
    return ", ".join(shown) + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _few(words: Sequence[str], most: int = 8) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _hex(value: int | None) -> str:
    return f"#{value or 0:06x}"


def _channels(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255


def _colour_name(value: int) -> str:
    if value == 0:
        return "background"
    return min(COLOUR_NAMES, key=lambda name: math.dist(_channels(COLOUR_NAMES[name]), _channels(value)))


def _distinct(names: Sequence[str]) -> list[str]:
    """Give names that come twice a number, and take away what would surprise in a configuration."""
    found: list[str] = []
    for name in names:
        name = re.sub(r"\s+", " ", name).strip() or "unnamed"
        tried, n = name, 2
        while tried in found:
            tried, n = f"{name} {n}", n + 1
        found.append(tried)
    return found
