import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from sklearn.metrics import confusion_matrix

from pixelwise.config import DataConfig, PredictConfig
from pixelwise.data.scenes import open_scenes
from pixelwise.errors import DataError
from pixelwise.evaluation import evaluate as job
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.evaluation.pictures import WORST, load_pictures, save_pictures
from pixelwise.labels import IGNORE, make_classes
from pixelwise.models import create
from pixelwise.predictor import Predictor
from pixelwise.runs.model_folder import ModelCard

CLASSES = make_classes(["a", "b", "c"])
SIZES = [(70, 90), (33, 64), (150, 50)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i, (height, width) in enumerate(SIZES):
        image = rng.integers(0, 256, (3, height, width)).astype(np.uint8)
        image[:, :5, :7] = 0
        mask = rng.choice([0, 1, 2, 255], (1, height, width)).astype(np.uint8)
        for kind, bands in (("images", image), ("masks", mask)):
            shape = {"count": len(bands), "height": height, "width": width, "dtype": "uint8"}
            place, nodata = Affine.translation(1, 1), 0 if kind == "images" else None
            with rasterio.open(
                folder / kind / f"{i}.tif", "w", driver="GTiff", transform=place, nodata=nodata, **shape
            ) as out:
                out.write(bands)
    return DataConfig(images=folder / "images", labels=folder / "masks", classes=list(CLASSES.names))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create("segformer-b0", classes=3).eval()
    # Fresh weights decide for one class everywhere; larger ones make the map vary.
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(3)
    card = ModelCard(model.architecture, CLASSES, (1, 2, 3), "uint8", (128.0,) * 3, (74.0,) * 3, tile=64, overlap=32)
    return model, card


@pytest.mark.parametrize("band", [256, 20])
def test_the_matrix_is_scikit_learns_of_the_predictors_own_labels(data, network, monkeypatch, band):
    monkeypatch.setattr(job, "TILE", band)
    model, card = network
    _, scenes = open_scenes(data)
    found = evaluate_scenes(model, scenes, card, PredictConfig(tile=64, overlap=32), pictures=True)
    predictor = Predictor(model, card, "")
    total = np.zeros((3, 3), int)
    for scene, result in zip(scenes, found.scenes, strict=True):
        with rasterio.open(scene.labels.reader.info.path) as source:
            truth = source.read(1)
        made = predictor.segment(scene.info.path)
        counted = made.valid & (truth != 255)
        expected = confusion_matrix(truth[counted], made.labels[counted], labels=range(3))
        # Fused and unfused networks may round a tie apart.
        assert np.abs(result.matrix - expected).sum() <= 4
        assert result.matrix.sum() == expected.sum()
        total += result.matrix
    np.testing.assert_array_equal(found.matrix, total)
    assert (total.sum(axis=0) > 0).sum() > 1, "the network tells classes apart, else the test says little"
    assert found.scores.pixels == total.sum()


def test_worst_tiles_come_worst_first_and_hold_what_the_scene_holds(data, network, monkeypatch):
    monkeypatch.setattr(job, "TILE", 20)
    model, card = network
    _, scenes = open_scenes(data)
    found = evaluate_scenes(model, scenes, card, PredictConfig(tile=64, overlap=32), pictures=True)
    mious = [picture.miou for picture in found.worst]
    assert mious == sorted(mious)
    assert len(mious) == WORST
    by_name = {scene.name: scene for scene in scenes}
    for picture in found.worst:
        name, row, column = (part.split()[-1] for part in picture.name.split(", "))
        scene = by_name[name]
        whole = scene.read(scene.whole)
        part = np.s_[..., int(row) : int(row) + 20, int(column) : int(column) + 20]
        np.testing.assert_array_equal(picture.image, whole.values[part])
        np.testing.assert_array_equal(picture.truth, whole.mask[part])


def test_pictures_come_back_from_disk(data, network, tmp_path):
    model, card = network
    _, scenes = open_scenes(data)
    found = evaluate_scenes(model, scenes, card, PredictConfig(tile=64, overlap=32), pictures=True)
    save_pictures(tmp_path / "kept.npz", [scene.picture for scene in found.scenes], found.worst)
    kept, worst = load_pictures(tmp_path / "kept.npz")
    assert [picture.name for picture in kept] == ["0", "1", "2"]
    assert [picture.miou for picture in worst] == [picture.miou for picture in found.worst]
    for picture, scene in zip(kept, scenes, strict=True):
        whole = scene.read(scene.whole)
        np.testing.assert_array_equal(picture.truth, whole.mask)
        np.testing.assert_array_equal(picture.image, whole.values)
        assert (picture.truth[:5, :7] == IGNORE).all()


def test_other_bands_than_the_models_are_an_error(data, network):
    model, card = network
    _, scenes = open_scenes(data.model_copy(update={"bands": [1, 2]}))
    with pytest.raises(DataError, match=r"0\.tif gives 2 bands, but the model takes 3"):
        evaluate_scenes(model, scenes, card, PredictConfig())
