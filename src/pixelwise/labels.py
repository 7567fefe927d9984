"""Where mask values change, and nowhere else: raw values and colours become class indices here."""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Integer

from pixelwise.errors import ConfigError, DataError

IGNORE = -1
"""The ignore index of every mask in memory: such a pixel counts in no loss and no score."""

Value = int | str
"""A raw mask value, or a colour as ``"#rrggbb"``."""


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
    """Join names with colours (``"#rrggbb"``), or with a palette of well-spaced hues.

    Raises:
        ConfigError: a name comes twice, or the palette has another length or a malformed colour.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(f"[data].classes names {twice[0]!r} twice. Give each class its own name.")
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
    # The golden angle keeps neighbours far apart whatever the count; alternating lightness separates long lists.
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

    def to_indices(self, mask: Integer[np.ndarray, "H W"], where: str) -> Int16[np.ndarray, "H W"]:
        """Map a raw mask to class indices and `IGNORE`.

        Args:
            mask: raw values, or packed colours 0xRRGGBB when ``colours`` is set.
            where: the file, for the message.

        Raises:
            DataError: a value that neither the table nor ``ignored`` knows.
        """
        known = np.array([value for value, _ in self.values] + list(self.ignored), dtype=np.int64)
        index = np.array([index for _, index in self.values] + [IGNORE] * len(self.ignored), dtype=np.int16)
        order = np.argsort(known, kind="stable")
        known, index = known[order], index[order]
        position = np.searchsorted(known, mask).clip(max=len(known) - 1)
        strange = known[position] != mask
        if strange.any():
            raise DataError(self._complaint(mask[strange], where))
        return index[position]

    def _complaint(self, strange: Integer[np.ndarray, " n"], where: str) -> str:
        found, counts = np.unique(strange, return_counts=True)
        shown = [f"#{int(v):06x}" if self.colours else str(int(v)) for v in found[np.argsort(-counts)][:5]]
        holds = f"{'colour' if self.colours else 'value'}{'s' if len(found) > 1 else ''} {', '.join(shown)}"
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        example = f"'{shown[0]}'" if self.colours else shown[0]
        return (
            f"{where} holds the {holds}{more} ({int(counts.sum()):,} pixels), but [data].classes has "
            f"{len(self.classes)} names (0 to {len(self.classes) - 1}: {', '.join(self.classes.names)}) and nothing "
            f"maps it. Add a class, map it with [data].values, or mark it ignored with ignore = [{example}]."
        )


def make_mask_table(
    classes: Classes, values: dict[str, list[Value]] | None = None, ignore: Sequence[Value] | None = None
) -> MaskTable:
    """Build the table of raw values from the config's ``[data].values`` and ``[data].ignore``.

    Without ``values`` a mask holds the class indices themselves. Without ``ignore`` the value 255 is ignored, as in
    most published data sets, unless it is mapped to a class.

    Raises:
        ConfigError: an unknown class, a class without a value, a value used twice, numbers and colours mixed.
    """
    if values is None:
        pairs: list[tuple[Value, int]] = [(index, index) for index in range(len(classes))]
    else:
        pairs = [(value, classes.index(name)) for name, listed in values.items() for value in listed]
        missing = [name for name in classes.names if not values.get(name)]
        if missing:
            raise ConfigError(f"[data].values gives no value for the class {missing[0]!r}. Add one, or drop the class.")
    raw = [value for value, _ in pairs]
    colours = any(isinstance(value, str) for value in raw)
    listed_ignore = list(ignore) if ignore is not None else ([255] if not colours and 255 not in raw else [])
    if any(isinstance(value, str) != colours for value in [*raw, *listed_ignore]):
        raise ConfigError(
            "[data].values and [data].ignore mix numbers and colours. Masks are read as one or the other."
        )
    packed = [_packed(value) for value in [*raw, *listed_ignore]]
    for value, code in zip([*raw, *listed_ignore], packed, strict=True):
        if packed.count(code) > 1:
            where = "[data].values and [data].ignore" if values else "[data].ignore and the indices of the classes"
            raise ConfigError(f"The mask value {value} is listed twice in {where}. Keep one.")
    by_value = tuple((code, index) for code, (_, index) in zip(packed, pairs, strict=False))
    return MaskTable(by_value, tuple(packed[len(pairs) :]), colours, classes)


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
