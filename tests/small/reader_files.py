"""What a reader has: the examples; for the how-to pages also photos, a scene with polygons, and a small run of each."""

import shutil
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from reader import run_here

SIDE = 96
EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = "\n[train]\nsteps = 2\nbatch_size = 2\ncrop_size = 64\nworkers = 0\n\n[predict]\ntile = 64\noverlap = 32\n"


def prepare(folder: Path) -> None:
    """Make a folder of `images/`, `masks/`, `mine.toml`, `photo.jpg`, `runs/mine`, `scenes/`, `fields.gpkg`,
    `fields.toml`, `scene.tif`, `runs/fields`, `map.tif` and `parcels.gpkg`.
    """
    folder.mkdir()
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
    (folder / "scenes").mkdir()
    for path in sorted((EXAMPLES / "fields" / "train").glob("*.tif"))[:3]:
        write_middle(path, folder / "scenes" / path.name, 128)
    (folder / "scene.tif").write_bytes((folder / "scenes" / path.name).read_bytes())
    (folder / "fields.gpkg").write_bytes((EXAMPLES / "fields" / "fields.gpkg").read_bytes())
    data = '[data]\nimages = "scenes"\nlabels = "fields.gpkg"\nclasses = ["background", "field", "boundary"]\n'
    (folder / "fields.toml").write_text(data + SMALL)


def copy_examples(folder: Path) -> None:
    """Copy the examples with the middles of the scenes, a quarter of their area, so that pages are quicker."""
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("*.tif", "notebooks"))
    for path in (EXAMPLES / "fields").rglob("*.tif"):
        write_middle(path, folder / path.relative_to(EXAMPLES), 512)


def write_middle(scene: Path, output: Path, side: int) -> None:
    """Write the middle of a scene, with its place on the ground."""
    with rasterio.open(scene) as source:
        window = rasterio.windows.Window((source.width - side) // 2, (source.height - side) // 2, side, side)
        kind = {**source.profile, "width": side, "height": side, "transform": source.window_transform(window)}
        with rasterio.open(output, "w", **kind) as file:
            file.write(source.read(window=window))
