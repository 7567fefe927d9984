"""What a reader of the how-to pages has: photos with masks, a scene with polygons, and a small run of each."""

from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from reader import run_here

SIDE = 96
EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = "\n[train]\nsteps = 2\nbatch_size = 2\ncrop_size = 64\nworkers = 0\n\n[predict]\ntile = 64\noverlap = 32\n"


def prepare(folder: Path) -> None:
    """Write `images/`, `masks/`, `mine.toml`, `photo.jpg`, `runs/mine`, `scenes/`, `fields.gpkg`, `fields.toml`,
    `scene.tif`, `runs/fields`, `map.tif` and `parcels.gpkg` into a folder that has `examples/`.
    """
    _photos(folder)
    _scenes(folder)
    for command in (
        f"train {folder}/mine.toml --run {folder}/runs/mine --no-check",
        f"train {folder}/fields.toml --run {folder}/runs/fields --no-check",
        f"predict {folder}/runs/fields {folder}/scene.tif {folder}/map.tif",
        f"polygonize {folder}/map.tif {folder}/parcels.gpkg",
    ):
        status, said = run_here(["pixelwise", *command.split()])
        assert status == 0, said


def _photos(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(6):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        row, column = rng.integers(0, SIDE // 2, 2)
        mask[row : row + 40, :] = 1
        mask[row + 8 : row + 40, column : column + 40] = 2
        photo = np.array([[60, 120, 60], [110, 110, 115], [170, 80, 60]], np.uint8)[mask]
        photo += rng.integers(0, 30, photo.shape, np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{number}.jpg", quality=95)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    (folder / "photo.jpg").write_bytes((folder / "images" / "0.jpg").read_bytes())
    data = '[data]\nimages = "images"\nlabels = "masks"\nclasses = ["background", "road", "building"]\n'
    (folder / "mine.toml").write_text(data + SMALL)


def _scenes(folder: Path) -> None:
    """Cut the middles out of three of the example scenes."""
    (folder / "scenes").mkdir()
    for path in sorted((EXAMPLES / "fields" / "train").glob("*.tif"))[:3]:
        with rasterio.open(path) as scene:
            window = rasterio.windows.Window(448, 448, 128, 128)
            kind = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": scene.crs, "width": 128, "height": 128}
            with rasterio.open(
                folder / "scenes" / path.name, "w", **kind, transform=scene.window_transform(window)
            ) as f:
                f.write(scene.read(window=window))
    (folder / "scene.tif").write_bytes((folder / "scenes" / path.name).read_bytes())
    (folder / "fields.gpkg").write_bytes((EXAMPLES / "fields" / "fields.gpkg").read_bytes())
    data = '[data]\nimages = "scenes"\nlabels = "fields.gpkg"\nclasses = ["background", "field", "boundary"]\n'
    (folder / "fields.toml").write_text(data + SMALL)
