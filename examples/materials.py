"""Makes photos of grass, gravel and brick with coloured masks: `python examples/materials.py`.

The three photos that they are cut from come with scikit-image (CC0). It writes, where you call it:

- materials/photos and materials/masks: 20 photos of 256x256 pixels, and a colour for each material;
- materials/classes.json: the names of the colours;
- new/ and corrected/: 4 more photos, and what a person would draw on them.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SIDE, PHOTOS, NEW = 256, 20, 4
COLOURS = {"grass": "#4c9a2a", "gravel": "#8d99ae", "brick": "#b5432e"}
TEXTURES = (data.grass(), data.gravel(), data.brick())


def photo_and_materials(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a grey photo and the material of each pixel. A pixel belongs to the nearest of seven places."""
    places = rng.uniform(0, SIDE, (7, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    nearest = np.argmin([np.hypot(rows - row, columns - column) for row, column in places], axis=0)
    materials = rng.permutation([0, 0, 0, 1, 1, 2, 2])[nearest]
    photo = np.zeros((SIDE, SIDE))
    for material, texture in enumerate(TEXTURES):
        top, left = rng.integers(0, SIDE, 2)
        light = rng.uniform(0.6, 1.2)
        photo = np.where(materials == material, light * texture[top : top + SIDE, left : left + SIDE], photo)
    return photo.clip(0, 255).astype(np.uint8), materials


def main() -> None:
    """Write the folders."""
    rng = np.random.default_rng(0)
    palette = np.array([tuple(bytes.fromhex(colour[1:])) for colour in COLOURS.values()], np.uint8)
    for folder in ("materials/photos", "materials/masks", "new", "corrected"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(PHOTOS + NEW):
        photos, masks = ("materials/photos", "materials/masks") if number < PHOTOS else ("new", "corrected")
        photo, materials = photo_and_materials(rng)
        Image.fromarray(photo).convert("RGB").save(f"{photos}/{number:02}.jpg", quality=95)
        Image.fromarray(palette[materials]).save(f"{masks}/{number:02}.png")
    Path("materials/classes.json").write_text(json.dumps(COLOURS), encoding="utf-8")


if __name__ == "__main__":
    main()
