"""Raw mask values and colours become class indices here, and nowhere else."""

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int16, Integer

from pixelwise.errors import ConfigError, DataError

IGNORE = -1
"""The value of ignored pixels in every mask in memory. They count in no loss and no score."""

Value = bool | int | str
"""A raw mask value, a colour as ``"#rrggbb"``, or a value of a column of polygons."""


@dataclass(frozen=True)
class Classes:
    """The names of the classes, in the order of their indices, and the colours they are drawn in."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the index of a class.

        Raises:
            ConfigError: no class has this name.
        """
        if name not in self.names:
            raise ConfigError(f"[data].classes has no {name!r}; it has {', '.join(self.names)}.")
        return self.names.index(name)


def make_classes(names: Sequence[str], palette: Sequence[str] | None = None) -> Classes:
    """Give each class its colour (``"#rrggbb"``), by default from well-spaced hues.

    Raises:
        ConfigError: a name comes twice, or the palette has another length or a wrong colour.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(f"[data].classes names {twice[0]!r} twice. Give each class its own name.", code="PW311")
    if palette is None:
        return Classes(tuple(names), _spaced_hues(len(names)))
    if len(palette) != len(names):
        raise ConfigError(f"[data].palette has {len(palette)} colours for {len(names)} classes. Give one per class.")
    return Classes(tuple(names), tuple(parse_colour(colour) for colour in palette))


def parse_colour(colour: str) -> tuple[int, int, int]:
    """Read ``"#rrggbb"`` as three numbers from 0 to 255.

    Raises:
        ConfigError: the text is not of that form.
    """
    if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise ConfigError(f"{colour!r} is not a colour. Write it as '#rrggbb', such as '#3c6e47'.")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _spaced_hues(count: int) -> tuple[tuple[int, int, int], ...]:
    # The golden angle keeps neighbours far apart for any count. Three levels of lightness separate long lists.
    colours = []
    for i in range(count):
        red, green, blue = colorsys.hls_to_rgb((0.58 + i * 0.618034) % 1, (0.45, 0.62, 0.33)[i % 3], 0.62)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


@dataclass(frozen=True)
class MaskTable:
    """How raw mask values, or colours, become class indices.

    ``values`` maps each raw value to its class; ``ignored`` lists the values that become `IGNORE`. A colour mask is
    looked up by 0xRRGGBB. ``colours`` says which of the two kinds of mask the table is for.
    """

    values: tuple[tuple[int, int], ...]
    ignored: tuple[int, ...]
    colours: bool
    classes: Classes
    others: str = "error"
    """What becomes of other values: 'error', 'ignore', 'nearest' (as the nearest listed one), or a class."""

    def to_indices(
        self, mask: Integer[np.ndarray, "H W"], where: str, *, empty: Bool[np.ndarray, "H W"] | None = None
    ) -> Int16[np.ndarray, "H W"]:
        """Map a raw mask to class indices and `IGNORE`.

        Args:
            mask: raw values, or packed colours 0xRRGGBB when ``colours`` is set.
            where: the file, for the message.
            empty: pixels that are ignored if their value is unknown; default: no pixel.

        Raises:
            DataError: a value that is neither in ``values`` nor in ``ignored``.
        """
        known = np.array([value for value, _ in self.values] + list(self.ignored), dtype=np.int64)
        index = np.array([index for _, index in self.values] + [IGNORE] * len(self.ignored), dtype=np.int16)
        order = np.argsort(known, kind="stable")
        known, index = known[order], index[order]
        position = np.searchsorted(known, mask).clip(max=len(known) - 1)
        strange, indices = known[position] != mask, index[position]
        if empty is not None:
            indices[strange & empty] = IGNORE
            strange &= ~empty
        if strange.any() and self.others != "error":
            indices[strange] = self._of_others(mask[strange])
        elif strange.any():
            found, counts = np.unique(mask[strange], return_counts=True)
            raise UnknownMaskValuesError({where: dict(zip(found.tolist(), counts.tolist(), strict=True))}, self)
        return indices

    def _of_others(self, values: Integer[np.ndarray, " n"]) -> Int16[np.ndarray, " n"] | int:
        """Return the indices of values that are not listed."""
        if self.others != "nearest":
            return IGNORE if self.others == "ignore" else self.classes.index(self.others)
        listed = np.array([value for value, _ in self.values] + list(self.ignored), dtype=np.int64)
        index = np.array([index for _, index in self.values] + [IGNORE] * len(self.ignored), dtype=np.int16)
        strange, of = np.unique(values.astype(np.int64), return_inverse=True)
        places, known = (_as_points(each, colours=self.colours) for each in (strange, listed))
        nearest = [int(((known - place) ** 2).sum(axis=1).argmin()) for place in places]
        return index[nearest][of.reshape(-1)]


def _as_points(values: Integer[np.ndarray, " n"], *, colours: bool) -> Integer[np.ndarray, "n d"]:
    """Return values as points between which there is a distance: numbers on a line, colours in a cube."""
    if not colours:
        return values[:, None]
    return np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1)


SHOWN_VALUES = 20
"""Messages list so many values. More unknown ones are hardly classes."""
SHOWN_FILES = 300


class UnknownMaskValuesError(DataError):
    """Masks hold values that no class has.

    Args:
        pixels: file -> value -> number of pixels.
        table: how the masks were read.
    """

    code = "PW412"

    def __init__(self, pixels: Mapping[str, Mapping[int, int]], table: MaskTable) -> None:
        self.pixels = {file: dict(values) for file, values in pixels.items()}
        self.table = table
        super().__init__(self._one_file() if len(pixels) == 1 else self._many_files())

    def joined(self, other: "UnknownMaskValuesError") -> "UnknownMaskValuesError":
        """Return both as one."""
        pixels = {file: dict(values) for file, values in self.pixels.items()}
        for file, values in other.pixels.items():
            known = pixels.setdefault(file, {})
            for value, count in values.items():
                known[value] = known.get(value, 0) + count
        return UnknownMaskValuesError(pixels, self.table)

    def _totals(self) -> list[tuple[str, int, int]]:
        """Return (value, files, pixels), the most frequent first."""
        totals: dict[int, list[int]] = {}
        for values in self.pixels.values():
            for value, count in values.items():
                total = totals.setdefault(value, [0, 0])
                total[0] += 1
                total[1] += count
        ordered = sorted(totals.items(), key=lambda item: (-item[1][1], item[0]))
        return [(self._shown(value), files, pixels) for value, (files, pixels) in ordered]

    def _classes(self) -> str:
        names = self.table.classes.names
        return f"[data].classes has {len(names)} names (0 to {len(names) - 1}: {', '.join(names)}) and nothing maps"

    def _shown(self, value: int) -> str:
        return f"#{value:06x}" if self.table.colours else str(value)

    def _ignored(self, values: list[str]) -> str:
        # A list in the configuration replaces the default, so it must hold the values that are ignored by default.
        listed = [*map(self._shown, self.table.ignored), *values]
        return "ignore = [" + ", ".join(f"'{value}'" if self.table.colours else value for value in listed) + "]"

    def _one_file(self) -> str:
        totals = self._totals()
        shown = [value for value, *_ in totals[:SHOWN_VALUES]]
        holds = f"{'colour' if self.table.colours else 'value'}{'s' if len(totals) > 1 else ''} {', '.join(shown)}"
        more = f" and {len(totals) - SHOWN_VALUES} more" if len(totals) > SHOWN_VALUES else ""
        (file,) = self.pixels
        return (
            f"{file} holds the {holds}{more} ({sum(pixels for *_, pixels in totals):,} pixels), but {self._classes()} "
            f"{'them' if len(totals) > 1 else 'it'}. {self._advice(totals)}"
        )

    def _many_files(self) -> str:
        totals = self._totals()
        shown = ", ".join(
            f"{value} ({pixels:,} pixels in {files} {'mask' if files == 1 else 'masks'})"
            for value, files, pixels in totals[:SHOWN_VALUES]
        )
        more = f" and {len(totals) - SHOWN_VALUES} more" if len(totals) > SHOWN_VALUES else ""
        others = len(self.pixels) - SHOWN_FILES
        files = ", ".join([*self.pixels][:SHOWN_FILES]) + (f" and {others} more" if others > 0 else "")
        kind = "colours" if self.table.colours else "values"
        return (
            f"{len(self.pixels)} masks hold {kind} that no class has: {shown}{more}; {self._classes()} them. "
            f"{self._advice(totals)} The masks: {files}."
        )

    def _advice(self, totals: list[tuple[str, int, int]]) -> str:
        if len(totals) > SHOWN_VALUES:
            return (
                "So many values are hardly classes: JPEG compression and smooth resampling add values between those of "
                "classes. Save the masks as PNG or TIFF, resampled by nearest neighbour; or map all values with "
                "[data].values."
            )
        if len(totals) == 1:
            return f"Add a class, map it with [data].values, or mark it ignored with {self._ignored([totals[0][0]])}."
        return (
            "Add classes, map them with [data].values, or mark them ignored with "
            f"{self._ignored([value for value, *_ in totals])}."
        )


def make_mask_table(
    classes: Classes,
    values: dict[str, list[Value]] | None = None,
    ignore: Sequence[Value] | None = None,
    others: str = "error",
) -> MaskTable:
    """Build the table of raw values from the config's ``[data].values``, ``[data].ignore`` and ``[data].other_values``.

    Without ``values`` a mask holds the class indices themselves. Without ``ignore`` the value 255 is ignored, as in
    most published data sets, unless it is mapped to a class.

    Raises:
        ConfigError: an unknown class, a class without a value, a value used twice, numbers and colours mixed.
    """
    if values is None:
        pairs: list[tuple[Value, int]] = [(index, index) for index in range(len(classes))]
    else:
        pairs = [(value, classes.index(name)) for name, listed in values.items() for value in listed]
        missing = [name for name in classes.names if not values.get(name) and name != others]
        if missing:
            raise ConfigError(
                f"[data].values gives no value for the class {missing[0]!r}. Add one, or drop the class.", code="PW311"
            )
    if others not in ("error", "ignore", "nearest", *classes.names):
        raise ConfigError(
            f"[data].other_values is {others!r}, but must be 'error', 'ignore', 'nearest' or one of the classes "
            f"({', '.join(classes.names)})."
        )
    raw = [value for value, _ in pairs]
    colours = any(isinstance(value, str) for value in raw)
    listed_ignore = list(ignore) if ignore is not None else ([255] if not colours and 255 not in raw else [])
    if any(isinstance(value, str) != colours for value in [*raw, *listed_ignore]):
        raise ConfigError(
            "[data].values and [data].ignore mix numbers and colours. Write only numbers, or only colours."
        )
    packed = [_packed(value) for value in [*raw, *listed_ignore]]
    for value, code in zip([*raw, *listed_ignore], packed, strict=True):
        if packed.count(code) > 1:
            where = "[data].values and [data].ignore" if values else "[data].ignore and the indices of the classes"
            raise ConfigError(f"The mask value {value} is listed twice in {where}. Keep one.")
    by_value = tuple((code, index) for code, (_, index) in zip(packed, pairs, strict=False))
    return MaskTable(by_value, tuple(packed[len(pairs) :]), colours, classes, others)


def _packed(value: Value) -> int:
    if isinstance(value, int):
        return value
    red, green, blue = parse_colour(value)
    return red << 16 | green << 8 | blue


def pack_colours(image: Integer[np.ndarray, "3 H W"]) -> Integer[np.ndarray, "H W"]:
    """Pack red, green and blue (0 to 255) into one number 0xRRGGBB per pixel, for `MaskTable.to_indices`."""
    red, green, blue = image.astype(np.int32)
    return red << 16 | green << 8 | blue


def label_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the type of a label map in memory: uint8 up to 256 classes, uint16 from 257 on."""
    return np.uint8 if classes <= 256 else np.uint16
