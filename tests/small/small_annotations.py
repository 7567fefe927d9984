"""Small files of annotations, and images that they belong to."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 8


def photo(path: Path, size=(SIDE, SIDE)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def dump(path: Path, told) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
    return path


def drawn(image, **index_of) -> np.ndarray:
    return image.draw(index_of, (SIDE, SIDE), outside=0)


def box(left, top, right, bottom) -> np.ndarray:
    out = np.zeros((SIDE, SIDE), bool)
    out[top:bottom, left:right] = True
    return out


def png(values: np.ndarray, mode: str | None = None) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values, mode).save(out, "PNG")
    return out.getvalue()


SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def coco(annotations, name="a.png", **image) -> dict:
    return {
        "info": {"year": 2026},
        "images": [{"id": 7, "file_name": name, "width": SIDE, "height": SIDE} | image],
        "annotations": [{"id": i, "image_id": 7} | each for i, each in enumerate(annotations)],
        "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 9, "name": "dog"}],
    }
