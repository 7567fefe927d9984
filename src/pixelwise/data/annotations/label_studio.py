"""Label Studio's JSON export (https://labelstud.io/guide/export#JSON): a list of tasks. Later regions lie on top.

Of the annotations of a task, the ground truth counts, else the one that was changed last; cancelled ones never.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
from jaxtyping import Bool, UInt8

from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import head_of, load_json
from pixelwise.data.annotations.records import (
    AnnotatedImage,
    Annotations,
    Colour,
    Findings,
    Region,
    ring_of,
    understood,
)
from pixelwise.data.annotations.shapes import Bitmap, Ellipse, Polygon, Shape, rectangle
from pixelwise.data.annotations.traced import IGNORED, TracedImage, TracedRegion
from pixelwise.errors import DataError
from pixelwise.files import replacing
from pixelwise.labels import Classes

NAME = "label-studio"
ONLY_PREDICTIONS = "{n} tasks have predictions and no annotations; the predictions count as labels."
NO_AREA = "{n} results are no areas (key points, choices, relations), so they are left out."


def recognises(path: Path) -> bool:
    """Return whether a JSON file, or the only one in a folder, begins as Label Studio's list of tasks does."""
    file = _file(path)
    head = head_of(file).lstrip() if file is not None else ""
    tasks = any(key in head for key in ('"annotations"', '"completions"', '"predictions"'))
    # A long brush stroke may stand before the data, and fill the beginning.
    return head.startswith("[") and tasks and any(key in head for key in ('"data"', '"result"', '"completed_by"'))


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() == ".json" else None
    found = sorted(path.glob("*.json"))
    return found[0] if len(found) == 1 else None


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read an export. ``attribute`` names the field of a task's data that holds the image."""
    file, found, index = _file(path) or path, Findings(), ImageIndex(folders)
    tasks = load_json(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DataError(
            f"{file} is no JSON export of Label Studio: it is no list of tasks with 'data'. Export as JSON, not as "
            "JSON-MIN."
        )
    with understood("Label Studio", file):
        chosen = [_chosen(task) for task in tasks]
        if not any(result is not None for result in chosen):
            chosen = [_latest(task.get("predictions") or []) for task in tasks]
            for result in chosen:
                if result is not None:
                    found.note(ONLY_PREDICTIONS)
        for task, results in zip(tasks, chosen, strict=True):
            with understood("Label Studio", file, f"task {task.get('id')}"):
                _add_task(task, results or [], file, index, found, attribute)
    return found.annotations(NAME, path, index)


def _chosen(task: dict) -> list[dict] | None:
    made = [each for each in task.get("annotations") or task.get("completions") or [] if not each.get("was_cancelled")]
    return _latest([each for each in made if each.get("ground_truth")] or made)


def _latest(annotations: Sequence[dict]) -> list[dict] | None:
    if not annotations:
        return None
    return max(
        annotations,
        key=lambda each: (str(each.get("updated_at") or each.get("created_at") or ""), int(each.get("id") or 0)),
    )["result"]


def _add_task(
    task: dict, results: list[dict], source: Path, index: ImageIndex, found: Findings, field: str | None
) -> None:
    data = task["data"]
    named = [str(data[field])] if field is not None else [value for value in data.values() if isinstance(value, str)]
    image = next((path for name in named if (path := _find(index, name)) is not None), None)
    if image is None:
        found.missing.append(str(data.get("image") or (named or ["?"])[0]))
        return
    # With the tag <Labels> the name stands in a result of its own with the same id.
    names = {each.get("id"): name for each in results if (name := _name(each))}
    regions, size = [], None
    for result in results:
        shape = _shape(result)
        if shape is None:
            found.note(NO_AREA)
            continue
        if result.get("image_rotation"):
            raise ValueError(f"the image was turned by {result['image_rotation']} degrees; turn its file instead")
        size = (int(result["original_height"]), int(result["original_width"]))
        region = Region(_name(result) or names.get(result.get("id"), ""), shape)
        # A region that has results for geometry and labels is one.
        if not (result["type"] == "labels" and any(_same(result, each) for each in results)):
            regions.append(region)
    found.images.append(AnnotatedImage(image, size, tuple(regions), source=source))


def _same(result: dict, other: dict) -> bool:
    return other is not result and other.get("id") == result.get("id") and _is_area(other)


def _is_area(result: dict) -> bool:
    value = result.get("value", {})
    return result.get("type") != "labels" and any(key in value for key in ("points", "rle", "radiusX", "width"))


def _find(index: ImageIndex, name: str) -> Path | None:
    address = urlsplit(name.replace("\\", "/"))
    local = parse_qs(address.query).get("d")
    path = local[0] if local else address.path
    # An upload gets eight letters in front of its name.
    return index.find(path) or index.find(re.sub(r"(^|/)[0-9a-f]{8}-([^/]+)$", r"\1\2", path))


def _name(result: dict) -> str:
    value = result.get("value", {})
    kind = result.get("type", "")
    listed = value.get(kind) if kind.endswith("labels") else value.get("labels")
    return str(listed[0]) if listed else ""


def _shape(result: dict) -> Shape | None:
    value = result.get("value", {})
    if not any(key in value for key in ("points", "rle", "radiusX", "width")):
        return None
    width, height = int(result["original_width"]), int(result["original_height"])
    # Coordinates are percents of the image's sides.
    x, y = width / 100, height / 100
    if "rle" in value:
        runs = np.asarray(value["rle"], np.uint8)
        return Bitmap(0, 0, width, height, partial(_brush, runs, height, width))
    if "points" in value:
        ring = ring_of(value["points"])
        return Polygon(((ring * (x, y),),)) if ring is not None and value.get("closed", True) else None
    if "radiusX" in value:
        turn = float(value.get("rotation") or 0)
        return Ellipse(value["x"] * x, value["y"] * y, value["radiusX"] * x, value["radiusY"] * y, turn)
    if "height" not in value:
        return None
    turn = float(value.get("rotation") or 0)
    return rectangle(value["x"] * x, value["y"] * y, value["width"] * x, value["height"] * y, turn)


def _brush(runs: UInt8[np.ndarray, " n"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    # Red, green, blue and alpha of each pixel; alpha is the stroke.
    return unpack_runs(runs, height * width * 4).reshape(height, width, 4)[..., 3] > 0


def unpack_runs(packed: UInt8[np.ndarray, " n"], expected: int) -> UInt8[np.ndarray, " m"]:
    """Undo the run-length code of Label Studio's brushes, which is that of @thi.ng/rle-pack.

    A stream of bits: the number of values (32), bits of a value less 1 (5), four sizes of counts less 1 (4 each). Then
    come blocks: whether it is a run (1), which of the four sizes its count has (2), the count less 1, and one value for
    a run, or as many as the count. Source: the description in https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack

    Raises:
        DataError: the stream ends early, or does not hold as many values as expected.
    """
    bits = "".join(f"{byte:08b}" for byte in packed.tolist())
    at = 0

    def number(count: int) -> int:
        nonlocal at
        if at + count > len(bits):
            raise DataError("A brush stroke of Label Studio is cut off. Export it again.")
        at += count
        return int(bits[at - count : at], 2)

    total, word = number(32), number(5) + 1
    if total != expected:
        raise DataError(f"A brush stroke of Label Studio has {total} values, but its image needs {expected}.")
    sizes = [number(4) + 1 for _ in range(4)]
    if word > 8:
        raise DataError(f"A brush stroke of Label Studio has values of {word} bits, but pixels have 8.")
    blocks, made = list[np.ndarray](), 0
    while made < total:
        repeated = number(1)
        count = number(sizes[number(2)]) + 1
        if repeated:
            blocks.append(np.full(count, number(word), np.uint8))
        else:
            blocks.append(np.array([number(word) for _ in range(count)], np.uint8))
        made += count
    return np.concatenate(blocks)[:total] if blocks else np.zeros(0, np.uint8)


def write(folder: Path, images: Sequence[TracedImage], classes: Classes) -> list[Path]:
    """Write ``label-studio.json``, tasks with predictions to import, and ``label-config.xml``, the project's interface.

    Images are addressed as Label Studio's local files, by their paths in the folder of images. A region with holes is a
    brush stroke.
    """
    tasks = []
    for image in images:
        results = [written_region(region, image, f"{i}") for i, region in enumerate(image.regions)]
        address = f"/data/local-files/?d={quote(image.place)}"
        tasks.append({"data": {"image": address}, "predictions": [{"model_version": "pixelwise", "result": results}]})
    paths = [folder / "label-studio.json", folder / "label-config.xml"]
    used = {region.name for image in images for region in image.regions}
    colours = dict(zip(classes.names, classes.palette, strict=True)) | ({IGNORED: (0, 0, 0)} if IGNORED in used else {})
    with replacing(paths[0]) as temporary:
        temporary.write_text(json.dumps(tasks), encoding="utf-8")
    with replacing(paths[1]) as temporary:
        ElementTree(_interface(colours)).write(temporary, encoding="utf-8")
    return paths


def _interface(colours: Mapping[str, Colour]) -> Element:
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image", zoom="true")
    for tag, name in (("PolygonLabels", "polygon"), ("BrushLabels", "brush")):
        labels = SubElement(view, tag, name=name, toName="image")
        for each, (red, green, blue) in colours.items():
            SubElement(labels, "Label", value=each, background=f"#{red:02x}{green:02x}{blue:02x}")
    return view


def written_region(region: TracedRegion, image: TracedImage, number: str) -> dict[str, Any]:
    """Return a result of Label Studio: a polygon, or a brush stroke where it has holes."""
    size = {"original_width": image.width, "original_height": image.height, "image_rotation": 0}
    told = {"id": number, "to_name": "image", **size}
    if not region.holes:
        points = (region.outer * (100 / image.width, 100 / image.height)).tolist()
        value = {"points": points, "closed": True, "polygonlabels": [region.name]}
        return {**told, "from_name": "polygon", "type": "polygonlabels", "value": value}
    left, top, width, height = region.box
    whole = np.zeros((image.height, image.width), bool)
    whole[top : top + height, left : left + width] = region.pixels()
    value = {"format": "rle", "rle": pack_runs(whole), "brushlabels": [region.name]}
    return {**told, "from_name": "brush", "type": "brushlabels", "value": value}


def pack_runs(pixels: Bool[np.ndarray, "h w"]) -> list[int]:
    """Return pixels, as red, green, blue and alpha of 0 or 255, in the code that `unpack_runs` undoes."""
    flat = pixels.ravel()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [len(flat)]])
    bits = [f"{4 * len(flat):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for first, end in pairwise(edges.tolist()):
        left = 4 * (end - first)
        while left:
            # A run, whose count less 1 has 16 bits.
            count = min(left, 1 << 16)
            bits.append(f"1{3:02b}{count - 1:016b}{255 if flat[first] else 0:08b}")
            left -= count
    joined = "".join(bits)
    joined += "0" * (-len(joined) % 8)
    return [int(joined[i : i + 8], 2) for i in range(0, len(joined), 8)]
