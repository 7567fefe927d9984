import json
import tomllib

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss
from small_network import card_of, noise, predictor_of, small_network, write_scene
from small_run import small_config, write_scenes

from pixelwise.cli import commands
from pixelwise.config import DataConfig, PredictConfig
from pixelwise.data.scenes import open_scenes
from pixelwise.evaluation import pixel_sample
from pixelwise.evaluation.calibrate import calibrate
from pixelwise.evaluation.calibration import calibration_scores, fit_temperature
from pixelwise.evaluation.evaluate import evaluate, evaluate_scenes
from pixelwise.evaluation.pixel_sample import PixelSample, SampledPixels
from pixelwise.exported.about import About, metadata_of
from pixelwise.exported.options import ExportOptions
from pixelwise.exporting.network import ExportedNetwork
from pixelwise.predictor import Predictor
from pixelwise.report import write_report
from pixelwise.runs.model_folder import load_model, read_card, replace_card, save_model
from pixelwise.training.train import train
from pixelwise.upsampling import argmax_upsampled, decide_cells


def drawn_sample(classes, count, heat, seed):
    """Return logits whose softmax at temperature ``heat`` is the truth's distribution."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(count, classes))).astype(np.float32)
    shares = softmax(logits.astype(np.float64) / heat, axis=1).cumsum(axis=1)
    truth = (rng.random((count, 1)) > shares).sum(axis=1).clip(0, classes - 1)
    return SampledPixels(logits, truth.astype(np.int64), count)


def scipys_temperature(sample):
    def loss(temperature):
        shares = log_softmax(sample.logits.astype(np.float64) / temperature, axis=1)
        return -shares[np.arange(len(shares)), sample.truth].mean()

    return minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10})


@given(st.integers(2, 9), st.floats(0.4, 4), st.integers(0, 1000))
def test_the_temperature_is_scipys(classes, heat, seed):
    sample = drawn_sample(classes, 1500, heat, seed)
    found, wanted = fit_temperature(sample), scipys_temperature(sample)
    assert found.temperature == pytest.approx(wanted.x, rel=1e-5)
    assert calibration_scores(sample, found.temperature).nll == pytest.approx(wanted.fun, rel=1e-12)
    assert calibration_scores(sample, found.temperature).nll <= calibration_scores(sample, 1.0).nll


def test_scores_are_those_of_scikit_learn_and_of_plain_loops():
    sample = drawn_sample(3, 2000, 2.0, 7)
    shares = softmax(sample.logits.astype(np.float64) / 1.3, axis=1)
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == sample.truth
    found = calibration_scores(sample, 1.3)
    assert found.nll == pytest.approx(log_loss(sample.truth, shares, labels=range(3)))
    # Scikit-learn's is of one class against the others; their sum is Brier's own.
    each = [brier_score_loss(sample.truth == k, shares[:, k]) for k in range(3)]
    assert found.brier == pytest.approx(sum(each))
    ece = 0.0
    for i in range(15):
        inside = (sure > i / 15) & (sure <= (i + 1) / 15)
        assert found.bins.pixels[i] == inside.sum()
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
            assert found.bins.accuracy[i] == pytest.approx(right[inside].mean())
    assert found.ece == pytest.approx(ece)
    order = np.argsort(-sure)
    parts = np.array_split(order, 15)
    assert found.adaptive_ece == pytest.approx(
        sum(len(part) * abs(right[part].mean() - sure[part].mean()) for part in parts) / 2000
    )
    risks = [(~right[order[:kept]]).mean() for kept in range(1, 2001)]
    assert found.aurc == pytest.approx(np.mean(risks))
    assert found.risk == pytest.approx(risks[19::20])


def test_equal_confidences_are_in_no_order():
    logits = np.tile(np.array([[2.0, 0.0]], np.float32), (100, 1))
    truth = np.repeat([1, 0], 50)
    found = [calibration_scores(SampledPixels(logits, each, 100), 1.0) for each in (truth, truth[::-1])]
    for each in found:
        assert each.risk == pytest.approx([0.5] * 100)
        assert each.aurc == pytest.approx(0.5)
        assert each.adaptive_ece == pytest.approx(each.ece)


@pytest.mark.parametrize(
    ("logits", "truth", "note"),
    [
        ([[9.0, 0.0], [0.0, 9.0]], [0, 1], "Nearly every pixel is right"),
        ([[9.0, 0.0], [0.0, 9.0]], [1, 0], "hardly better than chance"),
        ([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]], [0, 0, 0], "one class alone"),
        ([], [], "No pixel is labelled"),
    ],
)
def test_what_nothing_can_be_fitted_on_is_said(logits, truth, note):
    sample = SampledPixels(np.array(logits, np.float32).reshape(-1, 2), np.array(truth, np.int64), len(truth))
    found = fit_temperature(sample)
    assert note in " ".join(found.notes)
    assert found.temperature == 1 or note == "one class alone"
    assert (found.pixels < 1000) == ("rough" in " ".join(found.notes)) or not truth


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_temperature_changes_confidence_alone(align_corners):
    torch.manual_seed(0)
    logits = 4 * torch.randn(2, 5, 9, 8)
    for call in (
        lambda **more: argmax_upsampled(logits, (36, 32), align_corners=align_corners, **more),
        lambda **more: argmax_upsampled(logits, (33, 29), align_corners=align_corners, **more),
    ):
        labels, plain = call(confidence=True)
        heated, confidence = call(confidence=True, temperature=2.5)
        assert torch.equal(labels, heated)
        full = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=align_corners)
        torch.testing.assert_close(confidence, (full / 2.5).softmax(1).amax(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(plain, full.softmax(1).amax(1), rtol=1e-5, atol=1e-6)
    assert torch.equal(decide_cells(logits, 2, temperature=3.0)[0], decide_cells(logits, 2)[0])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(3)
    for i, (height, width) in enumerate([(60, 64), (150, 170)]):
        write_scene(folder / "images" / f"{i}.tif", noise(3, height, width, i))
        mask = rng.choice([0, 1, 2, 255], (1, height, width)).astype(np.uint8)
        write_scene(folder / "masks" / f"{i}.tif", mask)
    return DataConfig(images=folder / "images", labels=folder / "masks", classes=["class 0", "class 1", "class 2"])


def test_every_labelled_pixel_is_drawn_with_the_logits_that_prediction_decides_by(scenes):
    network = small_network()
    card = card_of(network, tile=64, overlap=32, temperature=1.7)
    _, opened = open_scenes(scenes)
    sample = PixelSample(3)
    matrix = evaluate_scenes(network, opened, card, PredictConfig(tile=64, overlap=32), sample=sample).matrix
    drawn = sample.pixels()
    counted, sure = [], []
    for scene in opened:
        found = Predictor(network, card, "").segment(scene.info.path)
        mask = scene.read(scene.whole).mask
        counted.append(mask[mask >= 0])
        sure.append(found.confidence[mask >= 0])
    truth, sure = np.concatenate(counted), np.concatenate(sure)
    assert len(drawn.truth) == drawn.labelled == len(truth) == matrix.sum()
    np.testing.assert_array_equal(np.sort(drawn.truth), np.sort(truth))
    shares = softmax(drawn.logits / 1.7, axis=1).max(axis=1)
    np.testing.assert_allclose(np.sort(shares), np.sort(sure), atol=2e-6)
    wrong = np.trace(matrix) - (drawn.logits.argmax(axis=1) == drawn.truth).sum()
    assert abs(wrong) <= 2, "only ties to rounding"


def test_a_sample_has_a_bound_and_each_pixel_the_same_chance(scenes, monkeypatch):
    network = small_network()
    card, predict = card_of(network, tile=64, overlap=32), PredictConfig(tile=64, overlap=32)
    _, opened = open_scenes(scenes)

    def drawn():
        sample = PixelSample(3)
        evaluate_scenes(network, opened, card, predict, sample=sample)
        return sample

    every = drawn().pixels()
    monkeypatch.setattr(pixel_sample, "LARGEST_PIXELS", 4500)
    few = drawn().pixels()
    assert few.labelled == every.labelled > 15_000
    assert 1500 < len(few.truth) <= 4500
    known = {row.tobytes() for row in every.logits}
    assert all(row.tobytes() in known for row in few.logits)
    # Both scenes have their share of it.
    first = {row.tobytes() for row in every.logits[: (opened[0].read(opened[0].whole).mask >= 0).sum()]}
    share = sum(row.tobytes() in first for row in few.logits) / len(few.truth)
    assert share == pytest.approx(len(first) / every.labelled, abs=0.03)
    # Four standard errors of a mean of 1500.
    apart = few.logits.mean(axis=0) - every.logits.mean(axis=0)
    assert (np.abs(apart) <= 0.1 * every.logits.std(axis=0)).all()


def test_a_run_is_calibrated_when_it_ends_and_says_on_what(tmp_path):
    said = []
    config = small_config(write_scenes(tmp_path), tmp_path / "run", steps=6, evaluate_every=3)
    run = train(config, report=said.append)
    card, _ = read_card(run.folder / "model")
    assert card.temperature != 1
    assert any(isinstance(text, str) and text.startswith("Calibrated: temperature") for text in said)
    found = evaluate(run.folder)
    kept = json.loads((run.folder / "metrics.json").read_text())["validation"]["calibration"]
    assert found.calibration is not None
    assert found.calibration.fitted_here
    assert kept["before"]["temperature"] == 1
    assert kept["after"]["temperature"] == card.temperature
    assert kept["after"]["nll"] <= kept["before"]["nll"]
    assert kept["pixels"] == kept["labelled"] == 64 * 64
    other = evaluate(run.folder, part="training")
    assert other.calibration is not None
    assert not other.calibration.fitted_here
    page = write_report(run.folder).read_text()
    assert "fitted on these same pixels" in page


def test_a_run_is_scored_and_calibrated_where_it_trained_and_later_on_a_gpu_if_there_is_one(tmp_path, monkeypatch):
    asked = []

    def chosen(name):
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr("pixelwise.device.choose_device", chosen)
    monkeypatch.setattr("pixelwise.evaluation.calibrate.choose_device", chosen)
    run = train(small_config(write_scenes(tmp_path), tmp_path / "run", steps=1, device="cpu"))
    assert asked == ["cpu"]
    evaluate(run.folder)
    calibrate(run.folder)
    assert asked == ["cpu", "auto", "auto"]


def test_a_run_of_an_earlier_version_is_calibrated_later_and_its_classes_stay(tmp_path):
    config = small_config(write_scenes(tmp_path), tmp_path / "run", steps=6, evaluate_every=3)
    folder = train(config).folder
    model, card, digest = load_model(folder)
    fitted = card.temperature
    table = tomllib.loads((folder / "model" / "model.toml").read_text())
    del table["temperature"]
    replace_card(folder, card_of_table(table, card))
    image = next((tmp_path / "images").glob("*.tif"))
    before = Predictor(*load_model(folder)).segment(image)
    assert calibrate(folder).temperature == fitted
    model, card, same = load_model(folder)
    assert same == digest
    after = Predictor(model, card, digest).segment(image)
    np.testing.assert_array_equal(before.labels, after.labels)
    assert np.abs(before.confidence - after.confidence).max() > 0


def card_of_table(table, card):
    from pixelwise.runs.model_card import _checked_card

    table.pop("weights_sha256")
    older = _checked_card(table)
    assert older.temperature == 1
    return older


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_no_softmax_takes_is_damage(tmp_path, value):
    network = small_network()
    save_model(tmp_path / "model", network, card_of(network, temperature=value))
    with pytest.raises(ValueError, match="temperature must be finite"):
        read_card(tmp_path / "model")


def test_maps_have_the_calibrated_confidence_and_the_same_classes(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    hot, plain = predictor_of(temperature=1.7), predictor_of()
    for name, predictor in (("hot", hot), ("plain", plain)):
        predictor.map_scene(scene, tmp_path / f"{name}.tif", confidence=True, probabilities=True)
    found = hot.segment(scene)
    assert read(tmp_path / "hot.tif").tobytes() == read(tmp_path / "plain.tif").tobytes()
    np.testing.assert_array_equal(found.labels, plain.segment(scene).labels)
    stored, shares = (read(tmp_path / f"hot.{kind}.tif") for kind in ("confidence", "probabilities"))
    assert np.abs(stored[0] - 254 * found.confidence).max() <= 0.51
    assert np.abs(shares.max(axis=0) - 254 * found.confidence).max() <= 0.51
    assert np.abs(read(tmp_path / "plain.confidence.tif")[0] - stored[0]).max() > 5


def read(path):
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)


def test_exported_networks_have_the_calibrated_confidence():
    predictor = predictor_of(temperature=1.7)
    options = ExportOptions(("labels", "confidence", "probabilities"))
    about = About(predictor.card, "", options, 4, 1, False)
    network = ExportedNetwork(predictor.model, about).eval()
    image = noise(3, 48, 60)
    labels, confidence, shares = (each[0].numpy() for each in network(torch.from_numpy(image)[None]))
    found = predictor.segment(np.moveaxis(image, 0, -1))
    np.testing.assert_array_equal(labels, found.labels)
    np.testing.assert_allclose(confidence, found.confidence, atol=1e-5)
    np.testing.assert_allclose(shares.max(axis=0), found.confidence, atol=1e-5)
    assert json.loads(metadata_of(about, {})["temperature"]) == 1.7


def test_the_command_calibrates_and_scores_the_test_part_too(tmp_path):
    config = small_config(write_scenes(tmp_path, 6), tmp_path / "run", steps=6, evaluate_every=3)
    config = config.model_copy(update={"data": config.data.model_copy(update={"test": 0.2})})
    folder = train(config).folder
    evaluate(folder)
    assert "adds its scores here" in write_report(folder).read_text()
    said = CliRunner().invoke(commands, ["calibrate", str(folder), "--json"], catch_exceptions=False)
    told = json.loads(said.output)
    assert told["temperature"] == read_card(folder / "model")[0].temperature
    assert told["parts"]["validation"]["fitted_here"]
    assert not told["parts"]["test"]["fitted_here"]
    assert told["parts"]["test"]["pixels"] == 64 * 64
    page = write_report(folder).read_text()
    assert page.count('<th scope="row">test, after</th>') == page.count('<th scope="row">validation, after</th>') == 1
