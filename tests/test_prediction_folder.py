import numpy as np
import pytest
import rasterio
from PIL import Image
from small_network import NORTH_UP, noise, predictor_of, write_photo, write_scene

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.prediction_folder import predict_folder


def test_a_folder_gives_maps_of_scenes_and_pictures_of_photos_in_their_places(tmp_path):
    write_photo(tmp_path / "in/street/a.png", noise(3, 40, 50))
    write_scene(tmp_path / "in/scene.tif", noise(3, 70, 80))
    predictor = predictor_of()
    said: list[str] = []
    written = predict_folder(predictor, tmp_path / "in", tmp_path / "out", report=said.append)
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == [
        *("scene.qml", "scene.sld", "scene.tif", "scene.tif.aux.xml", "street/a.overlay.jpg", "street/a.png")
    ]
    assert sorted(written) == sorted(tmp_path / "out" / name for name in made)
    assert len(said) == 2
    expected = predictor.segment(tmp_path / "in/street/a.png").labels
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/street/a.png")), expected)
    assert rasterio.open(tmp_path / "out/scene.tif").transform == NORTH_UP


def test_files_that_fail_are_named_at_the_end_and_the_others_are_done(tmp_path):
    for name in "abc":
        write_photo(tmp_path / f"in/{name}.png", noise(3, 40, 50))
    (tmp_path / "in/b.png").write_bytes((tmp_path / "in/b.png").read_bytes()[:2000])
    write_photo(tmp_path / "in/d.png", noise(4, 40, 50))
    Image.new("L", (50, 40)).save(tmp_path / "in/grey.png")
    with pytest.raises(PixelwiseError) as problem:
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out")
    assert "2 of the images" in str(problem.value)
    assert "b.png" in str(problem.value)
    assert "grey.png has 1 band" in str(problem.value)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png", "d.png"]


def test_images_are_not_overwritten_and_results_are_not_taken_for_images(tmp_path):
    photo = write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    with pytest.raises(ConfigError, match="folder of the images themselves"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "in")
    with pytest.raises(ConfigError, match="folder of the images themselves"):
        predict_folder(predictor_of(), photo, tmp_path / "in")
    for _ in range(2):
        assert len(predict_folder(predictor_of(), tmp_path / "in", tmp_path / "in/out")) == 2


def test_two_images_that_would_be_written_to_one_file_are_named_before_any_is(tmp_path):
    write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    write_photo(tmp_path / "in/a.jpg", noise(3, 40, 50))
    with pytest.raises(ConfigError, match=r"a\.png.*a\.jpg|a\.jpg.*a\.png"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.overlay.jpg", "s.tif"])
def test_a_file_of_somebody_else_in_the_folder_of_results_is_kept_and_the_others_are_done(tmp_path, name):
    write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    write_scene(tmp_path / "in/s.tif", noise(3, 40, 50))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes((tmp_path / "in/a.png").read_bytes())
    with pytest.raises(PixelwiseError, match=rf"1 of the images.*{name} is there and not from pixelwise"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in/a.png").read_bytes()
    assert (tmp_path / "out" / ("a.png" if name == "s.tif" else "s.tif")).exists()


def test_a_scene_whose_map_would_be_the_confidence_of_another_is_named(tmp_path):
    for name in ("s.tif", "s.confidence.tif"):
        write_scene(tmp_path / "in" / name, noise(3, 40, 50))
    with pytest.raises(ConfigError, match=r"s\.confidence\.tif would be written to .*beside the map of .*s\.tif"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out")
