"""Small folders of the kinds that people have, each with the class of every pixel as it was drawn."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

SHAPE = (64, 80)
GROUND = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}


@dataclass
class Made:
    """What a folder holds."""

    truth: dict[str, np.ndarray] = field(default_factory=dict)
    """Stem of an image -> class of each pixel, as drawn, from 0; -1 where nothing is known."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def photo(self, path: Path, bands: int = 3, dtype: str = "uint8", size=SHAPE, **profile) -> Path:
        """Write a photo: noise on a slope, which no mask looks like."""
        slope = np.linspace(40, 180, size[1])[None, :] + np.linspace(0, 40, size[0])[:, None]
        values = (slope[None] + self.rng.normal(0, 12, (bands, *size))).clip(1, 250)
        values = values.astype("uint8") if dtype == "uint8" else (values * 30).astype(dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            _tif(path, values, **profile)
        else:
            Image.fromarray(values[0] if bands == 1 else np.moveaxis(values, 0, -1)).save(path, quality=95)
        return path

    def areas(self, stem: str, classes: int, size=SHAPE) -> np.ndarray:
        """Draw rectangles of each class, and keep them as the truth of an image."""
        mask = np.zeros(size, np.int16)
        for i in range(classes * 3):
            top, left = self.rng.integers(0, size[0] - 20), self.rng.integers(0, size[1] - 20)
            mask[top : top + 18, left : left + 18] = i % classes
        self.truth[stem] = mask
        return mask


def _tif(path: Path, values: np.ndarray, **profile) -> None:
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as out:
        out.write(values)


def png(path: Path, values: np.ndarray, **options) -> Path:
    """Write a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, **options)
    return path


def two_folders(folder: Path, names: tuple[str, str] = ("images", "masks"), count: int = 6) -> Made:
    made = Made()
    for i in range(count):
        made.photo(folder / names[0] / f"p{i}.jpg")
        png(folder / names[1] / f"p{i}.png", made.areas(f"p{i}", 3))
    return made


def img_ann(folder: Path) -> Made:
    return two_folders(folder, ("img", "ann"))


def x_y(folder: Path) -> Made:
    return two_folders(folder, ("X", "y"))


def words_that_say_nothing(folder: Path) -> Made:
    return two_folders(folder, ("a", "b"))


def flat_with_ending(folder: Path, ending: str = "_mask") -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / f"p{i}.png")
        png(folder / f"p{i}{ending}.png", made.areas(f"p{i}", 2) * 255)
    return made


def reference_ending(folder: Path) -> Made:
    return flat_with_ending(folder, "_reference")


def dash_labels(folder: Path) -> Made:
    return flat_with_ending(folder, "-labels")


def same_names_other_suffix(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / f"p{i}.jpg")
        png(folder / f"p{i}.png", made.areas(f"p{i}", 4))
    return made


def first_words(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / f"image_{i:03}.png")
        png(folder / f"mask_{i:03}.png", made.areas(f"image_{i:03}", 3))
    return made


def both_words(folder: Path) -> Made:
    """Cityscapes' layout, with masks of three kinds, and classes of its own."""
    made = Made()
    colours = np.array([[128, 64, 128], [70, 70, 70], [107, 142, 35]], np.uint8)
    for part, town in (("train", "aachen"), ("train", "bonn"), ("val", "ulm")):
        for i in range(4):
            stem = f"{town}_{i:06}_000019"
            made.photo(folder / "leftImg8bit" / part / town / f"{stem}_leftImg8bit.png")
            mask = made.areas(f"{stem}_leftImg8bit", 3)
            there = folder / "gtFine" / part / town
            png(there / f"{stem}_gtFine_labelIds.png", np.array([7, 11, 21])[mask])
            png(there / f"{stem}_gtFine_color.png", colours[mask])
            png(there / f"{stem}_gtFine_instanceIds.png", np.array([7, 11, 21])[mask])
    return made


def voc(folder: Path) -> Made:
    """More photos than masks, palettes, edges of 255, and lists."""
    made = Made()
    for i in range(12):
        stem = f"2007_{i:06}"
        made.photo(folder / "JPEGImages" / f"{stem}.jpg")
        if i < 6:
            mask = made.areas(stem, 3)
            raw = np.array([0, 12, 15], np.uint8)[mask]
            raw[10:12] = 255
            mask[10:12] = -1
            image = Image.fromarray(raw, "P")
            image.putpalette([each * 37 % 256 for each in range(768)])
            (folder / "SegmentationClass").mkdir(parents=True, exist_ok=True)
            image.save(folder / "SegmentationClass" / f"{stem}.png")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"2007_{i:06}\n" for i in range(4)))
    (lists / "val.txt").write_text("2007_000004\n2007_000005\n")
    return made


def nested_tiles(folder: Path) -> Made:
    made = Made()
    for tile in range(3):
        for i in range(3):
            made.photo(folder / f"tile{tile}" / "images" / f"part_{tile}{i}.jpg")
            png(folder / f"tile{tile}" / "masks" / f"part_{tile}{i}.png", made.areas(f"part_{tile}{i}", 3))
    return made


def three_parts(folder: Path) -> Made:
    made = Made()
    for part, count in (("train", 5), ("valid", 3), ("test", 3)):
        for i in range(count):
            made.photo(folder / part / "images" / f"{part}{i}.jpg")
            mask = made.areas(f"{part}{i}", 3)
            png(folder / part / "labels" / f"{part}{i}.png", mask)
    for i in range(3):
        del made.truth[f"test{i}"]
    return made


