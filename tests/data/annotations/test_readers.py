"""Each format, in small files as its documentation describes them, and with what people's files have in them."""

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pixelwise.data.annotations import read, recognise
from pixelwise.errors import DataError

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


def test_voc_has_its_classes_parts_and_borders(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    values = np.where(box(1, 1, 5, 5), 15, 0).astype(np.uint8)
    values[0] = 255
    for name in ("a", "b"):
        photo(root / f"JPEGImages/{name}.jpg")
        dump(root / f"ImageSets/Segmentation/{ {'a': 'train', 'b': 'val'}[name] }.txt", f"{name}\n")
    (root / "SegmentationClass").mkdir()
    picture = Image.fromarray(values).convert("P")
    picture.putpalette([0, 0, 0] * 15 + [192, 128, 128] + [0, 0, 0] * 239 + [224, 224, 192])
    picture.save(root / "SegmentationClass/a.png")
    found = read(tmp_path / "VOCdevkit")
    assert found.format == "voc"
    assert [(image.path.stem, image.part, image.annotated) for image in found.images] == [
        ("a", "training", True),
        ("b", "validation", False),
    ]
    image = drawn(found.images[0], background=0, person=4)
    assert (image[0] == -1).all()
    assert (image[1:] == np.where(box(1, 1, 5, 5), 4, 0)[1:]).all()


def test_cvats_voc_has_colours_and_a_label_map(tmp_path):
    photo(tmp_path / "JPEGImages/a.jpg")
    dump(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:250,50,83::\n")
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[box(1, 1, 5, 5)] = 250, 50, 83
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(colours).save(tmp_path / "SegmentationClass/a.png")
    found = read(tmp_path)
    assert found.classes == {"background": (0, 0, 0), "roof": (250, 50, 83)}
    assert (drawn(found.images[0], background=0, roof=1) == box(1, 1, 5, 5)).all()


@pytest.mark.parametrize(("ending", "value"), [("labelIds", 26), ("labelTrainIds", 13)])
def test_cityscapes_pairs_names_and_knows_its_ids(tmp_path, ending, value):
    photo(tmp_path / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png")
    labels = np.where(box(1, 1, 5, 5), value, 255 if "Train" in ending else 3).astype(np.uint8)
    path = tmp_path / f"gtFine/train/aachen/aachen_000000_000019_gtFine_{ending}.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(labels).save(path)
    for place in (tmp_path, tmp_path / "gtFine"):
        found = read(place)
        assert found.format == "cityscapes"
        assert found.images[0].part == "training"
        index = dict.fromkeys(found.ignorable, -1) | {"car": 1}
        assert (drawn(found.images[0], **index) == np.where(box(1, 1, 5, 5), 1, -1)).all()


def test_cityscapes_polygons_are_drawn_in_order(tmp_path):
    photo(tmp_path / "leftImg8bit/val/x/x_1_leftImg8bit.png")
    objects = [
        {"label": "road", "polygon": [[0, 0], [8, 0], [8, 8], [0, 8]]},
        {"label": "cargroup", "polygon": [[1, 1], [5, 1], [5, 5], [1, 5]]},
        {"label": "sky", "deleted": 1, "polygon": [[0, 0], [8, 0], [8, 8]]},
    ]
    told = {"imgHeight": 8, "imgWidth": 8, "objects": objects}
    dump(tmp_path / "gtFine/val/x/x_1_gtFine_polygons.json", told)
    assert (drawn(read(tmp_path).images[0], road=2, car=1) == np.where(box(1, 1, 5, 5), 1, 2)).all()


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


def test_roboflow_has_coco_or_masks_in_each_part(tmp_path):
    for part in ("train", "valid"):
        photo(tmp_path / "c" / part / "a_jpg.rf.1.jpg")
        told = coco([{"category_id": 3, "segmentation": [SQUARE]}], "a_jpg.rf.1.jpg")
        told["categories"].insert(0, {"id": 0, "name": "animal", "supercategory": "none"})
        dump(tmp_path / "c" / part / "_annotations.coco.json", told)
        photo(tmp_path / "m" / part / "a.jpg")
        Image.fromarray(box(1, 1, 5, 5).astype(np.uint8)).save(tmp_path / "m" / part / "a_mask.png")
        dump(tmp_path / "m" / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n")
    for kind, classes in (("c", ["cat", "dog"]), ("m", ["background", "cat"])):
        found = read(tmp_path / kind)
        assert found.format == "roboflow"
        assert list(found.classes) == classes
        assert [image.part for image in found.images] == ["training", "validation"]
        for image in found.images:
            assert (drawn(image, background=0, cat=1) == box(1, 1, 5, 5)).all()


def test_hugging_face_folders_have_metadata_or_parquet(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mask = box(1, 1, 5, 5).astype(np.uint8)
    image = photo(tmp_path / "f/train/images/a.png")
    (tmp_path / "f/train/masks").mkdir()
    (tmp_path / "f/train/masks/a.png").write_bytes(png(mask))
    dump(tmp_path / "f/train/metadata.jsonl", '{"file_name": "images/a.png", "mask_file_name": "masks/a.png"}\n')
    table = pyarrow.table({"image": [{"bytes": image.read_bytes(), "path": "a.png"}], "label": [{"bytes": png(mask)}]})
    (tmp_path / "p/data").mkdir(parents=True)
    parquet.write_table(table, tmp_path / "p/data/train-00000-of-00001.parquet")
    dump(tmp_path / "p/id2label.json", {"0": "wall", "1": "door"})
    for kind, index in (("f", {"0": 0, "1": 1}), ("p", {"wall": 0, "door": 1})):
        found = read(tmp_path / kind)
        assert found.format == "huggingface"
        assert found.images[0].part == "training"
        assert (found.images[0].draw(index, (8, 8)) == mask).all()


@pytest.mark.parametrize("separator", [" ", "\t", ","])
def test_lists_name_images_and_masks(tmp_path, separator):
    photo(tmp_path / "my images/a 1.jpg")
    (tmp_path / "labels").mkdir()
    Image.fromarray(box(1, 1, 5, 5).astype(np.uint8)).save(tmp_path / "labels/a 1.png")
    dump(tmp_path / "train.txt", f"my images/a 1.jpg{separator}labels/a 1.png\n")
    dump(tmp_path / "val.txt", f"my images/gone.jpg{separator}labels/gone.png\n")
    dump(tmp_path / "labels.txt", "floor\nrug\n")
    found = read(tmp_path)
    assert found.format == "lists"
    assert (drawn(found.images[0], floor=0, rug=1) == box(1, 1, 5, 5)).all()
    assert found.images[0].part == "training"
    assert len(found.missing) == 1


def test_lists_of_names_alone_find_masks_in_folders_of_masks(tmp_path):
    photo(tmp_path / "img_dir/train/a.jpg")
    (tmp_path / "ann_dir/train").mkdir(parents=True)
    Image.fromarray(box(0, 0, 2, 2).astype(np.uint8)).save(tmp_path / "ann_dir/train/a.png")
    found = read(dump(tmp_path / "train.txt", "img_dir/train/a.jpg\n"))
    assert found.images[0].mask is not None
    assert found.images[0].mask.path == tmp_path / "ann_dir/train/a.png"


def test_lists_do_not_lead_out_of_their_folder(tmp_path):
    photo(tmp_path / "secret.png")
    path = dump(tmp_path / "set/train.txt", "../secret.png ../secret.png\n")
    with pytest.raises(DataError, match="leads out"):
        read(path)


def test_yolo_has_shares_of_the_image(tmp_path):
    photo(tmp_path / "images/train/a.jpg")
    dump(tmp_path / "data.yaml", "names:\n  0: cat\n  1: dog\n")
    dump(tmp_path / "labels/train/a.txt", "1 0.125 0.125 0.625 0.125 0.625 0.625 0.125 0.625\n0 0.5 0.5 0.1 0.1\n")
    found = read(tmp_path)
    assert found.format == "yolo"
    assert (drawn(found.images[0], dog=1) == box(1, 1, 5, 5)).all()
    assert found.images[0].part == "training"
    assert "have a box and no outline" in found.notes[0]


def test_damaged_files_are_named_with_their_line(tmp_path):
    photo(tmp_path / "a.png")
    whole = json.dumps(coco([{"category_id": 3, "segmentation": [SQUARE]}]), indent=1)
    path = dump(tmp_path / "c.json", whole[: whole.index('"segmentation"')])
    with pytest.raises(DataError, match=r"c\.json is damaged JSON at line \d\d"):
        read(path)
    path = dump(tmp_path / "d.json", coco([{"category_id": 4, "segmentation": [SQUARE]}]))
    with pytest.raises(DataError, match="category_id 4, which no category has"):
        read(path)
    path = dump(tmp_path / "e.json", coco([{"category_id": 3, "segmentation": [[1, 2, 3]]}]))
    with pytest.raises(DataError, match=r"annotations, entry 1.*3 numbers"):
        read(path)
    path = dump(tmp_path / "f.json", {"shapes": [{"label": "x"}], "flags": {}})
    with pytest.raises(DataError, match=r"shape 1.*'points' is missing"):
        read(path)


def test_a_wrong_format_and_an_unknown_one_are_said(tmp_path):
    photo(tmp_path / "a.png")
    path = dump(tmp_path / "c.json", coco([]))
    with pytest.raises(DataError, match=r"no JSON export of Label Studio.*looks like 'coco'"):
        read(path, "label-studio")
    assert recognise(dump(tmp_path / "x.json", {"a": 1})) is None
    with pytest.raises(DataError, match=r"no format of annotations that is known.*coco"):
        read(tmp_path / "x.json")
    with pytest.raises(DataError, match="There is no"):
        read(tmp_path / "gone.json")


def test_names_find_images_by_the_ends_of_their_paths(tmp_path):
    for folder in ("north", "south"):
        photo(tmp_path / folder / "a.png")
    shape = {"category_id": 3, "segmentation": [SQUARE]}
    found = read(dump(tmp_path / "c.json", coco([shape], "C:\\data\\south\\a.png")))
    assert found.images[0].path == tmp_path / "south/a.png"
    with pytest.raises(DataError, match="may be"):
        read(dump(tmp_path / "c.json", coco([shape], "/etc/a.png")))
    with pytest.raises(DataError, match=r"1 images, such as 'b\.jpg'.*such as a\.png"):
        read(dump(tmp_path / "c.json", coco([shape], "b.jpg")))


def test_other_sizes_are_scaled_if_the_form_is_the_same_and_else_refused(tmp_path):
    photo(tmp_path / "a.png")
    told = coco([{"category_id": 3, "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]}], width=16, height=16)
    (image,) = read(dump(tmp_path / "c.json", told)).images
    assert (drawn(image, cat=1) == box(1, 1, 5, 5)).all()
    told["images"][0] |= {"width": 6, "height": 8}
    (image,) = read(dump(tmp_path / "c.json", told)).images
    with pytest.raises(DataError, match=r"6x8 pixels, but .* has 8x6.*EXIF"):
        image.draw({"cat": 1}, (6, 8), outside=0)


def test_run_lengths_of_another_size_and_bitmaps_larger_than_memory_are_refused(tmp_path):
    photo(tmp_path / "a.png")
    odd = {"category_id": 3, "segmentation": {"size": [4, 4], "counts": [8, 8]}}
    with pytest.raises(DataError, match="have 4x4 pixels, but the image 8x8"):
        read(dump(tmp_path / "c.json", coco([odd])))
    odd["segmentation"] = {"size": [10**6, 10**6], "counts": [10**12]}
    with pytest.raises(DataError, match="1000000x1000000 pixels"):
        read(dump(tmp_path / "c.json", coco([odd])))


def test_a_damaged_file_is_of_no_format(tmp_path):
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00names")
    (tmp_path / "metadata.jsonl").write_bytes(b"\x80{")
    assert recognise(tmp_path) is None


def test_files_of_windows_programs_are_read(tmp_path):
    photo(tmp_path / "a.png")
    told = json.dumps(coco([{"category_id": 3, "segmentation": [SQUARE]}]))
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "c.json").write_bytes(told.encode(encoding))
        assert recognise(tmp_path / "c.json") == "coco"
        assert len(read(tmp_path / "c.json").images[0].regions) == 1


def test_lists_may_hold_names_without_suffixes(tmp_path):
    photo(tmp_path / "img_dir/channel_a.jpg")
    (tmp_path / "ann_dir").mkdir()
    Image.fromarray(box(0, 0, 2, 2).astype(np.uint8)).save(tmp_path / "ann_dir/channel_a.png")
    dump(tmp_path / "splits/val.txt", "channel_a\n")
    found = read(tmp_path)
    assert found.format == "lists"
    assert found.images[0].path == tmp_path / "img_dir/channel_a.jpg"
    assert found.images[0].part == "validation"
    assert (found.images[0].draw({"0": 0, "1": 1}, (8, 8)) == box(0, 0, 2, 2)).all()


def test_labelmes_voc_has_a_list_of_names(tmp_path):
    photo(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(box(1, 1, 5, 5).astype(np.uint8)).save(tmp_path / "SegmentationClass/a.png")
    dump(tmp_path / "class_names.txt", "__ignore__\n_background_\ncat\n")
    assert list(read(tmp_path).classes) == ["_background_", "cat"]


def test_labelme_rectangles_may_have_four_corners(tmp_path):
    photo(tmp_path / "a.png")
    shapes = [{"label": "x", "shape_type": "rectangle", "points": [[1, 1], [5, 1], [5, 5], [1, 5]]}]
    dump(tmp_path / "a.json", {"flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None})
    assert (drawn(read(tmp_path).images[0], x=1) == box(1, 1, 5, 5)).all()
