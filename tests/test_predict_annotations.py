"""Predictions of photos, written as annotations to correct."""

import json

import numpy as np
import pytest
from PIL import Image
from small_network import noise, predictor_of, write_photo

from pixelwise.data.annotations import WRITERS, read
from pixelwise.errors import ConfigError
from pixelwise.inference.options import TileOptions
from pixelwise.predictor import predict_annotations


@pytest.mark.parametrize("name", WRITERS)
def test_annotations_of_a_folder_say_what_the_predictor_says(tmp_path, name):
    (tmp_path / "photos/more").mkdir(parents=True)
    write_photo(tmp_path / "photos/a.png", noise(3, 40, 50))
    write_photo(tmp_path / "photos/more/a.png", noise(3, 36, 44) // 2)
    predictor = predictor_of()
    said = []
    out = tmp_path / "drafts"
    files = predict_annotations(predictor, tmp_path / "photos", out, TileOptions(), name, report=said.append)
    assert len(said) == 2
    found = read(out if name == "labelme" else files[0], images=[tmp_path / "photos"])
    index = {each: i for i, each in enumerate(predictor.classes.names)}
    assert [image.path.relative_to(tmp_path / "photos").as_posix() for image in found.images] == ["a.png", "more/a.png"]
    for image in found.images:
        labels = predictor.segment(image.path).labels
        assert (image.draw(index, labels.shape, outside=index.get("background", -1)) == labels).all()


def test_what_a_person_may_have_corrected_is_kept(tmp_path):
    write_photo(tmp_path / "photos/a.png", noise(3, 40, 50))
    predictor, out = predictor_of(), tmp_path / "drafts"
    predict_annotations(predictor, tmp_path / "photos", out, TileOptions(), "coco")
    with pytest.raises(ConfigError, match="may have been corrected"):
        predict_annotations(predictor, tmp_path / "photos", out, TileOptions(), "coco")
    predict_annotations(predictor, tmp_path / "photos", out, TileOptions(), "labelme")
    (out / "a.json").write_text("{}")
    write_photo(tmp_path / "photos/b.png", noise(3, 40, 50))
    files = predict_annotations(predictor, tmp_path / "photos", out, TileOptions(), "labelme")
    assert [path.name for path in files] == ["b.json"]
    assert (out / "a.json").read_text() == "{}"
    # LabelMe finds the photo from its file.
    told = json.loads((out / "b.json").read_text())
    assert np.asarray(Image.open(out / told["imagePath"])).shape == (40, 50, 3)
    with pytest.raises(ConfigError, match="not written as 'voc'"):
        predict_annotations(predictor, tmp_path / "photos", out, TileOptions(), "voc")
