"""Runs side by side: the same pixels, honest intervals, and refusals where nothing can be compared."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from small_run import small_config, write_scenes

from pixelwise.cli import commands
from pixelwise.errors import ConfigError
from pixelwise.evaluation.blocks import (
    BLOCK,
    BlockCounter,
    BlockCounts,
    drawn_ious,
    interval,
    ious,
    load_blocks,
    mean_iou,
    save_blocks,
)
from pixelwise.evaluation.compare import compare
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.evaluation.metrics import confusion_matrix, scores
from pixelwise.report.comparison import write_comparison
from pixelwise.training.train import train


def blocks_of(truth, prediction, classes=3):
    """Count scenes [n,H,W] as an evaluation does, in strips of 256 rows."""
    counter = BlockCounter(classes)
    for i, (right, found) in enumerate(zip(truth, prediction, strict=True)):
        for top in range(0, right.shape[0], 256):
            counter.add(f"scene {i}", top, right[top : top + 256], found[top : top + 256])
    return counter.blocks()


def noisy(truth, share, rng, classes=3):
    """Return the truth with a share of its pixels drawn again, scene by scene more or less of them."""
    shares = rng.uniform(0, 2 * share, len(truth))[:, None, None]
    return np.where(rng.random(truth.shape) < shares, rng.integers(0, classes, truth.shape), truth)


def test_blocks_add_up_to_the_scores_of_the_whole():
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 3, (2, 700, 600)).astype(np.int16)
    prediction = rng.integers(0, 3, truth.shape)
    blocks = blocks_of(truth, prediction)
    expected = scores(confusion_matrix(truth, prediction, 3), ["a", "b", "c"])
    found = ious(blocks.right.sum(0), blocks.truth.sum(0), blocks.predicted.sum(0))
    assert found.tolist() == [each.iou for each in expected.classes]
    assert mean_iou(found) == pytest.approx(expected.miou)
    corner = np.s_[0, BLOCK:, BLOCK:]
    last = [i for i, name in enumerate(blocks.scenes) if name == "scene 0" and blocks.places[i].tolist() == [1, 1]]
    assert blocks.truth[last[0]].tolist() == [(truth[corner] == k).sum() for k in range(3)]


def test_draws_are_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, (30, 20, 20))
    blocks = blocks_of(truth, noisy(truth, 0.4, rng))
    (drawn,) = drawn_ious([blocks], draws=4000)
    plain = []
    for _ in range(4000):
        rows = rng.choice(30, 30)
        right, true, predicted = (part[rows].sum(0) for part in (blocks.right, blocks.truth, blocks.predicted))
        plain.append(np.mean(right / (true + predicted - right)))
    assert np.allclose(interval(mean_iou(drawn)), np.percentile(plain, (2.5, 97.5)), atol=0.01)


def test_networks_of_equal_worth_differ_by_noise_and_a_better_one_by_more():
    rng = np.random.default_rng(2)
    false_alarms, found = 0, 0
    for _ in range(40):
        truth = rng.integers(0, 3, (25, 16, 16))
        first, equal, better = (noisy(truth, share, rng) for share in (0.4, 0.4, 0.1))
        drawn = [
            mean_iou(each) for each in drawn_ious([blocks_of(truth, p) for p in (first, equal, better)], draws=400)
        ]
        low, high = interval(drawn[1] - drawn[0])
        false_alarms += not low <= 0 <= high
        found += interval(drawn[2] - drawn[0])[0] > 0
    assert false_alarms <= 6, "one in twenty is meant"
    assert found == 40


def test_a_class_that_is_nowhere_has_no_score():
    blocks = BlockCounts(("a",), np.zeros((1, 2), np.int64), *[np.array([[4, 0]])] * 3)
    assert np.isnan(ious(blocks.right, blocks.truth, blocks.predicted)[0, 1])
    assert mean_iou(ious(blocks.right, blocks.truth, blocks.predicted))[0] == 1
    assert interval(np.array([np.nan, np.nan])) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    scenes = write_scenes(folder, count=24)
    for name, settings in {"one": {"steps": 12}, "two": {"steps": 12, "seed": 1}, "three": {"steps": 4}}.items():
        config = small_config(scenes, folder / name, evaluate_every=12, **settings)
        # The same scenes for all, whatever the seed.
        parts = {"validation_images": scenes / "images", "validation_labels": scenes / "masks", "validation": 0}
        train(config.model_copy(update={"data": config.data.model_copy(update=parts)}))
        evaluate(folder / name)
    return folder


def test_runs_are_compared_on_all_scenes(runs):
    found = compare([runs / "one", runs / "two", runs / "three"])
    assert (found.scenes, found.units, found.unit) == (24, 24, "scenes")
    for run in found.runs:
        kept = json.loads((run.folder / "metrics.json").read_text())["validation"]
        assert run.miou.value == pytest.approx(kept["mIoU"])
        assert {name: score.value for name, score in run.classes.items()} == {
            name: pytest.approx(each["IoU"]) for name, each in kept["classes"].items()
        }
        assert run.miou.interval[0] <= run.miou.value <= run.miou.interval[1]
    first, second, _ = found.runs
    assert first.miou_difference is None
    assert second.miou_difference.value == pytest.approx(second.miou.value - first.miou.value)
    assert set(found.settings) == {"[train].seed", "[train].steps"}
    assert found.seeds == (("one", "two"),)


def test_a_copy_of_a_run_differs_by_nothing(runs, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "copy")
    found = compare([runs / "one", tmp_path / "copy"])
    difference = found.runs[1].miou_difference
    assert (difference.value, difference.interval, difference.more_than_noise) == (0, (0, 0), False)
    # It says nothing of another seed.
    assert found.seeds == ()
    assert any("train with a second [train].seed" in note for note in found.notes())


def test_a_run_that_learned_from_the_scenes_is_named(runs, tmp_path):
    new = write_scenes(tmp_path / "new", count=1, seed=5)
    old = write_scenes(tmp_path / "old", count=2)
    for name in ("one", "two"):
        shutil.copytree(runs / name, tmp_path / name)
        for data in (new, old):
            evaluate(tmp_path / name, small_config(data, tmp_path / "none"), name=data.name)
    found = compare([tmp_path / "one", tmp_path / "two"], evaluation="old")
    assert found.learned == (("one", 2), ("two", 2))
    assert "two learned from 2 of the 2 scenes" in " ".join(found.notes())
    found = compare([tmp_path / "one", tmp_path / "two"], evaluation="new")
    assert (found.learned, found.drawn) == ((), "1 scene")


def test_what_cannot_be_compared_is_named(runs, tmp_path):
    with pytest.raises(ConfigError, match="at least two"):
        compare([runs / "one"])
    with pytest.raises(ConfigError, match="named twice"):
        compare([runs / "one", runs / "one"])
    with pytest.raises(ConfigError, match=r"no evaluation 'test'.*it has: validation"):
        compare([runs / "one", runs / "two"], evaluation="test")
    other = shutil.copytree(runs / "two", tmp_path / "two")
    path = other / "evaluations/blocks/validation.npz"
    blocks = load_blocks(path)
    save_blocks(path, BlockCounts(blocks.scenes, blocks.places, blocks.right, blocks.truth[::-1], blocks.predicted))
    with pytest.raises(ConfigError, match="truth of the scenes of two"):
        compare([runs / "one", other])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"validation\.npz is damaged"):
        compare([runs / "one", other])


def test_the_command_prints_a_table_and_writes_a_page(runs, tmp_path):
    page = tmp_path / "compare.html"
    arguments = ["compare", *(str(runs / name) for name in ("one", "three")), "--page", str(page)]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    assert "24 scenes" in done.output
    assert "[train].steps: 12, 4" in done.output
    text = page.read_text()
    assert "2 runs side by side" in text
    assert text.count("stroke-dasharray") >= 4
    assert "<script" not in text
    told = json.loads(CliRunner().invoke(commands, [*arguments[:3], "--json"]).output)
    assert [run["name"] for run in told["runs"]] == ["one", "three"]


def test_a_page_of_runs_without_a_log_has_no_curves(runs, tmp_path):
    shutil.copytree(runs / "one", tmp_path / "copy")
    (tmp_path / "copy/log.jsonl").unlink()
    page = write_comparison(compare([runs / "two", tmp_path / "copy"]), tmp_path / "page.html")
    assert "<h2>Training</h2>" not in page.read_text()
