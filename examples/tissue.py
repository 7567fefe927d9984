"""Makes microscope images with masks of glands: `python examples/tissue.py`.

They are cut from a stained section of the colon that comes with scikit-image (`data.immunohistochemistry`, no known
copyright restrictions). It writes, where you call it:

- tissue/images: the upper three quarters, as 12 tiles of 128x128 pixels;
- tissue/masks: 255 in glands, 0 elsewhere. No pathologist drew them: glands are where the brown stain is, smoothed;
- new.png: the lower quarter, 512x128 pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import color, data, filters

SIDE = 128


def main() -> None:
    """Write the folders and the new image."""
    section = data.immunohistochemistry()
    brown = filters.gaussian(color.rgb2hed(section)[..., 2], 5)
    glands = np.where(brown > filters.threshold_otsu(brown), 255, 0).astype(np.uint8)
    for folder in ("images", "masks"):
        Path("tissue", folder).mkdir(parents=True, exist_ok=True)
    for top in range(0, 3 * SIDE, SIDE):
        for left in range(0, 4 * SIDE, SIDE):
            tile = (slice(top, top + SIDE), slice(left, left + SIDE))
            name = f"{top // SIDE}{left // SIDE}.png"
            Image.fromarray(section[tile]).save(Path("tissue/images", name))
            Image.fromarray(glands[tile]).save(Path("tissue/masks", name))
    Image.fromarray(section[3 * SIDE :]).save("new.png")


if __name__ == "__main__":
    main()
