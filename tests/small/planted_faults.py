"""Faults to plant in a clean set, by name: what is done, and which codes find it."""

import io
import shutil

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from planted import COLOURS, write_geojson


def values(*codes):
    """Return a change of a mask: value k becomes codes[k]."""
    return lambda mask: np.array(codes, np.uint8)[mask]


def smooth(mask):
    """Shrink and enlarge again with linear interpolation."""
    return np.asarray(
        Image.fromarray(mask).resize((61, 61), Image.Resampling.BILINEAR).resize((96, 96), Image.Resampling.BILINEAR)
    )


def through_jpeg(mask):
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "JPEG", quality=90)
    return np.asarray(Image.open(stream))


def truncated(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def paletted(p):
    mask = np.asarray(Image.open(p / "masks/03.png"))
    picture = Image.fromarray(np.array([7, 1, 2], np.uint8)[mask], "P")
    picture.putpalette([0] * 21 + [34, 139, 34] + [0] * 744)
    picture.save(p / "masks/03.png")


def oriented(p, orientation):
    picture = Image.open(p / "images/00.jpg")
    exif = Image.Exif()
    exif[0x112] = orientation
    picture.save(p / "images/00.jpg", quality=95, exif=exif)


def every_mask(p, change):
    for path in sorted((p / "masks").iterdir()):
        p.picture(f"masks/{path.name}", change)


def copied(p, source, target):
    """Put a copy of an image with its mask in the place of another one."""
    for folder in ("images", "masks"):
        shutil.copy(p / folder / source, p / folder / target)


def brightened(p):
    copied(p, "02.png", "08.png")
    p.picture("images/08.png", lambda v: np.asarray(through_jpeg(np.clip(v * 0.9 + 20, 0, 255).astype(np.uint8))))


def moved(feature, dx, dy):
    shape = feature["geometry"]
    rings = [[[x + dx, y + dy] for x, y in ring] for ring in shape["coordinates"]]
    return {**feature, "geometry": {**shape, "coordinates": rings}}


def bowtie(features):
    x, y = features[0]["geometry"]["coordinates"][0][0]
    ring = [[x, y], [x + 30, y - 30], [x + 30, y], [x, y - 30], [x, y]]
    return [*features, {**features[0], "geometry": {"type": "Polygon", "coordinates": [ring]}}]


def with_crops(p):
    p.configure('classes = ["background", "field"]', 'classes = ["background", "wheat"]\nattribute = "crop"')
    p.features(lambda f: [{**f[0], "properties": {"crop": "rye"}}, *f[1:]])


def one_bright(values):
    out = values.copy()
    out[out > np.median(out)] = 255
    return out


def stretched_blob(mask):
    """A mask whose second class is isolated pixels alone."""
    out = np.zeros_like(mask)
    out[2::9, 2::9] = 2
    out[40:60, 40:60] = 1
    return out


def several_pages(p):
    page = Image.open(p / "masks/03.tif")
    page.save(p / "images/03.tif", save_all=True, append_images=[page.copy()])


def one_small_object(p):
    """A class of 25 pixels in all: too many for a speck, too few to learn from."""
    every_mask(p, values(0, 1, 1))
    p.picture("masks/03.png", lambda m: np.where(np.pad(np.ones((5, 5), bool), ((40, 51), (40, 51))), np.uint8(2), m))


def the_same_upside_down(values):
    """A picture that half a turn changes nothing in."""
    out = values.copy()
    out[48:] = values[:48][::-1, ::-1]
    return out


def turned_but_alike(p):
    p.picture("images/00.jpg", the_same_upside_down, quality=95)
    p.picture("masks/00.png", the_same_upside_down)
    oriented(p, 3)


def empty_jpeg_mask(p):
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(p / "masks/03.jpg", quality=90)
    (p / "masks/03.png").unlink()


def scaled(p):
    with rasterio.open(p / "images/03.tif", "r+") as file:
        file.scales = [1e-4] * file.count


def at_two_dates(p):
    names = {"02.tif": "p2020-05-01.tif", "05.tif": "p2020-09-01.tif"}
    for old, new in names.items():
        for folder in ("images", "masks"):
            p.tiff(f"{folder}/{old}", transform=Affine(1, 0, 500400, 0, -1, 4600000))
            shutil.move(p / folder / old, p / folder / new)
        (p / "train.txt").write_text((p / "train.txt").read_text().replace(old, new))


def spiked(features):
    """Let an outline run out to a point and back, which changes no area."""
    first, *others = features
    (x, y), *rest = first["geometry"]["coordinates"][0]
    ring = [[x, y], [x + 0.3, y + 0.4], [x, y], *rest]
    return [{**first, "geometry": {"type": "Polygon", "coordinates": [ring]}}, *others]


def undrawn(features):
    """Leave out the polygons of the scene 03, which lies 600 m to the east."""
    return [each for each in features if not 500595 < each["geometry"]["coordinates"][0][0][0] < 500705]


FAULTS = {
    # code, file, form, what is done
    "an image without a mask": ("PW101", "03.png", "pairs", lambda p: (p / "masks/03.png").unlink()),
    "a mask without an image": (
        "PW102",
        "extra.png",
        "pairs",
        lambda p: shutil.copy(p / "masks/03.png", p / "masks/extra.png"),
    ),
    "two masks": ("PW103", "03.png", "pairs", lambda p: shutil.copy(p / "masks/03.png", p / "masks/03_mask.png")),
    "names by case": (
        "PW104",
        "ab.png",
        "pairs",
        lambda p: (
            shutil.move(p / "images/03.png", p / "images/ab.png"),
            shutil.move(p / "masks/03.png", p / "masks/AB.png"),
            (p / "train.txt").write_text((p / "train.txt").read_text().replace("03.png", "ab.png")),
        ),
    ),
    "no such folder": ("PW105", "nothing", "pairs", lambda p: p.configure('labels = "masks"', 'labels = "nothing"')),
    "a band beyond": ("PW106", "[data].bands", "pairs", lambda p: p.configure("[data]", "[data]\nbands = [1, 2, 9]")),
    "a value twice": ("PW106", "[data]", "pairs", lambda p: p.configure("[data]", "[data]\nignore = [1, 255]")),
    "not an image": ("PW110", "03.jpg", "coloured", lambda p: (p / "images/03.jpg").write_bytes(b"hello")),
    "an empty file": ("PW110", "03.png", "pairs", lambda p: (p / "images/03.png").write_bytes(b"")),
    "a truncated JPEG": ("PW111", "03.jpg", "coloured", lambda p: truncated(p / "images/03.jpg", 0.6)),
    "a truncated PNG": ("PW111", "03.png", "pairs", lambda p: truncated(p / "images/03.png", 0.7)),
    "a truncated mask": ("PW111", "03.png", "coloured", lambda p: truncated(p / "masks/03.png", 0.7)),
    "a truncated TIFF": ("PW111", "03.tif", "reflectance", lambda p: truncated(p / "images/03.tif", 0.8)),
    "several pages": ("PW112", "03.tif", "reflectance", several_pages),
    "another size": ("PW120", "03.png", "pairs", lambda p: p.picture("masks/03.png", lambda m: m[:, :-3])),
    "half the size": ("PW120", "03.tif", "reflectance", lambda p: p.tiff("masks/03.tif", lambda m: m[:, ::2, ::2])),
    "EXIF on its side": ("PW121", "00.png", "coloured", lambda p: oriented(p, 6)),
    "EXIF upside down": ("PW121", "00.png", "coloured", lambda p: oriented(p, 3)),
    "another system": ("PW122", "03.tif", "reflectance", lambda p: p.tiff("masks/03.tif", crs=32617)),
    "a shifted mask": (
        "PW123",
        "03.tif",
        "reflectance",
        lambda p: p.tiff("masks/03.tif", transform=Affine(1, 0, 500607, 0, -1, 4600000)),
    ),
    "a mask of floats": (
        "PW124",
        "03.tif",
        "reflectance",
        lambda p: p.tiff("masks/03.tif", lambda m: m.astype(np.float32)),
    ),
    "a mask of two bands": (
        "PW125",
        "03.tif",
        "reflectance",
        lambda p: p.tiff("masks/03.tif", lambda m: np.concatenate([m, m])),
    ),
    "an unknown value": ("PW130", "03.png", "pairs", lambda p: p.picture("masks/03.png", values(0, 1, 9))),
    "counted from 1": ("PW131", "03.png", "pairs", lambda p: p.picture("masks/03.png", values(1, 2, 3))),
    "colours for numbers": ("PW133", "03.png", "pairs", lambda p: p.picture("masks/03.png", lambda m: COLOURS[m])),
    "a stray colour": (
        "PW134",
        "03.png",
        "coloured",
        lambda p: p.picture("masks/03.png", lambda m: np.where((np.arange(96) < 5)[:, None], np.uint8(9), m)),
    ),
    "smooth edges": ("PW135", "03.png", "coloured", lambda p: p.picture("masks/03.png", smooth)),
    "through JPEG": ("PW136", "03.png", "coloured", lambda p: p.picture("masks/03.png", through_jpeg)),
    "a JPEG mask": (
        "PW136",
        "03.jpg",
        "pairs",
        lambda p: (
            p.picture("masks/03.png", values(0, 1, 2)),
            Image.open(p / "masks/03.png").save(p / "masks/03.jpg", quality=30),
            (p / "masks/03.png").unlink(),
        ),
    ),
    "a palette": ("PW137", "03.png", "pairs", paletted),
    "stretched to look at": ("PW138", "03.png", "pairs", lambda p: p.picture("masks/03.png", values(0, 127, 254))),
    "numbers for colours": (
        "PW139",
        "03.png",
        "coloured",
        lambda p: p.picture("masks/03.png", lambda m: (m == COLOURS[1]).all(axis=-1).astype(np.uint8)),
    ),
    "a class that is nowhere": (
        "PW140",
        "[data].classes",
        "pairs",
        lambda p: p.configure('"boundary"]', '"boundary", "water"]'),
    ),
    "nothing labelled": ("PW141", "[data].ignore", "pairs", lambda p: every_mask(p, values(255, 255, 255))),
    "one class alone": ("PW142", "[data].classes", "pairs", lambda p: every_mask(p, values(1, 1, 1))),
    "a band more": (
        "PW150",
        "03.tif",
        "reflectance",
        lambda p: p.tiff("images/03.tif", lambda v: np.concatenate([v, v[:1] + 5]), photometric="minisblack"),
    ),
    "another type": (
        "PW151",
        "03.tif",
        "reflectance",
        lambda p: p.tiff("images/03.tif", lambda v: v.astype(np.float32)),
    ),
    "a polygon that crosses itself": ("PW160", "fields.geojson", "scenes", lambda p: p.features(bowtie)),
    "polygons of another place": (
        "PW161",
        "fields.geojson",
        "scenes",
        lambda p: p.features(lambda f: [moved(each, 90000, 70000) for each in f]),
    ),
    "polygons of another system": (
        "PW162",
        "fields.geojson",
        "scenes",
        lambda p: (
            p.features(lambda f: f)
            or write_geojson(
                p / "fields.geojson",
                __import__("json").loads((p / "fields.geojson").read_text())["features"],
                "urn:ogc:def:crs:EPSG::32612",
            )
        ),
    ),
    "axes swapped": (
        "PW163",
        "fields.geojson",
        "scenes",
        lambda p: p.features(
            lambda f: [
                {
                    **each,
                    "geometry": {
                        **each["geometry"],
                        "coordinates": [[[y, x] for x, y in ring] for ring in each["geometry"]["coordinates"]],
                    },
                }
                for each in f
            ]
        ),
    ),
    "an attribute without a class": ("PW164", "fields.geojson", "scenes", with_crops),
    "a file that is no vector": ("PW165", "fields.geojson", "scenes", lambda p: (p / "fields.geojson").write_text("{")),
    "the same image in both parts": ("PW170", "08.png", "pairs", lambda p: copied(p, "02.png", "08.png")),
    "nearly the same image in both parts": ("PW171", "08.png", "pairs", brightened),
    "shared ground": (
        "PW172",
        "08.tif",
        "reflectance",
        lambda p: [p.tiff(f"{d}/08.tif", transform=Affine(1, 0, 500450, 0, -1, 4600000)) for d in ("images", "masks")],
    ),
    "a list with a wrong name": (
        "PW173",
        "[data].split",
        "pairs",
        lambda p: (p / "val.txt").write_text("nobody.png\n"),
    ),
    "a rare class": ("PW201", "[data].classes", "pairs", one_small_object),
    "a class in one part alone": (
        "PW202",
        "[data].split",
        "pairs",
        lambda p: [p.picture(f"masks/0{i}.png", values(0, 1, 1)) for i in range(7)],
    ),
    "tiny objects": ("PW203", "[model].name", "pairs", lambda p: every_mask(p, stretched_blob)),
    "a scene hardly drawn": (
        "PW204",
        "03.png",
        "pairs",
        lambda p: p.picture(
            "masks/03.png", lambda m: np.where((np.arange(96 * 96).reshape(96, 96) < 40), m, np.uint8(255))
        ),
    ),
    "turned, and both readings fit": ("PW205", "00.png", "coloured", turned_but_alike),
    "a JPEG mask that fits": ("PW206", "03.jpg", "pairs", empty_jpeg_mask),
    "a constant band": (
        "PW210",
        "03.png",
        "pairs",
        lambda p: p.picture("images/03.png", lambda v: np.where([True, True, False], v, np.uint8(99))),
    ),
    "a saturated band": ("PW211", "03.png", "pairs", lambda p: p.picture("images/03.png", one_bright)),
    "8 bits in 16": ("PW212", "03.tif", "reflectance", lambda p: p.tiff("images/03.tif", lambda v: v // 256 * 256)),
    "other units": (
        "PW213",
        "03.tif",
        "reflectance",
        lambda p: [
            p.tiff(f"images/{i:02d}.tif", lambda v, i=i: (v / (1e4 if i == 3 else 1)).astype(np.float32))
            for i in range(10)
        ],
    ),
    "another resolution": (
        "PW214",
        "03.tif",
        "reflectance",
        lambda p: [p.tiff(f"{d}/03.tif", transform=Affine(2, 0, 510000, 0, -2, 4600000)) for d in ("images", "masks")],
    ),
    "an image much brighter": ("PW215", "03.tif", "reflectance", lambda p: p.tiff("images/03.tif", lambda v: v * 6)),
    "another scale tag": ("PW216", "03.tif", "reflectance", scaled),
    "infrared called alpha": (
        "PW217",
        "03.tif",
        "reflectance",
        lambda p: p.tiff("images/03.tif", lambda v: np.concatenate([v, v[:1] + 5]), photometric="RGB", ALPHA="YES"),
    ),
    "a blank image": ("PW218", "03.png", "pairs", lambda p: p.picture("images/03.png", lambda v: np.full_like(v, 7))),
    "a place at two dates": ("PW220", "p2020-09-01.tif", "reflectance", at_two_dates),
    "an image twice": ("PW221", "05.png", "pairs", lambda p: copied(p, "02.png", "05.png")),
    "a polygon with a spike": ("PW222", "fields.geojson", "scenes", lambda p: p.features(spiked)),
    "a polygon outside": (
        "PW223",
        "fields.geojson",
        "scenes",
        lambda p: p.features(lambda f: [*f, moved(f[0], 90000, 0)]),
    ),
    "a scene without polygons": ("PW224", "03.tif", "scenes", lambda p: p.features(undrawn)),
}
