"""Lists that say which image is in which part: train.txt, val.txt, test.txt."""

import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.folder import image_place
from pixelwise.data.split_lists import ListedImages, read_list
from pixelwise.data.survey.layout import Layout
from pixelwise.errors import ConfigError

NAMES = {
    "training_list": re.compile(r"(?i)^train(ing)?([_\-.](list|files|ids|set|split|images))?$"),
    "validation_list": re.compile(r"(?i)^(val|valid|validation|dev)([_\-.](list|files|ids|set|split|images))?$"),
    "both": re.compile(r"(?i)^train[_\-.]?val$"),
    "test_list": re.compile(r"(?i)^test(ing)?([_\-.](list|files|ids|set|split|images))?$"),
}


def find_lists(paths: Sequence[Path], layout: Layout) -> dict[str, Path]:
    """Return the keys of ``[data]`` for lists whose lines all name images of a layout; one must be to train on."""
    images = [image for image, _ in layout.pairs]
    named = ListedImages(images, [image_place(image, layout.images) for image in images])
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in (".txt", ".lst"):
            continue
        key = next((key for key, name in NAMES.items() if name.match(path.stem)), None)
        if key is None or key in found:
            continue
        try:
            lines = read_list(path)
        except ConfigError:
            continue
        if lines and all(len(named.find(line, path.parent)) == 1 for line in lines):
            found[key] = path
    if "both" in found and {"training_list", "validation_list"}.isdisjoint(found):
        # What is for validation is taken from it.
        found["training_list"] = found["both"]
    found.pop("both", None)
    return found if "training_list" in found and len(found) > 1 else {}
