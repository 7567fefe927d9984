"""Classes of published data sets, which are named only where masks hold their very values."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """The mask values of a data set."""

    title: str
    names: dict[int, str]
    """Value -> class."""
    ignored: tuple[int, ...]
    stems: str
    """A regular expression that a file's name or folder fits."""
    telling: bool = False
    """No other data set has such names, so two of its values are enough."""


VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
CITYSCAPES = [
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
]
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CAMVID = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
]

KNOWN = (
    Known(
        "Cityscapes (labelIds; its 19 classes of the evaluation)",
        dict(zip(CITYSCAPES_IDS, CITYSCAPES, strict=True)),
        (*(i for i in range(34) if i not in CITYSCAPES_IDS), 255),
        r"gtFine_labelIds|gtCoarse_labelIds",
        telling=True,
    ),
    Known("Cityscapes (labelTrainIds)", dict(enumerate(CITYSCAPES)), (255,), r"(?i)trainids|gtFine"),
    Known("Pascal VOC", dict(enumerate(VOC)), (255,), r"SegmentationClass|(^|/)20\d\d_\d{6}$"),
    Known(
        "LoveDA",
        dict(enumerate(("background", "building", "road", "water", "barren", "forest", "agriculture"), start=1)),
        (0, 255),
        r"(Urban|Rural)/masks_png/",
        telling=True,
    ),
    Known("Oxford-IIIT pets (trimaps)", {1: "pet", 2: "background", 3: "border"}, (), r"trimaps/", telling=True),
    Known("CamVid (11 classes)", dict(enumerate(CAMVID)), (11,), r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+"),
)


def known_classes(values: Collection[int], places: Sequence[str]) -> Known | None:
    """Return the data set whose values masks hold and whose names their files have; None where none fits.

    Args:
        places: of some masks, as they lie in their folder, without suffixes.
    """
    for known in KNOWN:
        fits = set(values) <= set(known.names) | set(known.ignored)
        most = len(set(values) & set(known.names)) >= (2 if known.telling else max(2, len(known.names) // 3))
        if fits and most and places and all(re.search(known.stems, place) for place in places):
            return known
    return None
