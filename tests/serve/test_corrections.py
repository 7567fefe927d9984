"""Corrected labels that a training takes."""

import io

import numpy as np
import pytest
import rasterio
from PIL import Image
from small_network import noise, write_scene
from small_server import error_of, photo, png, write_model

import pixelwise as pw
from pixelwise.config import load_config
from pixelwise.serve.corrections import read_mask, trains, write_configuration
from pixelwise.serve.shelf import Shelf


def mask(height=48, width=64, **values):
    out, labels = io.BytesIO(), np.full((height, width), values.pop("filled", 255), np.uint8)
    labels[10:20, 5:30] = values.pop("painted", 1)
    labels[30:32, 5:30] = values.pop("also", 255)
    Image.fromarray(labels).save(out, "PNG")
    return ("mask.png", out.getvalue())


def test_a_corrected_photo_trains_from_the_model_that_was_served(served, model):
    first = served.send("/corrections", image=("my photo.png", png(photo(0))), mask=mask(), model="fields").json()
    assert "of the class field" in " ".join(first["notes"])
    answer = served.send("/corrections", image=("my photo.png", png(photo(1))), mask=mask(also=0), model="fields")
    assert answer.status == 201
    made = answer.json()
    assert (made["pixels"], made["classes"], made["count"], made["notes"]) == (300, ["background", "field"], 2, [])
    assert made["command"] == "pixelwise train fields.toml"
    assert str(served.base) not in answer.data.decode()
    folder = served.base / "corrected" / "fields"
    assert np.array_equal(np.asarray(Image.open(folder / "images" / made["image"])), photo(1))
    config = load_config(folder / "fields.toml", ["train.steps=2", "train.batch_size=1", "train.crop_size=32"])
    said = []
    config = config.model_copy(update={"run": config.run.model_copy(update={"folder": folder / "run"})})
    pw.train(config, report=lambda event: said.append(event) if isinstance(event, str) else None)
    weights = next(text for text in said if text.startswith("Weights:"))
    assert weights.endswith(" 0 start fresh.")
    trained = pw.load(folder / "run", device="cpu")
    assert trained.classes == pw.load(model, device="cpu").classes
    assert trained.card.architecture == pw.load(model, device="cpu").card.architecture


def test_a_part_of_a_scene_keeps_its_bands_and_its_place(served):
    values = noise(4, 90, 120)
    path = write_scene(served.base / "scenes" / "alpha.tif", values, photometric="RGB", alpha="YES")
    job = served.wait(served.send("/jobs", path="alpha.tif", model="fields", parcels="false").json()["id"])
    assert job["state"] == "done", job
    window = {"x": "30", "y": "20", "width": "64", "height": "48"}
    made = served.send("/corrections", job=job["id"], mask=mask(), **window).json()
    with rasterio.open(served.base / "corrected" / "fields" / "images" / made["image"]) as part:
        assert np.array_equal(part.read(), values[:, 20:68, 30:94])
        with rasterio.open(path) as whole:
            assert part.crs == whole.crs
            assert part.transform @ (0, 0) == whole.transform @ (30, 20)
            assert part.colorinterp == whole.colorinterp
    outside = served.send("/corrections", job=job["id"], mask=mask(), **{**window, "x": "100"})
    assert outside.status == 422


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (mask(40), "40"),
        (mask(painted=3), "holds 3"),
        (mask(painted=255), "Nothing"),
        (("m.png", b"nothing"), "no PNG"),
        (("m.png", png(photo(0))), "RGB"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_nothing_is_kept(served, sent, said):
    before = served.get("/corrections")
    answer = served.send("/corrections", image=("a.png", png(photo(1))), mask=sent, model="fields")
    assert answer.status == 422
    assert said in error_of(answer)["message"]
    assert served.get("/corrections") == before
    images = served.base / "corrected" / "fields" / "images"
    assert len(list(images.glob("*"))) == len([each for each in before if each["model"] == "fields"])


def test_a_configuration_has_the_networks_options_and_is_kept_once_it_was_changed(tmp_path):
    folder = write_model(tmp_path / "fields")
    (model,) = Shelf([str(folder)], device="cpu")
    (tmp_path / "masks").mkdir()
    path = write_configuration(tmp_path, model)
    config = load_config(path)
    assert config.model.options == {"filters": [4, 8], "batch_norm": False}
    assert config.data.validation == 0
    for i in range(5):
        (tmp_path / "masks" / f"{i}.png").touch()
    write_configuration(tmp_path, model)
    assert load_config(path).data.validation > 0
    path.write_text(path.read_text().partition("\n")[2].replace("500", "7"))
    write_configuration(tmp_path, model)
    assert load_config(path).train.steps == 7
    assert trains(model)


def test_a_palette_png_holds_numbers_and_not_colours():
    labels = np.array([[0, 1, 2, 255]] * 3, np.uint8)
    picture = Image.frombytes("P", (4, 3), labels.tobytes())
    picture.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1] + [0] * 759)
    out = io.BytesIO()
    picture.save(out, "PNG")
    assert np.array_equal(read_mask(out.getvalue(), 3, 4, 3), labels)
