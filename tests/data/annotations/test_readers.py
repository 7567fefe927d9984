"""Each format, in small files as its documentation describes them, and with what people's files have in them."""

import base64
import json
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from small_annotations import SIDE, SQUARE, box, coco, drawn, dump, photo, png

from pixelwise.data.annotations import read, recognise
from pixelwise.errors import DataError


def test_coco_draws_polygons_and_run_lengths_small_objects_on_top_and_crowds_below(tmp_path):
    photo(tmp_path / "images/a.png")
    packed = coco_mask.encode(np.asfortranarray(box(2, 2, 4, 4).astype(np.uint8)))
    runs = [SIDE * 6, SIDE * 2]  # the last two columns
    annotations = [
        {"category_id": 9, "segmentation": {"size": [8, 8], "counts": packed["counts"].decode()}, "area": 4},
        {"category_id": 3, "segmentation": [SQUARE, [6, 6, 8, 6, 8, 8, 6, 8]]},
        {"category_id": 9, "segmentation": {"size": [8, 8], "counts": runs}, "iscrowd": 1, "area": 1},
        {"category_id": 9, "bbox": [0, 0, 2, 2], "segmentation": []},
    ]
    path = dump(tmp_path / "c.json", coco(annotations))
    assert recognise(path) == "coco"
    found = read(path, images=[tmp_path / "images"])
    wanted = np.where(box(6, 0, 8, 8), 2, 0)
    wanted[box(1, 1, 5, 5) | box(6, 6, 8, 8)] = 1
    wanted[box(2, 2, 4, 4)] = 2
    assert (drawn(found.images[0], cat=1, dog=2) == wanted).all()
    assert list(found.classes) == ["cat", "dog"]
    assert found.notes == ("1 objects have a box and no outline, so they are left out.",)


def test_coco_polygons_of_one_object_join_where_they_overlap(tmp_path):
    photo(tmp_path / "a.png")
    path = dump(tmp_path / "c.json", coco([{"category_id": 3, "segmentation": [SQUARE, [2, 2, 4, 2, 4, 4, 2, 4]]}]))
    assert (drawn(read(path).images[0], cat=1) == box(1, 1, 5, 5)).all()


def test_a_folder_of_coco_files_has_parts(tmp_path):
    for part in ("train", "val"):
        photo(tmp_path / f"{part}2017/{part}.png")
        told = coco([{"category_id": 3, "segmentation": [SQUARE]}], f"{part}.png")
        dump(tmp_path / f"annotations/instances_{part}2017.json", told)
        dump(tmp_path / f"annotations/person_keypoints_{part}2017.json", told)
    found = read(tmp_path)
    assert {image.path.stem: image.part for image in found.images} == {"train": "training", "val": "validation"}
    assert [len(image.regions) for image in found.images] == [1, 1]


def test_labelme_knows_its_shapes_and_paths_of_windows(tmp_path):
    photo(tmp_path / "photos/a.png")
    mask = base64.b64encode(png(np.array([[1, 0], [1, 1]], np.uint8))).decode()
    shapes = [
        {"label": "x", "shape_type": "rectangle", "points": [[5, 5], [1, 1]]},
        {"label": "y", "shape_type": "circle", "points": [[4, 4], [4, 6.1]]},
        {"label": "x", "shape_type": "mask", "points": [[6, 0], [7, 1]], "mask": mask},
        {"label": "z", "shape_type": "linestrip", "points": [[0, 0], [1, 1]]},
        {"label": "__ignore__", "points": [[0, 6], [2, 6], [2, 8], [0, 8]]},
    ]
    told = {"version": "5.0", "flags": {}, "shapes": shapes, "imagePath": "D:\\work\\photos\\a.png", "imageData": None}
    dump(tmp_path / "json/a.json", told | {"imageHeight": 8, "imageWidth": 8})
    found = read(tmp_path / "json", images=[tmp_path / "photos"])
    assert found.format == "labelme"
    image = found.images[0].draw({"x": 1, "y": 2, "__ignore__": -1}, (8, 8), outside=0)
    y, x = np.indices((8, 8)) + 0.5
    wanted = np.where(box(1, 1, 5, 5), 1, 0)
    wanted[(x - 4) ** 2 + (y - 4) ** 2 <= 2.1**2] = 2
    wanted[0, 6] = wanted[1, 6] = wanted[1, 7] = 1
    wanted[6:, :2] = -1
    assert (image == wanted).all()
    assert found.notes == ("1 lines and points have no area, so they are left out.",)


