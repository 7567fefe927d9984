"""Makes a satellite scene of 12 bands with a mask: `python examples/twelve_bands.py`.

The ground is invented, and so are the values: they have the order of magnitude of Sentinel-2's reflectance times
10,000, and its order of bands (B01 to B08, B8A, B09, B11, B12). Meadow and crop look the same in blue, green and red;
they differ in the red edge and beyond. It writes, where you call it:

- scene.tif: 384x384 pixels of 10 m, 12 bands of uint16; a corner without data;
- land.tif: 10 water, 20 forest, 30 meadow, 40 crop.
"""

import numpy as np
import rasterio
from rasterio.transform import from_origin

SIDE, PLACES, NOISE = 384, 60, 150
VALUES = np.array(
    [
        # B01  B02  B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
        [900, 800, 700, 500, 400, 300, 300, 250, 200, 200, 150, 100],
        [250, 300, 450, 300, 800, 2000, 2400, 2500, 2600, 2600, 1300, 600],
        [400, 500, 800, 600, 1300, 2600, 3000, 3200, 3300, 3300, 2300, 1300],
        [400, 500, 800, 600, 1000, 3300, 4000, 4200, 4300, 4200, 1900, 900],
    ]
)


def main() -> None:
    """Write the scene and the mask."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, SIDE, (PLACES, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    nearest = np.argmin([np.hypot(rows - row, columns - column) for row, column in places], axis=0)
    land = rng.integers(0, len(VALUES), PLACES)[nearest]
    light = rng.normal(1, 0.1, PLACES)[nearest]
    bands = VALUES[land].transpose(2, 0, 1) * light + rng.normal(0, NOISE, (VALUES.shape[1], SIDE, SIDE))
    bands = bands.clip(1, 10_000).astype(np.uint16)
    bands[:, rows + columns < SIDE // 3] = 0
    ground = {"driver": "GTiff", "width": SIDE, "height": SIDE, "crs": "EPSG:32633", "nodata": 0}
    ground["transform"] = from_origin(500_000, 5_400_000, 10, 10)
    with rasterio.open("scene.tif", "w", count=len(bands), dtype="uint16", tiled=True, **ground) as scene:
        scene.write(bands)
    with rasterio.open("land.tif", "w", count=1, dtype="uint8", **ground) as mask:
        mask.write((10 * (land + 1)).astype(np.uint8), 1)


if __name__ == "__main__":
    main()
