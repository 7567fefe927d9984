"""What people's files of annotations have in them: damage, other names, other sizes, other encodings."""

import json

import pytest
from small_annotations import SQUARE, box, coco, drawn, dump, photo

from pixelwise.data.annotations import read, recognise
from pixelwise.errors import DataError


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