def test_labelme_gives_an_image_that_is_only_embedded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = base64.b64encode(png(np.full((8, 8, 3), 9, np.uint8))).decode()
    shapes = [{"label": "x", "points": [[0, 0], [4, 0], [4, 4]], "shape_type": "polygon"}]
    dump(tmp_path / "json/b.json", {"flags": {}, "shapes": shapes, "imagePath": "..\\..\\b.png", "imageData": data})
    (image,) = read(tmp_path / "json").images
    assert image.path.is_relative_to(tmp_path / "cache")
    assert np.asarray(Image.open(image.path)).mean() == 9


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>car</name><color>#ff0000</color><attributes/></label><label><name>road</name></label>
</labels></task></meta>
<image id="0" name="sub/a.png" subset="Train" width="8" height="8">
<polygon label="car" z_order="5" points="1.0,1.0;5.0,1.0;5.0,5.0;1.0,5.0">
<attribute name="kind">van</attribute></polygon>
<box label="road" z_order="1" xtl="0" ytl="0" xbr="8" ybr="3"/>
<mask label="road" z_order="6" rle="1, 2, 1" left="6" top="6" width="2" height="2"/>
<polyline label="road" points="1,1;2,2" z_order="0"/>
</image></annotations>"""


def test_cvat_keeps_the_order_of_layers(tmp_path):
    photo(tmp_path / "sub/a.png")
    path = dump(tmp_path / "annotations.xml", CVAT)
    assert recognise(path) == "cvat"
    found = read(path)
    wanted = np.where(box(0, 0, 8, 3), 2, 0)
    wanted[box(1, 1, 5, 5)] = 1
    wanted[6, 7] = wanted[7, 6] = 2
    assert (drawn(found.images[0], car=1, road=2) == wanted).all()
    assert found.images[0].part == "training"
    assert found.classes == {"car": (255, 0, 0), "road": None}
    assert {region.name for region in read(path, attribute="kind").images[0].regions} == {"van", "road"}


def test_cvat_turns_a_box_around_its_middle(tmp_path):
    photo(tmp_path / "sub/a.png")
    shape = '<box label="car" xtl="2" ytl="3" xbr="6" ybr="5" rotation="90" z_order="0"/>'
    path = dump(tmp_path / "a.xml", CVAT[: CVAT.index("<polygon")] + shape + "</image></annotations>")
    assert (drawn(read(path).images[0], car=1) == box(3, 2, 5, 6)).all()


def test_cvat_refuses_entities_and_videos(tmp_path):
    photo(tmp_path / "sub/a.png")
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb">]><annotations>&b;</annotations>'
    with pytest.raises(DataError, match="document type or entities"):
        read(dump(tmp_path / "a.xml", bomb), "cvat")
    video = '<annotations><track id="0" label="car"></track></annotations>'
    with pytest.raises(DataError, match="CVAT for video"):
        read(dump(tmp_path / "b.xml", video), "cvat")
    with pytest.raises(DataError, match=r"damaged XML: .*line 1"):
        read(dump(tmp_path / "c.xml", "<annotations><image"), "cvat")


def literal_blocks(values: np.ndarray) -> list[int]:
    """Pack bytes as @thi.ng/rle-pack describes it, without a single run: blocks of up to 8 literal values."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for first in range(0, len(values), 8):
        block = values[first : first + 8]
        bits += "0" + "00" + f"{len(block) - 1:03b}" + "".join(f"{v:08b}" for v in block)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(result, name="/data/upload/1/0a1b2c3d-a.png", **annotation) -> dict:
    size = {"original_width": SIDE, "original_height": SIDE, "image_rotation": 0}
    return {
        "id": 1,
        "data": {"image": name},
        "annotations": [{"id": 1, "result": [size | each for each in result]} | annotation],
    }


