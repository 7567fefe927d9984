"""Formats of masks, in small folders as their documentation describes them, and as people have them."""

import numpy as np
import pytest
from PIL import Image
from small_annotations import SQUARE, box, coco, drawn, dump, photo, png

from pixelwise.data.annotations import read
from pixelwise.errors import DataError


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
