"""Small clean sets cut from the example scenes, in four forms, for faults to be planted in."""

import json
import shutil
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.features import shapes

from pixelwise.config import load_config
from pixelwise.config_keys import DataConfig
from pixelwise.data.scenes import open_scenes
from pixelwise.geo.raster import Window

SCENES = Path(__file__).parents[2] / "examples" / "fields"
SIDE = 96
COUNT = 10
COLOURS = np.array([[34, 139, 34], [200, 170, 40], [160, 32, 240]], np.uint8)
LISTS = 'training_list = "train.txt"\nvalidation_list = "val.txt"\n'
HEAD = 'classes = ["background", "field", "boundary"]\n'
VALUES = '[data.values]\nbackground = "#228b22"\nfield = "#c8aa28"\nboundary = "#a020f0"\n'


def crops():
    """Return real images [3,96,96] and their masks of 0, 1 and 2."""
    data = DataConfig(
        images=[SCENES / "train"], labels=SCENES / "fields.gpkg", classes=["background", "field", "boundary"]
    )
    _, scenes = open_scenes(data)
    found = []
    for scene in scenes:
        places = [(top, left) for top in range(64, 928, 144) for left in range(64, 928, 144)]
        for top, left in places:
            crop = scene.read(Window(top, left, SIDE, SIDE))
            if all((crop.mask == k).mean() > 0.06 for k in range(3)):
                found.append((crop.values, crop.mask.astype(np.uint8)))
                break
    assert len(found) >= COUNT
    return found[:COUNT]


def write_lists(folder, suffix):
    names = [f"{i:02d}{suffix}" for i in range(COUNT)]
    (folder / "train.txt").write_text("\n".join(names[:7]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[7:]) + "\n")


def write_tiff(path, values, *, step=0, crs=32616, **profile):
    """Write a GeoTIFF that lies 200 pixels to the east of the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(1, 0, 500000 + 200 * step, 0, -1, 4600000)
    size = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    options = {"driver": "GTiff", "crs": crs, "transform": transform, **size, **profile}
    with rasterio.open(path, "w", **options) as file:
        file.write(values)


def write_pairs(folder, cut):
    for i, (image, mask) in enumerate(cut):
        for name, picture in (("images", np.moveaxis(image, 0, -1)), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{i:02d}.png")
    write_lists(folder, ".png")
    (folder / "set.toml").write_text(f'[data]\nimages = "images"\nlabels = "masks"\n{HEAD}{LISTS}')


def write_coloured(folder, cut):
    for i, (image, mask) in enumerate(cut):
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(folder / "images" / f"{i:02d}.jpg", quality=95)
        Image.fromarray(COLOURS[mask]).save(folder / "masks" / f"{i:02d}.png")
    write_lists(folder, ".jpg")
    (folder / "set.toml").write_text(f'[data]\nimages = "images"\nlabels = "masks"\n{HEAD}{LISTS}{VALUES}')


def write_reflectance(folder, cut):
    for i, (image, mask) in enumerate(cut):
        write_tiff(folder / f"images/{i:02d}.tif", image.astype(np.uint16) * 37 + 11, step=i)
        write_tiff(folder / f"masks/{i:02d}.tif", mask[None], step=i)
    write_lists(folder, ".tif")
    (folder / "set.toml").write_text(f'[data]\nimages = "images"\nlabels = "masks"\n{HEAD}{LISTS}')


def write_scenes(folder, cut):
    features = []
    for i, (image, mask) in enumerate(cut):
        write_tiff(folder / f"scenes/{i:02d}.tif", image, step=i)
        with rasterio.open(folder / f"scenes/{i:02d}.tif") as file:
            found = shapes((mask == 1).astype(np.uint8), mask == 1, transform=file.transform)
            features += [{"type": "Feature", "geometry": shape, "properties": {"crop": "wheat"}} for shape, _ in found]
    write_lists(folder, ".tif")
    write_geojson(folder / "fields.geojson", features)
    (folder / "set.toml").write_text(
        f'[data]\nimages = "scenes"\nlabels = "fields.geojson"\nclasses = ["background", "field"]\n{LISTS}'
    )


def write_geojson(path, features, crs="urn:ogc:def:crs:EPSG::32616"):
    about = {"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": crs}}, "features": features}
    path.write_text(json.dumps(about))


FORMS = {"pairs": write_pairs, "coloured": write_coloured, "reflectance": write_reflectance, "scenes": write_scenes}


class Planted:
    """A copy of a clean set."""

    def __init__(self, template: Path, folder: Path) -> None:
        shutil.copytree(template, folder)
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def config(self):
        return load_config(self / "set.toml")

    def configure(self, old: str, new: str) -> None:
        """Change the configuration."""
        text = (self / "set.toml").read_text()
        assert old in text
        (self / "set.toml").write_text(text.replace(old, new))

    def picture(self, name: str, change, **options) -> None:
        """Change a picture in place."""
        with Image.open(self / name) as picture:
            values = np.asarray(picture)
        Image.fromarray(np.ascontiguousarray(change(values))).save(self / name, **options)

    def tiff(self, name: str, change=lambda values: values, **profile) -> None:
        """Change a GeoTIFF in place."""
        with rasterio.open(self / name) as file:
            values, before = file.read(), file.profile
        values = change(values)
        size = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
        with rasterio.open(self / name, "w", **{**before, **size, **profile}) as file:
            file.write(values)

    def features(self, change) -> None:
        """Change the polygons."""
        about = json.loads((self / "fields.geojson").read_text())
        about["features"] = change(about["features"])
        (self / "fields.geojson").write_text(json.dumps(about))
