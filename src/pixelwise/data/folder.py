"""A folder of images beside a folder of masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from pixelwise.errors import DataError
from pixelwise.geo.raster import IMAGE_SUFFIXES, RasterInfo, RasterReader, Window
from pixelwise.labels import IGNORE, MaskTable, pack_colours
from pixelwise.source_name import is_local, local_path

MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_L")
"""What a mask's name may add to its image's name."""


def find_images(path: Path) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by name; a file, or an address in the
    network, is a list of itself.

    Raises:
        DataError: no such path, or a folder without images.
    """
    path = local_path(path)
    if path.is_file() or not is_local(path):
        return [path]
    if not path.is_dir():
        raise DataError(
            f"There is no folder {path}. Mend the path in [data]; it counts from the configuration's folder."
        )
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not found:
        raise DataError(
            f"The folder {path} has no images ({', '.join(IMAGE_SUFFIXES)}). Name the folder that holds them."
        )
    return found


def pair_masks(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Find the mask of each image: the same place and name below ``labels``, with any suffix and `MASK_ENDINGS`.

    Raises:
        DataError: an image without a mask, or two masks for one image.
    """
    masks: dict[tuple[str, str], list[Path]] = {}
    for mask in find_images(labels):
        place = "" if labels.is_file() else str(mask.relative_to(labels).parent)
        masks.setdefault((place, mask.stem), []).append(mask)
    pairs, alone = [], []
    for image in find_images(images):
        place = "" if images.is_file() else str(image.relative_to(images).parent)
        named = [mask for ending in MASK_ENDINGS for mask in masks.get((place, image.stem + ending), [])]
        if images.is_file() and labels.is_file():
            named = [labels]
        if len(named) > 1:
            raise DataError(f"{image} has two masks, {named[0]} and {named[1]}. Keep one.")
        if named:
            pairs.append((image, named[0]))
        else:
            alone.append(image)
    if alone:
        more = f" (nor have {len(alone) - 1} others)" if len(alone) > 1 else ""
        raise DataError(
            f"{alone[0]} has no mask{more}: expected {labels / alone[0].stem}.png, .tif, ... "
            "Add the mask, or move the image out of the folder."
        )
    return pairs


@dataclass(frozen=True)
class MaskFile:
    """The labels of one image, in a raster of the same size."""

    reader: RasterReader
    table: MaskTable
    palette: Int16[np.ndarray, "n 3"] | None
    """Colours of a paletted mask, where the table is of colours."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE` in a window.

        Raises:
            DataError: a corrupt file, or a value that no class has.
        """
        values, valid = self.reader.read(window)
        if self.table.colours:
            if self.palette is not None:
                values = np.moveaxis(self.palette[values[0]], -1, 0)
            raw = pack_colours(np.broadcast_to(values[:3], (3, *values.shape[1:])))
        else:
            raw = values[0]
        mapped = [value for value, _ in self.table.values]
        if self.reader.info.nodata in mapped or valid.all():
            # A file may call 0 nodata although 0 is a class here; the configuration is the later word.
            return self.table.to_indices(raw, str(self.reader.info.path))
        indices = np.full(raw.shape, IGNORE, np.int16)
        indices[valid] = self.table.to_indices(raw[valid][None], str(self.reader.info.path))[0]
        return indices


def open_mask(path: Path, image: RasterInfo, table: MaskTable) -> MaskFile:
    """Open the mask of an image, and see that the two fit.

    Raises:
        DataError: other sizes, other places on the ground, not whole numbers, or colours where numbers are expected.
    """
    reader = RasterReader(path)
    mask = reader.info
    if (mask.height, mask.width) != (image.height, image.width):
        raise DataError(
            f"{path} is {mask.width}x{mask.height} pixels, but its image {image.path} is {image.width}x{image.height}. "
            "Export the mask again at the size of the image."
        )
    if mask.crs and image.crs and not mask.transform.almost_equals(image.transform, abs(image.transform.a) / 2):
        raise DataError(f"{path} lies elsewhere than its image {image.path} (other transform). Align the mask.")
    if np.dtype(mask.dtype).kind not in "ui":
        raise DataError(
            f"{path} holds {mask.dtype} values, but a mask holds whole numbers. Save it as uint8 or uint16."
        )
    if not table.colours and len(reader.bands) > 1:
        rows = Window(0, 0, min(mask.height, 512), mask.width)
        values, _ = reader.read(rows)
        if (values[0] != values[1]).any() or (values[0] != values[-1]).any():
            r, g, b = values[:3, *np.argwhere((values[0] != values[1]) | (values[0] != values[-1]))[0]]
            raise DataError(
                f"{path} holds colours such as #{r:02x}{g:02x}{b:02x}, but nothing says what they mean. "
                "Map them with [data].values, such as values = {class = '#rrggbb'}."
            )
    return MaskFile(reader, table, _palette(path) if table.colours and mask.paletted else None)


def _palette(path: Path) -> Int16[np.ndarray, "n 3"]:
    colours = RasterReader(path).colour_table()
    table = np.zeros((max(colours) + 1, 3), np.int16)
    for index, colour in colours.items():
        table[index] = colour[:3]
    return table
