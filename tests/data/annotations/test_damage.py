"""Damaged annotations end in a sentence, never in another error."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.annotations import read
from pixelwise.errors import PixelwiseError

POINTS = [[1, 1], [5, 1], [5, 5]]
SIZE = {"original_width": 8, "original_height": 8, "image_rotation": 0}
WHOLE = {
    "coco": {
        "images": [{"id": 7, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 5]], "area": 8, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "segmentation": {"size": [8, 8], "counts": [60, 4]}},
        ],
        "categories": [{"id": 3, "name": "x", "supercategory": "y"}],
    },
    "labelme": {
        "flags": {},
        "shapes": [
            {"label": "x", "points": POINTS, "shape_type": "polygon"},
            {"label": "x", "points": POINTS[:2], "shape_type": "circle"},
            {"label": "x", "points": POINTS[:2], "shape_type": "mask", "mask": "aGVsbG8="},
        ],
        "imagePath": "a.png",
        "imageData": "aGVsbG8=",
        "imageHeight": 8,
        "imageWidth": 8,
    },
    "label-studio": [
        {
            "id": 1,
            "data": {"image": "a.png"},
            "annotations": [
                {
                    "id": 1,
                    "result": [
                        SIZE | {"type": "polygonlabels", "value": {"points": POINTS, "polygonlabels": ["x"]}},
                        SIZE | {"type": "brushlabels", "value": {"rle": [0, 0, 1, 0, 57], "brushlabels": ["x"]}},
                        SIZE | {"type": "ellipselabels", "value": {"x": 1, "y": 1, "radiusX": 9, "radiusY": 3}},
                    ],
                }
            ],
        }
    ],
    "via": {
        "a": {
            "filename": "a.png",
            "regions": [
                {
                    "shape_attributes": {"name": "polygon", "all_points_x": [1, 5, 5], "all_points_y": [1, 1, 5]},
                    "region_attributes": {"kind": "x"},
                },
                {"shape_attributes": {"name": "ellipse", "cx": 1, "cy": 1, "rx": 2, "ry": 3}, "region_attributes": {}},
            ],
        }
    },
}
ODD = st.sampled_from([None, "", "x", -1, 0, 2.5, 1e300, float("nan"), True, [], {}, [[]], [None], {"a": 1}])


def places(told, path=()):
    """Return the way to each value."""
    items = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


def replaced(told, path, value):
    if not path:
        return value
    copy = dict(told) if isinstance(told, dict) else list(told)
    copy[path[0]] = replaced(told[path[0]], path[1:], value)
    return copy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_any_value_may_be_of_any_kind(folder, name, draw):
    told = WHOLE[name]
    for _ in range(draw.draw(st.integers(1, 2))):
        told = replaced(told, draw.draw(st.sampled_from(places(told))), draw.draw(ODD))
    (folder / "told.json").write_text(json.dumps(told))
    ended = []
    with suppress(PixelwiseError):
        for image in read(folder / "told.json", name).images:
            names = {region.name: 1 for region in image.regions}
            ended.append(image.draw(names, (8, 8)).shape)
    assert set(ended) <= {(8, 8)}


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_file_that_is_cut_off_is_refused(folder, name, share):
    text = json.dumps(WHOLE[name])
    (folder / "cut.json").write_text(text[: int(share * len(text))])
    with pytest.raises(PixelwiseError):
        read(folder / "cut.json", name)
