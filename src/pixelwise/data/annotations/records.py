"""What files of annotations say, whatever their format: images, and what is drawn on each."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.shapes import Polygon, Ring, Shape, paint
from pixelwise.errors import DataError, PixelwiseError
from pixelwise.geo.raster import RasterReader, Window, describe
from pixelwise.labels import IGNORE, pack_colours

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
ALWAYS_IGNORED = frozenset({"ignore", "__ignore__"})
"""Names that are no class, unless the configuration has them: the first is ours, the second LabelMe's."""
LARGEST_COORDINATE = 1e7
"""In pixels, 20 times the side of the largest scenes; beyond it a number is damaged."""


@dataclass(frozen=True)
class Region:
    """An area with the name of its class."""

    name: str
    """Empty, where the file names no class."""
    shape: Shape


@dataclass(frozen=True)
class MaskImage:
    """A picture of the image's size whose values or colours are classes."""

    path: Path
    names: Mapping[int, str] | None = None
    """Value, or colour 0xRRGGBB, -> class; None: the format does not say."""
    colours: bool = False
    """The keys of ``names`` are colours."""
    ignored: tuple[int, ...] = ()
    """Values that are no class."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what is drawn on it."""

    path: Path
    size: tuple[int, int] | None = None
    """Height and width, as the file says."""
    regions: tuple[Region, ...] = ()
    """In the order in which they are drawn; later ones lie on top."""
    mask: MaskImage | None = None
    part: str | None = None
    """'training', 'validation' or 'test', where the file or its folder says so."""
    source: Path | None = None
    """The file that describes it."""
    relative: bool = False
    """Coordinates are shares of the image's width and height, 0 to 1."""

    @property
    def annotated(self) -> bool:
        """Whether anything is drawn on it."""
        return bool(self.regions) or self.mask is not None

    def draw(
        self, index_of: Mapping[str, int], shape: tuple[int, int], *, outside: int = IGNORE
    ) -> Int16[np.ndarray, "h w"]:
        """Return the class index of each pixel, and -1 where nothing is known.

        Args:
            index_of: class -> its index, or -1 for one that is ignored.
            shape: height and width of the image.
            outside: what pixels get on which nothing is drawn.

        Raises:
            DataError: a class that ``index_of`` does not have, or another size than the file says.
        """
        if self.mask is not None:
            return self._mask_values(index_of, outside)
        return paint_on(self.path, self.values(index_of, shape), Window(0, 0, *shape), outside)

    def values(self, index_of: Mapping[str, int], shape: tuple[int, int]) -> list[tuple[Shape, int]]:
        """Return each shape with the index of its class, in the pixels of an image of this height and width."""
        strange = sorted({region.name for region in self.regions} - set(index_of))
        if strange:
            raise UnknownClassesError({name: 1 for name in strange}, self.source or self.path, list(index_of))
        x, y = self.scale(shape)
        return [
            (region.shape if x == y == 1 else region.shape.scaled(x, y), index_of[region.name])
            for region in self.regions
        ]

    def scale(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Return how many times wider and higher an image is than the file says.

        Raises:
            DataError: it has another form, so that it is not the same picture.
        """
        if self.relative:
            return float(shape[1]), float(shape[0])
        if self.size is None or self.size == tuple(shape) or not all(self.size):
            return 1.0, 1.0
        (height, width), (high, wide) = self.size, shape
        # A size that was rounded to whole pixels has nearly the same form.
        if abs(width * high - height * wide) > max(width, height, wide, high):
            turned = (
                " Width and height have changed places: the photo's EXIF orientation turns it. Save the image upright "
                "and draw on that (exiftran -ai, jhead -autorot)."
                if (height, width) == (wide, high)
                else " Give the image that was annotated."
            )
            raise DataError(
                f"{self.source or self.path} was drawn on {width}x{height} pixels, but {self.path} has {wide}x{high}, "
                f"which is another form.{turned}"
            )
        return wide / width, high / height

    def _mask_values(self, index_of: Mapping[str, int], outside: int) -> Int16[np.ndarray, "h w"]:
        assert self.mask is not None
        info = describe(self.mask.path)
        values, _ = RasterReader(info, nodata=np.nan).read(Window(0, 0, info.height, info.width))
        raw = pack_colours(values[:3]) if self.mask.colours and len(values) >= 3 else values[0].astype(np.int64)
        found = np.unique(raw).tolist()
        names = self.mask.names if self.mask.names is not None else {value: str(value) for value in found}
        out = np.full(raw.shape, outside, np.int16)
        for value in found:
            name = names.get(value)
            if value in self.mask.ignored:
                out[raw == value] = IGNORE
            elif name is None or name not in index_of:
                raise UnknownClassesError({name or str(value): 1}, self.mask.path, list(index_of))
            else:
                out[raw == value] = index_of[name]
        return out


@dataclass(frozen=True)
class Annotations:
    """A file or folder of annotations."""

    format: str
    path: Path
    classes: Mapping[str, Colour | None]
    """Name -> colour, in the file's order; None where it has no colour."""
    images: tuple[AnnotatedImage, ...]
    """In the order of their paths."""
    missing: tuple[str, ...] = ()
    """Images that the file names and that are not there."""
    notes: tuple[str, ...] = ()
    """What was left out, in sentences."""
    ignorable: frozenset[str] = frozenset()
    """Names that count nowhere, if no class has them."""


def paint_on(path: Path, shapes: Sequence[tuple[Shape, int]], window: Window, outside: int) -> Int16[np.ndarray, "h w"]:
    """Return what `paint` does; what is wrong with a shape is said with the image's path.

    Raises:
        DataError: a damaged bitmap.
    """
    try:
        return paint(shapes, window, outside)
    except DataError as error:
        raise DataError(f"{path}: {error}", code=error.code) from None


class UnknownClassesError(DataError):
    """Annotations name classes that nobody maps.

    Args:
        counts: name -> in how many images it is.
        where: the file.
        known: the names that are mapped.
    """

    code = "PW433"

    def __init__(self, counts: Mapping[str, int], where: Path, known: Sequence[str]) -> None:
        self.counts, self.where = dict(counts), where
        names = list(self.counts)
        shown = ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        what = "the class" if len(names) == 1 else "the classes"
        listed = [name for name in known if name and name not in ALWAYS_IGNORED and not name.startswith("_")][:20]
        super().__init__(
            f"{where} names {what} {shown}, which [data] does not know; it knows {', '.join(listed) or 'none'}. Add "
            f"{'it' if len(names) == 1 else 'them'} to [data].classes, map to a class with [data].values, such as "
            f"values = {{ CLASS = [{names[0]!r}] }}, or leave out with ignore = {names[:20]}."
        )


@dataclass
class Findings:
    """What a reader gathers on its way."""

    classes: dict[str, Colour | None] = field(default_factory=dict)
    images: list[AnnotatedImage] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    """Sentence with {n} in it -> how often."""
    ignorable: frozenset[str] = ALWAYS_IGNORED

    def note(self, text: str) -> None:
        """Count one more of a kind of thing that is left out; ``{n}`` in the sentence becomes their number."""
        self.notes[text] += 1

    def annotations(self, format_name: str, path: Path, index: ImageIndex | None = None) -> Annotations:
        """Return it all. What several files say of one image is joined.

        Args:
            index: where images were looked for.

        Raises:
            DataError: no image is named at all, or none of those named is there.
        """
        if not self.images and not self.missing:
            raise DataError(f"{path} describes no image. Export the annotations again.")
        if not self.images:
            raise DataError(
                f"{path} names {len(self.missing)} images, such as {self.missing[0]!r}, but none of them is "
                f"{index.told(self.missing[0]) if index else 'there'}. Name the folder that holds them with "
                "[data].images, or give the files the names that the annotations have.",
                code="PW432",
            )
        joined: dict[Path, AnnotatedImage] = {}
        for image in self.images:
            before = joined.get(image.path)
            joined[image.path] = replace(before, regions=before.regions + image.regions) if before else image
        self.images = list(joined.values())
        for image in self.images:
            for region in image.regions:
                if region.name:
                    self.classes.setdefault(region.name, None)
        notes = [text.replace("{n}", f"{count:,}") for text, count in self.notes.items()]
        if index is not None and index.renamed:
            name, taken = index.renamed[0]
            notes.append(
                f"{len(index.renamed)} images have another suffix than the annotations say: {name} is {taken}."
            )
        images = tuple(sorted(self.images, key=lambda image: image.path))
        return Annotations(format_name, path, self.classes, images, tuple(self.missing), tuple(notes), self.ignorable)


@contextmanager
def understood(format_name: str, path: Path, place: str = "") -> Iterator[None]:
    """Turn what a file of another form makes Python say into a sentence.

    Raises:
        DataError: the file is not what the format asks for.
    """
    try:
        yield
    except PixelwiseError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else f"{str(error)[:200]}"
        where = f" at {place}" if place else ""
        raise DataError(
            f"{path} is damaged{where}, or no file of {format_name}: {what}. Export it again, or name its format with "
            "[data].annotation_format."
        ) from None


def ring_of(points: object) -> Ring | None:
    """Return corners as an array; None if there are fewer than three.

    Args:
        points: pairs (column, row), or one list column, row, column, row ...

    Raises:
        ValueError: something else than numbers, or numbers that are no pixels.
    """
    xy = np.asarray(points, np.float64)
    if xy.ndim == 1 and len(xy) % 2:
        raise ValueError(f"a polygon has {len(xy)} numbers, but needs pairs")
    xy = xy.reshape(-1, 2)
    if not np.isfinite(xy).all() or (np.abs(xy) > LARGEST_COORDINATE).any():
        raise ValueError("a polygon holds numbers that are no pixels, such as NaN or above ten million")
    if len(xy) > 1 and (xy[0] == xy[-1]).all():
        xy = xy[:-1]
    return xy if len(xy) >= 3 else None


def polygon_of(*parts: object) -> Polygon | None:
    """Return a polygon whose parts have no holes, from what `ring_of` takes; None if none has three corners."""
    rings = [ring for ring in map(ring_of, parts) if ring is not None]
    return Polygon(tuple((ring,) for ring in rings)) if rings else None


def parse_hex(text: object) -> Colour | None:
    """Return ``#rrggbb`` as a colour; None for anything else."""
    code = str(text).lstrip("#")
    try:
        return (int(code[:2], 16), int(code[2:4], 16), int(code[4:6], 16)) if len(code) in (6, 8) else None
    except ValueError:
        return None
