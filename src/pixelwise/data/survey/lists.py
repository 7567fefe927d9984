"""Lists that say which image is in which part: train.txt, val.txt, test.txt."""

import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.folder import image_place
from pixelwise.data.split_lists import read_list
from pixelwise.data.survey.layout import Layout
from pixelwise.errors import ConfigError

NAMES = {
    "training_list": re.compile(r"(?i)^train(ing)?([_\-.](list|files|ids|set|split|images))?$"),
    "validation_list": re.compile(r"(?i)^(val|valid|validation|dev)([_\-.](list|files|ids|set|split|images))?$"),
    "test_list": re.compile(r"(?i)^test(ing)?([_\-.](list|files|ids|set|split|images))?$"),
}


def find_lists(paths: Sequence[Path], layout: Layout) -> dict[str, Path]:
    """Return the keys of ``[data]`` for lists whose lines all name images of a layout; one must be to train on."""
    places = {image_place(image, layout.images) for image, _ in layout.pairs}
    known = places | {place.rpartition(".")[0] for place in places}
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
        if lines and all(Path(line).as_posix() in known for line in lines):
            found[key] = path
    return found if "training_list" in found and len(found) > 1 else {}
