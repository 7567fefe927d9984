"""The table of findings. Codes are stable: scripts and other tools rely on them. docs/check.md lists them."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """A kind of finding."""

    what: str
    """What is wrong, for the head of a row."""
    why: str
    """The likely reason, and what it does to training."""
    fix: str
    """What to do."""


_REEXPORT = "Export the mask again at the size of its image."
_MAP = "Map it with [data.values], add a class, or list it in [data].ignore."

CODES: dict[str, Code] = {
    # Files and pairs.
    "PW101": Code(
        "image without a mask",
        "A mask is missing, or has another name.",
        "Add the mask, move the image out, or set [data].missing_masks = 'leave_out'.",
    ),
    "PW102": Code(
        "mask without an image",
        "An image is missing, or has another name.",
        "Add the image, move the mask out, or set [data].missing_images = 'leave_out'.",
    ),
    "PW103": Code("two masks for one image", "Both have its name, with another suffix or ending.", "Keep one."),
    "PW104": Code("names differ by case only", "Some systems take the two names for one.", "Rename one of them."),
    "PW105": Code("nothing to read", "A path is wrong, or the folder is empty.", "Fix the path in [data]."),
    "PW106": Code("the configuration of the data is wrong", "Keys of [data] do not fit together.", "Fix the key."),
    # Reading.
    "PW110": Code("file cannot be opened", "It is corrupt, or not an image.", "Copy it again, or move it out."),
    "PW111": Code("file is truncated", "A copy or a download stopped early.", "Copy it again, or move it out."),
    "PW112": Code(
        "image is of a kind that is not read", "Pages, complex numbers, or bands of several types.", "Convert it."
    ),
    # A mask and its image.
    "PW120": Code("mask has another size than its image", "One of the two was resized or cropped.", _REEXPORT),
    "PW121": Code(
        "EXIF orientation of image and mask differ",
        "The photo is turned as people see it, and the mask is not.",
        "Turn the mask, or take the orientation out of the image (exiftool -Orientation= FILE).",
    ),
    "PW122": Code(
        "mask is in another coordinate system, elsewhere",
        "One of the two has a wrong coordinate system.",
        "Warp the mask to its image (gdalwarp -t_srs ... -te ... -tr ...).",
    ),
    "PW123": Code(
        "mask is elsewhere on the ground",
        "The transforms of mask and image differ.",
        "Align the mask with its image (gdalwarp -te ... -tr ...).",
    ),
    "PW124": Code("mask does not hold whole numbers", "It was saved as real numbers.", "Save it as uint8 or uint16."),
    "PW125": Code(
        "mask has bands that are neither numbers nor colours", "It is not a mask.", "Save one band, or three."
    ),
    # Values of masks.
    "PW130": Code("mask values without a class", "A class is missing in [data].classes.", _MAP),
    "PW131": Code(
        "masks are counted from 1",
        "The tool that drew them counts classes from 1; here the first is 0.",
        "Map them with [data.values], or take 1 off.",
    ),
    "PW132": Code(
        "masks of 0 and 255",
        "The tool that drew them writes white for a class; 255 is ignored unless it is mapped.",
        "Map 255 with [data.values].",
    ),
    "PW133": Code(
        "masks hold colours, and numbers are expected",
        "[data.values] names no colours.",
        "Map each colour with [data.values].",
    ),
    "PW134": Code("colours without a class", "A class is missing, or a pixel was drawn by hand.", _MAP),
    "PW135": Code(
        "mask is smoothed along edges",
        "It was resized or drawn with smooth edges, which mixes the values of neighbours.",
        "Make it again by nearest neighbour, without anti-aliasing.",
    ),
    "PW136": Code(
        "mask went through JPEG",
        "Compression with losses changes values along edges.",
        "Export it again as PNG or TIFF.",
    ),
    "PW137": Code(
        "palette indices without a class",
        "The mask is paletted, and its indices are not those of [data.values].",
        "Map the indices, or the colours of the palette, with [data.values].",
    ),
    "PW138": Code(
        "masks are stretched to look at",
        "Classes are spread over 0 to 255, so that people can see them.",
        "Map the values with [data.values].",
    ),
    "PW139": Code(
        "masks hold numbers, and colours are expected",
        "[data.values] names colours.",
        "Map the numbers with [data.values].",
    ),
    # Classes.
    "PW140": Code(
        "class is never present",
        "A value is mapped wrongly, or the name is not needed.",
        "Drop the class, or fix its value.",
    ),
    "PW141": Code("no pixel has a class", "All pixels are ignored or have no data.", "Check [data].ignore."),
    "PW142": Code("one class alone", "There is nothing to learn.", "Check [data].values and the masks."),
    # Images among each other.
    "PW150": Code(
        "bands differ between files",
        "The files are of several sensors or exports.",
        "Choose common bands with [data].bands.",
    ),
    "PW151": Code("types differ between files", "Their units differ.", "Convert one, or separate the files."),
    # Polygons.
    "PW160": Code(
        "polygon is invalid", "It crosses itself, so its inside is not known.", "Draw it again, or fix it in a GIS."
    ),
    "PW161": Code(
        "polygons are outside of the scenes", "They are of another place.", "Name the polygons of these scenes."
    ),
    "PW162": Code(
        "polygons have the wrong coordinate system",
        "Their numbers belong to another system than the file says.",
        "Assign the right system in a GIS (ogr2ogr -a_srs ...).",
    ),
    "PW163": Code(
        "polygons have their axes swapped",
        "Latitude is written where longitude belongs.",
        "Swap the axes (ogr2ogr -swapxy).",
    ),
    "PW164": Code("attribute value without a class", "[data.values] has no such value.", _MAP),
    "PW165": Code("polygons cannot be read", "The file is corrupt, or lacks a column or a system.", "Fix the file."),
    # The split.
    "PW170": Code(
        "same image in two parts of the split",
        "The scores would be of images that the network has learned by heart.",
        "Remove one, or keep both in one part.",
    ),
    "PW171": Code(
        "nearly the same image in two parts of the split",
        "One is a copy of the other, resized, brightened or compressed again.",
        "Remove one, or keep both in one part.",
    ),
    "PW172": Code(
        "parts of the split share ground",
        "Scenes of two parts overlap.",
        "Keep scenes that overlap in one part, or use [data].split = 'block'.",
    ),
    "PW173": Code(
        "the split does not work", "Too few scenes, or a list that does not fit.", "Fix the split in [data]."
    ),
    "PW190": Code(
        "the network does not work", "A name, an option, a weight or a list in [model] or [train].", "Fix the key."
    ),
    "PW191": Code(
        "images without labels do not work",
        "They have other bands, or are among the validation images.",
        "Fix the key.",
    ),
    # Warnings: classes and labels.
    "PW201": Code(
        "class is very rare", "The loss hardly sees it.", "Set [train].class_weights = 'balanced', or add dice."
    ),
    "PW202": Code(
        "class is missing in a part", "The split put all of it elsewhere.", "Change [train].seed, or name the parts."
    ),
    "PW203": Code(
        "objects are smaller than the network's stride",
        "Most pixels of the class are in objects that the network sees as less than one cell.",
        "Use images of higher resolution, a network with a finer stride, or [augment].scale above 1.",
    ),
    "PW204": Code(
        "labels fill little of a scene", "It was drawn in part only.", "Draw the rest, or leave the scene out."
    ),
    "PW205": Code(
        "photo is turned by EXIF, and its mask may not be",
        "Both readings fit, so the pixels cannot tell.",
        "Look at the picture; take the orientation out of the image if the mask was drawn without it.",
    ),
    "PW206": Code(
        "mask is compressed with losses",
        "Values along edges may change with the next save.",
        "Save masks as PNG or TIFF.",
    ),
    # Warnings: pixels.
    "PW210": Code("band is constant", "It holds nothing to learn from.", "Leave it out with [data].bands, or fill it."),
    "PW211": Code(
        "band is saturated", "A large share of its pixels has the largest value.", "Export with a wider range."
    ),
    "PW212": Code(
        "16-bit file of which 8 bits are used", "It was converted from 8 bits.", "Use the original, or save 8 bits."
    ),
    "PW213": Code(
        "units differ between scenes",
        "Reflectance comes as 0 to 1, 0 to 255 or 0 to 10,000.",
        "Convert the scenes to one unit.",
    ),
    "PW214": Code(
        "ground resolutions differ", "Scenes are of several sensors.", "Resample the scenes to one size of pixel."
    ),
    "PW215": Code(
        "scene has very different statistics", "Another sensor, haze, night, or a wrong export.", "Look at it."
    ),
    "PW216": Code(
        "scale tags differ", "Values are read as stored, so a number means different things.", "Convert to one unit."
    ),
    "PW217": Code(
        "alpha band looks like data", "Near infrared is often saved as the fourth band.", "List it in [data].bands."
    ),
    "PW218": Code("image is blank", "All its pixels are equal, or none has data.", "Remove it with its mask."),
    # Warnings: places and copies.
    "PW220": Code(
        "same place at another date", "The set holds a place several times.", "Keep all dates of a place in one part."
    ),
    "PW221": Code("image is there twice", "The set holds a copy.", "Remove one."),
    "PW222": Code(
        "polygon was fixed when it was read", "It crosses or touches itself; its area stays.", "Fix it in a GIS."
    ),
    "PW223": Code(
        "some polygons are outside of all scenes", "They are misplaced, or a scene is missing.", "Look at them."
    ),
    "PW224": Code("scene has no polygon", "All of it becomes background.", "Draw it, or leave the scene out."),
}
"""Code -> what it means. PW1xx are errors, which stop training; PW2xx are warnings."""


def severity_of(code: str) -> Severity:
    """Return whether a code is an error or a warning."""
    return "error" if code.startswith("PW1") else "warning"
