"""Names of classes from a file beside the masks: JSON, CSV or text, of any of the usual forms."""

import csv
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

FILES = re.compile(
    r"class|label|categor|legend|palette|colou?r|meta|names|info|config|dataset|id2|lookup|mapping", re.IGNORECASE
)
"""What the name of such a file may hold."""
LARGEST = 4 << 20
"""In bytes; files of class names are small."""
VOID = re.compile(
    r"(?i)(^|[^a-z])(void|un-?label+ed|ignored?|unknown|undefined|no[ _-]?data|not[ _-]?labell?ed|unclassified|"
    r"no[ _-]?label|out[ _-]of[ _-]roi|invalid)([^a-z]|$)"
)
"""Names of what is no class."""
NAME_KEYS = ("name", "title", "class", "label", "class_name", "classname", "label_name", "category", "display_name")
VALUE_KEYS = ("id", "value", "index", "pixel", "class_id", "label_id", "gray", "grey", "code", "idx", "class_index")
COLOUR_KEYS = ("color", "colour", "rgb", "hex", "color_rgb", "color_hex_code", "hex_code")


@dataclass(frozen=True)
class Named:
    """A class that a file names."""

    name: str
    value: int | None
    colour: int | None
    """0xRRGGBB."""


@dataclass(frozen=True)
class NameFile:
    """A file that names classes, in its order."""

    path: Path
    classes: tuple[Named, ...]

    def by_value(self, values: Collection[int]) -> dict[int, str] | None:
        """Return the names of some mask values; None if it does not name all of them but 255, and 0."""
        wanted = {value for value in values if value != 255} or set(values)
        given = {each.value: each.name for each in self.classes if each.value is not None} or self._greys()
        plain = {i: each.name for i, each in enumerate(self.classes)}
        tables = [given] if given else [plain]
        if not given and 0 not in wanted and len(wanted) == len(self.classes):
            tables = [{i + 1: name for i, name in plain.items()}]
        elif not given and max(wanted) == len(self.classes):
            # Names of the classes from 1 on; 0 is what has none.
            tables = [{i + 1: name for i, name in plain.items()}]
            wanted -= {0}
        elif 0 not in given:
            wanted -= {0}
        for table in tables:
            if wanted and wanted <= set(table):
                return table
        return None

    def _greys(self) -> dict[int, str]:
        """Return the names of grey levels, where all its colours are grey."""
        colours = {each.colour: each.name for each in self.classes if each.colour is not None}
        grey = {colour & 0xFF: name for colour, name in colours.items() if colour == (colour & 0xFF) * 0x010101}
        return grey if len(grey) == len(self.classes) else {}

    def by_colour(self, colours: Collection[int]) -> dict[int, str]:
        """Return the names of those colours that it has."""
        return {each.colour: each.name for each in self.classes if each.colour is not None and each.colour in colours}


def find_name_files(paths: Iterable[Path]) -> list[NameFile]:
    """Read the files that name classes."""
    found = []
    for path in paths:
        try:
            if not FILES.search(path.stem) or path.stat().st_size > LARGEST:
                continue
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        read = {".json": _json, ".csv": _csv, ".txt": _text, ".names": _text, ".tsv": _csv}.get(path.suffix.lower())
        classes = read(text) if read is not None else []
        names = [each.name for each in classes]
        if 2 <= len(classes) <= 1000 and len(set(names)) == len(names):
            found.append(NameFile(path, tuple(classes)))
    return found


def _json(text: str) -> list[Named]:
    try:
        return _of_tree(json.loads(text))
    except (ValueError, RecursionError):
        return []


def _of_tree(tree: object) -> list[Named]:
    """Return the first list or table in a tree that names classes."""
    if isinstance(tree, dict):
        if found := _of_table(tree):
            return found
        for key in sorted(tree, key=lambda key: not FILES.search(str(key))):
            if isinstance(tree[key], dict | list) and (found := _of_tree(tree[key])):
                return found
    if isinstance(tree, list):
        if tree and all(isinstance(each, str) for each in tree):
            return [Named(each, None, None) for each in tree]
        rows = [_row(each) for each in tree if isinstance(each, dict)]
        if rows and len(rows) == len(tree) and all(rows):
            return [row for row in rows if row is not None]
    return []


