"""CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format/): one XML file. ``z_order`` is kept."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement

import numpy as np
from jaxtyping import Bool

from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import head_of
from pixelwise.data.annotations.records import (
    AnnotatedImage,
    Annotations,
    Findings,
    Region,
    parse_hex,
    polygon_of,
    understood,
)
from pixelwise.data.annotations.shapes import Bitmap, Ellipse, Polygon, Shape
from pixelwise.data.annotations.traced import IGNORED, TracedImage, TracedRegion
from pixelwise.data.part_names import part_named
from pixelwise.errors import DataError
from pixelwise.files import replacing
from pixelwise.labels import Classes
from pixelwise.optional import optional_module

NAME = "cvat"
NO_AREA = "{n} polylines, points, tags and cuboids have no area, so they are left out."


def recognises(path: Path) -> bool:
    """Return whether an XML file, or ``annotations.xml`` in a folder, begins as CVAT's do."""
    file = _file(path)
    return file.suffix.lower() == ".xml" and "<annotations" in head_of(file)[:2000]


def _file(path: Path) -> Path:
    return path / "annotations.xml" if path.is_dir() else path


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read CVAT's file; its DTDs and entities are refused. ``attribute`` names an attribute that is the class."""
    file, found, index = _file(path), Findings(), ImageIndex(folders)
    etree = optional_module("defusedxml.ElementTree")
    refused = optional_module("defusedxml").DefusedXmlException
    try:
        for _, element in etree.iterparse(file, events=("end",), forbid_dtd=True):
            if element.tag == "label":
                _add_label(element, found)
            elif element.tag == "track":
                raise DataError(
                    f"{file} is CVAT for video, which has tracks instead of images. Export the task as 'CVAT for "
                    "images 1.1'."
                )
            elif element.tag == "image":
                with understood("CVAT", file, f"image {element.get('name')!r}"):
                    _add_image(element, file, index, found, attribute)
                element.clear()
    except ParseError as error:
        raise DataError(f"{file} is damaged XML: {error}. Export it again.") from None
    except refused as error:
        raise DataError(f"{file} defines a document type or entities, which CVAT's files do not: {error}.") from None
    except OSError as error:
        raise DataError(f"Reading {file} failed: {error.strerror}.") from None
    return found.annotations(NAME, path, index)


def _add_label(element: Element, found: Findings) -> None:
    name = element.findtext("name")
    if name:
        found.classes.setdefault(name, parse_hex(element.findtext("color") or ""))


def _add_image(element: Element, source: Path, index: ImageIndex, found: Findings, attribute: str | None) -> None:
    drawn: list[tuple[int, Region]] = []
    for item in element:
        shape = _shape(item)
        if shape is None:
            found.note(NO_AREA)
            continue
        name = item.get("label", "")
        if attribute is not None:
            values = {each.get("name"): each.text or "" for each in item.findall("attribute")}
            name = values.get(attribute, name)
        drawn.append((int(item.get("z_order") or 0), Region(name, shape)))
    named = element.attrib["name"]
    file = index.find(named)
    if file is None:
        found.missing.append(named)
        return
    regions = tuple(region for _, region in sorted(drawn, key=lambda item: item[0]))
    size = (int(element.attrib["height"]), int(element.attrib["width"]))
    part = part_named(element.get("subset") or "")
    found.images.append(AnnotatedImage(file, size, regions, part=part, source=source))


def _shape(item: Element) -> Shape | None:
    def number(key: str) -> float:
        return float(item.attrib[key])

    turn = float(item.get("rotation") or 0)
    if item.tag == "polygon":
        return polygon_of([[float(v) for v in pair.split(",")] for pair in item.attrib["points"].split(";")])
    if item.tag == "box":
        left, top, right, bottom = map(number, ("xtl", "ytl", "xbr", "ybr"))
        return _turned(left, top, right, bottom, turn)
    if item.tag == "ellipse":
        x, y = number("cx"), number("cy")
        radius_x, radius_y = number("rx"), number("ry")
        return Ellipse(x, y, radius_x, radius_y, turn)
    if item.tag == "mask":
        runs = np.array([int(v) for v in item.attrib["rle"].split(",")], np.int64)
        left, top, width, height = (int(item.attrib[key]) for key in ("left", "top", "width", "height"))
        if runs.sum() != width * height or (runs < 0).any():
            raise ValueError(f"a mask has {runs.sum()} pixels in its runs, but {width * height} in its size")
        return Bitmap(left, top, width, height, partial(_rows, runs, height, width), float(runs[1::2].sum()))
    return None


def _turned(left: float, top: float, right: float, bottom: float, degrees: float) -> Polygon:
    """Return a box, turned clockwise around its centre."""
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - middle
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = corners if degrees == 0 else corners @ np.array([(cos, sin), (-sin, cos)])
    return Polygon(((turned + middle,),))


def _rows(runs: np.ndarray, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    # Rows come one after the other; the first run is of pixels outside.
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)


def write(folder: Path, images: Sequence[TracedImage], classes: Classes) -> list[Path]:
    """Write ``annotations.xml``: a polygon for each region, and a mask for one with holes."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    used = {region.name for image in images for region in image.regions}
    colours = dict(zip(classes.names, classes.palette, strict=True)) | ({IGNORED: (0, 0, 0)} if IGNORED in used else {})
    for name, (red, green, blue) in colours.items():
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "color").text = f"#{red:02x}{green:02x}{blue:02x}"
        SubElement(label, "attributes")
    for i, image in enumerate(images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = SubElement(root, "image", {"id": str(i), "name": image.place, **size})
        for region in image.regions:
            element.append(_written_shape(region))
    path = folder / "annotations.xml"
    with replacing(path) as temporary:
        ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
    return [path]


def _written_shape(region: TracedRegion) -> Element:
    told = {"label": region.name, "source": "auto", "occluded": "0", "z_order": "0"}
    if not region.holes:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in region.outer.tolist())
        return Element("polygon", {**told, "points": points})
    left, top, width, height = region.box
    flat = region.pixels().ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    # The first run is of pixels outside.
    rle = ", ".join(map(str, [0, *runs] if flat[0] else runs))
    place = {"left": str(left), "top": str(top), "width": str(width), "height": str(height)}
    return Element("mask", {**told, "rle": rle, **place})