COLOURS = {"Water": (226, 169, 41), "Road": (110, 193, 228), "Building": (60, 16, 152), "Void": (155, 155, 155)}


def _coloured(folder: Path, **options) -> Made:
    made = Made()
    table = np.array([*COLOURS.values()], np.uint8)
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        mask = made.areas(f"p{i}", 4)
        png(folder / "masks" / f"p{i}.png", table[mask], **options)
        mask[mask == 3] = -1
    return made


def colours_named_in_json(folder: Path) -> Made:
    made = _coloured(folder)
    listed = [{"title": name, "color": "#{:02X}{:02X}{:02X}".format(*colour)} for name, colour in COLOURS.items()]
    (folder / "meta.json").write_text(json.dumps({"classes": listed, "tags": []}))
    return made


def colours_named_in_csv(folder: Path) -> Made:
    made = _coloured(folder)
    lines = [f"{name},{','.join(map(str, colour))}\n" for name, colour in COLOURS.items()]
    (folder / "class_dict.csv").write_text("name,r,g,b\n" + "".join(lines))
    return made


def smooth_colours(folder: Path) -> Made:
    """Masks that a drawing program smoothed: at edges there are colours between those of the classes."""
    made = Made()
    table = np.array([[0, 0, 0], [230, 25, 75], [60, 180, 75]], np.uint8)
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        mask = made.areas(f"p{i}", 3)
        large = Image.fromarray(table[np.kron(mask, np.ones((4, 4), int))])
        moved = large.transform(large.size, Image.Transform.AFFINE, (1, 0, 2, 0, 1, 2), Image.Resampling.BILINEAR)
        small = np.asarray(moved.reduce(4))
        png(folder / "masks" / f"p{i}.png", small)
        made.truth[f"p{i}"] = np.where(_uniform(mask), mask, -2)
    return made


def _uniform(mask: np.ndarray) -> np.ndarray:
    around = np.pad(mask, 1, mode="edge")
    shifts = [around[a : a + mask.shape[0], b : b + mask.shape[1]] for a in range(3) for b in range(3)]
    return np.all([shift == mask for shift in shifts], axis=0)


def jpeg_masks(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.png")
        mask = made.areas(f"p{i}", 2)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "masks" / f"p{i}.jpg", quality=80)
        made.truth[f"p{i}"] = np.where(_uniform(mask), mask, -2)
    return made


def from_one(folder: Path) -> Made:
    """Values count from 1, 0 is what nobody labelled, and labels.txt has a name for each from 1 on."""
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        mask = made.areas(f"p{i}", 4)
        png(folder / "masks" / f"p{i}.png", mask)
        made.truth[f"p{i}"] = mask - 1
    (folder / "labels.txt").write_text("road\nroof\ntree\n")
    return made


def odd_values(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        png(folder / "masks" / f"p{i}.png", np.array([10, 30, 95])[made.areas(f"p{i}", 3)])
    return made


def instances(folder: Path) -> Made:
    """Each object has a number of its own, from 1 on, in each mask."""
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.tif", size=(96, 96))
        mask = np.zeros((96, 96), np.uint16)
        for n, at in enumerate(range(0, 81, 8)):
            for m in range(5 + i):
                mask[at : at + 6, 9 * m : 9 * m + 7] = 1 + n * (5 + i) + m
        made.truth[f"p{i}"] = (mask > 0).astype(np.int16)
        (folder / "masks").mkdir(exist_ok=True)
        _tif(folder / "masks" / f"p{i}.tif", mask[None])
    return made


def palettes_that_differ(folder: Path) -> Made:
    """Paletted masks whose numbers mean other colours in each file; the colours are the classes."""
    made = Made()
    table = np.array([[0, 0, 0], [230, 25, 75], [60, 180, 75]], np.uint8)
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        order = np.roll(np.arange(3), i)
        mask = made.areas(f"p{i}", 3)
        image = Image.fromarray(np.argsort(order)[mask].astype(np.uint8), "P")
        image.putpalette(table[order].ravel().tolist())
        (folder / "masks").mkdir(exist_ok=True)
        image.save(folder / "masks" / f"p{i}.png")
    return made


def one_scene(folder: Path) -> Made:
    """A scene and its labels, in files that share no word."""
    made = Made()
    made.photo(folder / "ortho.tif", size=(256, 320), bands=4, dtype="uint16", photometric="minisblack", **GROUND)
    mask = made.areas("ortho", 3, (256, 320))
    _tif(folder / "truth.tif", mask[None].astype(np.uint8), **GROUND)
    return made


def masks_below_images(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / f"p{i}.jpg")
        png(folder / "masks" / f"p{i}.png", made.areas(f"p{i}", 3))
    return made


KINDS = (
    *(two_folders, img_ann, x_y, words_that_say_nothing, flat_with_ending, reference_ending, dash_labels),
    *(same_names_other_suffix, first_words, both_words, voc, nested_tiles, three_parts, colours_named_in_json),
    *(colours_named_in_csv, smooth_colours, jpeg_masks, from_one, odd_values, instances, palettes_that_differ),
    *(one_scene, masks_below_images),
)