def _row(entry: dict) -> Named | None:
    lower = {str(key).lower(): value for key, value in entry.items()}
    name = next((lower[key] for key in NAME_KEYS if isinstance(lower.get(key), str)), None)
    value = next((_number(lower[key]) for key in VALUE_KEYS if key in lower), None)
    colour = next((_colour(lower[key]) for key in COLOUR_KEYS if key in lower), None)
    return None if name is None else Named(name.strip(), value, colour)


def _of_table(table: dict) -> list[Named]:
    """Read {name: value or colour}, or {value or colour: name}."""
    found = []
    for key, value in table.items():
        if isinstance(value, str) and (_number(key) is not None or _colour(key) is not None):
            found.append(Named(value, _number(key), _colour(key) if _number(key) is None else None))
        elif (
            _number(key) is None
            and not isinstance(value, dict | bool)
            and (_number(value), _colour(value))
            != (
                None,
                None,
            )
        ):
            found.append(Named(str(key), _number(value), _colour(value)))
        elif _number(key) is not None and isinstance(value, dict) and (row := _row(value)):
            found.append(Named(row.name, row.value if row.value is not None else _number(key), row.colour))
        else:
            return []
    return found if len(found) >= 2 else []


def _csv(text: str, delimiters: str = ",;\t") -> list[Named]:
    try:
        dialect = csv.Sniffer().sniff(text[:4096], delimiters=delimiters)
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), dialect) if row]
    except csv.Error:
        return []
    if len(rows) < 2:
        return []
    head = [cell.lower() for cell in rows[0]]
    channels = [next((i for i, cell in enumerate(head) if cell in names), None) for names in _CHANNELS]
    if not any(cell in NAME_KEYS for cell in head):
        return [named for row in rows if (named := _cells(row)) is not None]
    found = []
    for row in rows[1:]:
        entry: dict[str, object] = dict(zip(head, row, strict=False))
        numbers = [_number(row[i]) if i is not None and i < len(row) else None for i in channels]
        if None not in numbers:
            entry["rgb"] = numbers
        if (named := _row(entry)) is not None:
            found.append(named)
    return found


_CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))


def _text(text: str) -> list[Named]:
    """Read a name per line, with a number or a colour before or behind it; or CVAT's label:r,g,b:parts:actions."""
    if "\t" in (head := text.partition("\n")[0]) and {cell.strip().lower() for cell in head.split("\t")} & {*NAME_KEYS}:
        return _csv(text, "\t")
    found = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        if (cvat := re.fullmatch(r"([^:]+):(\d+,\d+,\d+)?:.*:?.*", line)) is not None:
            found.append(Named(cvat[1].strip(), None, _colour(cvat[2].split(",")) if cvat[2] else None))
        elif (named := _cells(re.split(r"[\t,;:=]\s*|\s+(?=[\d#])|(?<=\d)\s+", line))) is not None:
            found.append(named)
    return found


def _cells(cells: list[str]) -> Named | None:
    cells = [cell.strip() for cell in cells if cell.strip()]
    words = [cell for cell in cells if _number(cell) is None and _colour(cell) is None]
    numbers = [number for cell in cells if (number := _number(cell)) is not None]
    colour = next((found for cell in cells if _number(cell) is None and (found := _colour(cell)) is not None), None)
    if len(words) != 1 or not re.search(r"[^\W\d_]", words[0]):
        return None
    if len(numbers) >= 3:
        colour = _colour(numbers[-3:])
        numbers = numbers[:-3]
    return Named(words[0], numbers[0] if len(numbers) == 1 else None, colour)


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value.strip()) else None


def _colour(value: object) -> int | None:
    """Read '#50E3C2', 'rgb(1, 2, 3)', [1, 2, 3] or (0 to 1) as 0xRRGGBB."""
    if isinstance(value, str):
        if re.fullmatch(r"#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?", value.strip()):
            return int(value.strip()[1:7], 16)
        parts = re.findall(r"\d+", value)
        value = parts if len(parts) in (3, 4) and re.fullmatch(r"[\s\d,;()\[\]rgbaRGBA]+", value) else None
    if not isinstance(value, list | tuple) or len(value) not in (3, 4):
        return None
    numbers = [_number(each) for each in value]
    if any(number is None or not 0 <= number <= 255 for number in numbers):
        return None
    red, green, blue = (number or 0 for number in numbers[:3])
    return red << 16 | green << 8 | blue