def test_label_studio_reads_brushes_polygons_boxes_and_ellipses(tmp_path):
    photo(tmp_path / "a.png")
    alpha = np.repeat(np.where(box(0, 7, 8, 8), 255, 0).astype(np.uint8).ravel(), 4)
    half = {"x": 50, "y": 0, "width": 25, "height": 50, "rotation": 90}
    result = [
        {"type": "polygonlabels", "value": {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["p"]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": literal_blocks(alpha), "brushlabels": ["b"]}},
        # Turned by a quarter around its upper left corner, clockwise: from (4, 0) to the left and down.
        {"type": "rectanglelabels", "value": half | {"rectanglelabels": ["r"]}},
        {"type": "rectangle", "id": "q", "value": {"x": 75, "y": 75, "width": 12.5, "height": 12.5}},
        {"type": "labels", "id": "q", "value": {"x": 75, "y": 75, "width": 12.5, "height": 12.5, "labels": ["n"]}},
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    path = dump(tmp_path / "p.json", [label_studio(result)])
    assert recognise(path) == "label-studio"
    found = read(path)
    wanted = np.where(box(0, 0, 4, 4), 1, 0)
    wanted[box(0, 7, 8, 8)] = 2
    wanted[box(0, 0, 4, 2)] = 3
    wanted[box(6, 6, 7, 7)] = 4
    assert (drawn(found.images[0], p=1, b=2, r=3, n=4) == wanted).all()
    assert len(found.images[0].regions) == 4
    assert "1 results are no areas" in found.notes[0]


def test_label_studio_takes_the_ground_truth_or_the_latest_and_no_cancelled_one(tmp_path):
    photo(tmp_path / "a.png")

    def corner(name):
        points = [[0, 0], [50, 0], [50, 50]]
        return label_studio([{"type": "polygonlabels", "value": {"points": points, "polygonlabels": [name]}}])

    task = corner("old")
    (old,), (new,), (gone,) = (corner(name)["annotations"] for name in ("old", "new", "gone"))
    task["annotations"] = [
        old | {"id": 5, "updated_at": "2024-01-01T00:00:00Z"},
        new | {"id": 4, "updated_at": "2025-01-01T00:00:00Z"},
        gone | {"id": 6, "updated_at": "2026-01-01T00:00:00Z", "was_cancelled": True},
    ]
    path = dump(tmp_path / "p.json", [task])
    assert read(path).images[0].regions[0].name == "new"
    task["annotations"][0]["ground_truth"] = True
    assert read(dump(path, [task])).images[0].regions[0].name == "old"


def test_via_reads_its_shapes_from_projects_exports_and_tables(tmp_path):
    photo(tmp_path / "a.tif")
    shapes = [
        {"name": "polygon", "all_points_x": [1, 5, 5, 1], "all_points_y": [1, 1, 5, 5]},
        {"name": "rect", "x": 6, "y": 0, "width": 2, "height": 3},
        {"name": "point", "cx": 1, "cy": 1},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": "k"}} for shape in shapes]
    entry = {"filename": "a.png", "size": 12, "regions": regions, "file_attributes": {}}
    project = {"_via_settings": {}, "_via_img_metadata": {"a.png12": entry}, "_via_attributes": {"region": {}}}
    rows = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for i, shape in enumerate(shapes):
        told = json.dumps(shape).replace('"', '""')
        rows.append(f'a.png,12,"{{}}",3,{i},"{told}","{{""kind"":""k""}}"')
    first = {"a.png12": entry | {"regions": {str(i): region for i, region in enumerate(regions)}}}
    for name, told in (("project.json", project), ("v1.json", first), ("table.csv", "\n".join(rows))):
        path = dump(tmp_path / name, told)
        assert recognise(path) == "via"
        found = read(path)
        # The image is there under another suffix.
        assert found.images[0].path.name == "a.tif"
        assert (drawn(found.images[0], k=1) == box(1, 1, 5, 5) | box(6, 0, 8, 3)).all(), name
        assert found.notes[0] == "1 points and open lines have no area, so they are left out."
        assert "1 images have another suffix than the annotations say: a.png is" in found.notes[1]


def test_via_with_several_attributes_asks_which_one_is_the_class(tmp_path):
    photo(tmp_path / "a.png")
    shape = {"name": "circle", "cx": 4, "cy": 4, "r": 2}
    region = {"shape_attributes": shape, "region_attributes": {"kind": {"k": True, "l": False}, "quality": "bad"}}
    path = dump(tmp_path / "v.json", {"a": {"filename": "a.png", "regions": [region]}})
    with pytest.raises(DataError, match=r"kind, quality.*\[data\]\.attribute"):
        read(path)
    assert read(path, attribute="kind").images[0].regions[0].name == "k"


def test_supervisely_has_holes_bitmaps_and_origins(tmp_path):
    dump(tmp_path / "meta.json", {"classes": [{"title": "cell", "shape": "any", "color": "#0A0B0C"}], "tags": []})
    photo(tmp_path / "train/img/a.png")
    bitmap = np.zeros((2, 2, 4), np.uint8)
    bitmap[0, 0] = bitmap[1, 1] = 255
    data = base64.b64encode(zlib.compress(png(bitmap))).decode()
    hole = [[2, 2], [4, 2], [4, 4], [2, 4]]
    outer = [[1, 1], [5, 1], [5, 5], [1, 5]]
    objects = [
        {"classTitle": "cell", "geometryType": "polygon", "points": {"exterior": outer, "interior": [hole]}},
        {"classTitle": "cell", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [6, 6]}},
        {"classTitle": "cell", "geometryType": "rectangle", "points": {"exterior": [[0, 7], [1, 7]], "interior": []}},
        {"classTitle": "cell", "geometryType": "point", "points": {"exterior": [[0, 0]], "interior": []}},
    ]
    dump(tmp_path / "train/ann/a.png.json", {"size": {"height": 8, "width": 8}, "objects": objects})
    found = read(tmp_path)
    assert found.format == "supervisely"
    wanted = box(1, 1, 5, 5) & ~box(2, 2, 4, 4) | box(0, 7, 2, 8)
    wanted[6, 6] = wanted[7, 7] = True
    assert (drawn(found.images[0], cell=1) == wanted).all()
    assert found.classes == {"cell": (10, 11, 12)}
    assert found.images[0].part == "training"


def test_yolo_has_shares_of_the_image(tmp_path):
    photo(tmp_path / "images/train/a.jpg")
    dump(tmp_path / "data.yaml", "names:\n  0: cat\n  1: dog\n")
    dump(tmp_path / "labels/train/a.txt", "1 0.125 0.125 0.625 0.125 0.625 0.625 0.125 0.625\n0 0.5 0.5 0.1 0.1\n")
    found = read(tmp_path)
    assert found.format == "yolo"
    assert (drawn(found.images[0], dog=1) == box(1, 1, 5, 5)).all()
    assert found.images[0].part == "training"
    assert "have a box and no outline" in found.notes[0]


def test_labelme_rectangles_may_have_four_corners(tmp_path):
    photo(tmp_path / "a.png")
    shapes = [{"label": "x", "shape_type": "rectangle", "points": [[1, 1], [5, 1], [5, 5], [1, 5]]}]
    dump(tmp_path / "a.json", {"flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None})
    assert (drawn(read(tmp_path).images[0], x=1) == box(1, 1, 5, 5)).all()
