"""Evaluations of a run: on which data, predicted how, and kept under which name."""

import json
import threading
from contextlib import suppress

import numpy as np
import pytest
from small_network import write_photo

import pixelwise as pw
from pixelwise.config import Config, load_config
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.evaluation.names import About, choose_name
from pixelwise.runs.run_folder import Run
from pixelwise.training.train import train

PREDICT = "[predict]\ntile = 64\noverlap = 32\n"
NETWORK = "[model]\nname = 'unet'\n[model.options]\nfilters = [4, 8]\nbatch_norm = false\n"


def write_pairs(folder, seeds, dtype=np.uint8):
    for i in seeds:
        rng = np.random.default_rng(i)
        mask = np.kron(rng.integers(0, 2, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        write_photo(folder / f"images/{i}.png", (mask * 100 + rng.integers(0, 60, (3, 72, 72))).astype(dtype))
        write_photo_mask(folder / f"masks/{i}.png", mask)


def write_photo_mask(path, mask):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_config(path, images, more=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = f'[data]\nimages = "{images}/images"\nlabels = "{images}/masks"\nclasses = ["dark", "bright"]\n'
    path.write_text(f"{data}{more}")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluations")
    write_pairs(folder / "seen", range(3))
    write_pairs(folder / "new", range(10, 12))
    more = "[train]\nsteps = 1\nbatch_size = 1\ncrop_size = 64\nworkers = 0\ndevice = 'cpu'\n[run]\nfolder = '%s'\n" % (
        folder / "run"
    )
    train(load_config(write_config(folder / "seen.toml", folder / "seen", more + PREDICT + NETWORK)))
    return folder


def kept(place):
    return json.loads((place / "run/metrics.json").read_text())


def test_two_configurations_of_one_name_and_the_runs_own_part_overwrite_nothing(place):
    own = evaluate(place / "run")
    assert own.name == "validation"
    first = evaluate(place / "run", write_config(place / "a/test.toml", place / "new"))
    other = evaluate(place / "run", write_config(place / "b/test.toml", place / "seen"))
    named_so = evaluate(
        place / "run", write_config(place / "c/validation.toml", place / "new", PREDICT + "flips = true")
    )
    assert [each.name for each in (first, other, named_so)] == ["test", "test-2", "validation-2"]
    again = evaluate(place / "run", place / "a/test.toml")
    assert again.name == "test", "the same evaluation replaces itself"
    assert list(kept(place))[-1] == "test", "the newest stands last"
    for each in (own, first, other, named_so):
        assert kept(place)[each.name]["confusion"] == each.matrix.tolist()
        assert (place / f"run/evaluations/{each.name}.npz").exists()


def test_what_the_other_file_says_of_tiles_holds_and_the_rest_is_the_runs(place):
    told = evaluate(place / "run", write_config(place / "t1.toml", place / "new", "[predict]\nflips = true\n")).about
    assert told.predict == {"tile": 64, "overlap": 32, "flips": True, "scales": [1.0]}
    plain = write_config(place / "t2.toml", place / "new")
    assert evaluate(place / "run", plain, tile=128, scales=[0.5, 1]).about.predict == {
        "tile": 128,
        "overlap": 32,
        "flips": False,
        "scales": [0.5, 1.0],
    }
    assert evaluate(place / "run", plain, overrides=["predict.overlap=0"]).about.predict["overlap"] == 0


def test_flips_of_an_evaluation_are_those_of_prediction(place):
    config = write_config(place / "flips.toml", place / "new")
    result = evaluate(place / "run", config, flips=True)
    predictor = pw.load(place / "run", device="cpu")
    scene = result.scenes[0]
    labels = predictor.segment(scene.path, flips=True).labels
    assert np.bincount(labels.ravel(), minlength=2).tolist() == scene.matrix.sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"tile": 100}, ["multiples of 32"]),
        ({"overlap": 64}, ["overlap is 64, more than half of tile = 64"]),
        ({"scales": [0.0]}, ["scales", "greater than 0"]),
        ({"options": {"nonsense": 1}}, ["nonsense"]),
        ({"name": "a/b"}, ["'a/b'"]),
        ({"name": "validation"}, ["'validation'"]),
        ({"overrides": ["data.bands=[3,2,1]"]}, ["[3, 2, 1]", "[1, 2, 3]", "in this order"]),
        ({"overrides": ["data.classes=['a','b']"]}, ["dark, bright", "a, b"]),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(place, given, parts):
    config = write_config(place / "refused.toml", place / "new")
    before = kept(place) if (place / "run/metrics.json").exists() else {}
    with pytest.raises((ConfigError, DataError)) as caught:
        evaluate(place / "run", config, **given)
    for part in parts:
        assert part in str(caught.value)
    assert (kept(place) if (place / "run/metrics.json").exists() else {}) == before


def test_scenes_that_were_learned_from_are_named(place):
    names = {scene.name for scene in evaluate(place / "run").scenes}
    result = evaluate(place / "run", write_config(place / "mine.toml", place / "seen"))
    assert set(result.learned) == {"0", "1", "2"} - names
    assert "2 of the 3 scenes are among those that the run learned from" in (result.warning() or "")
    copies = place / "copies"
    for kind in ("images", "masks"):
        (copies / kind).mkdir(parents=True, exist_ok=True)
        for path in (place / "seen" / kind).iterdir():
            (copies / kind / f"copy{path.name}").write_bytes(path.read_bytes())
    copied = evaluate(place / "run", write_config(place / "copies.toml", copies))
    assert set(copied.learned) == {f"copy{name}" for name in result.learned}
    assert evaluate(place / "run", write_config(place / "fresh.toml", place / "new")).warning() is None


def test_names_that_differ_in_case_alone_are_one_file_on_some_systems():
    metrics = {"Test": {"about": {"digest": "a"}}}
    about = About("x", {}, {}, "", "b")
    assert choose_name(metrics, about, wanted=None, own="test", plain=False) == "test-2"
    with pytest.raises(ConfigError, match="'test' already"):
        choose_name(metrics, about, wanted="test", own="x", plain=False)


def test_scores_of_an_earlier_version_are_replaced_only_if_they_are_the_runs_own():
    metrics = {"validation": {"mIoU": 0.5}, "test": {"mIoU": 0.5}}
    about = About("validation", {}, {}, "", "b")
    assert choose_name(metrics, about, wanted=None, own="validation", plain=True) == "validation"
    assert choose_name(metrics, about, wanted=None, own="test", plain=False) == "test-2"


def test_a_configuration_may_be_given_as_one(place):
    config = load_config(write_config(place / "object.toml", place / "new"))
    assert isinstance(config, Config)
    assert evaluate(place / "run", config).name == "other"


def test_an_evaluation_that_takes_the_name_meanwhile_keeps_it(place):
    first = write_config(place / "d/meanwhile.toml", place / "new")
    second = write_config(place / "e/meanwhile.toml", place / "seen")
    others = []

    def evaluate_the_other_one(said):
        if not others:
            others.append(evaluate(place / "run", second))

    own = evaluate(place / "run", first, report=evaluate_the_other_one)
    assert [others[0].name, own.name] == ["meanwhile", "meanwhile-2"]
    for each in (own, others[0]):
        assert kept(place)[each.name]["confusion"] == each.matrix.tolist()


def test_two_evaluations_at_once_both_keep_their_scores(place, monkeypatch):
    configs = [write_config(place / f"at-once-{i}.toml", place / "new", f"[train]\nseed = {i}\n") for i in range(2)]
    both, write = threading.Barrier(2), Run.write_metrics

    def slow(run, metrics):
        # Without a lock both have read by now, and each would write without the other's scores.
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)
        write(run, metrics)

    monkeypatch.setattr(Run, "write_metrics", slow)
    threads = [threading.Thread(target=evaluate, args=(place / "run", config)) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {"at-once-0", "at-once-1"} <= set(kept(place))


@pytest.fixture(scope="module")
def three_parts(tmp_path_factory):
    """A run with one scene in each of its three parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_pairs(folder / "all", range(3))
    for part, line in (("training", "0"), ("validation", "1"), ("test", "2")):
        (folder / f"{part}.txt").write_text(f"{line}.png\n")
    lists = "".join(f'{part}_list = "{folder}/{part}.txt"\n' for part in ("training", "validation", "test"))
    settings = "[train]\nsteps = 1\nbatch_size = 1\ncrop_size = 64\nworkers = 0\ndevice = 'cpu'\n"
    run = f"[run]\nfolder = '{folder}/run'\n"
    train(load_config(write_config(folder / "all.toml", folder / "all", lists + settings + run + PREDICT + NETWORK)))
    return folder


@pytest.mark.parametrize(("part", "scene"), [("training", "0"), ("validation", "1"), ("test", "2")])
def test_a_part_of_the_runs_own_data_is_scored_as_prediction_labels_it(three_parts, part, scene):
    result = evaluate(three_parts / "run", part=part)
    assert (result.name, [each.name for each in result.scenes]) == (part, [scene])
    labels = pw.load(three_parts / "run", device="cpu").segment(three_parts / f"all/images/{scene}.png").labels
    assert np.bincount(labels.ravel(), minlength=2).tolist() == result.matrix.sum(axis=0).tolist()
    assert kept(three_parts)[part]["confusion"] == result.matrix.tolist()


def test_images_that_came_later_change_neither_the_parts_nor_what_was_learned_from(three_parts):
    write_pairs(three_parts / "all", [3])
    assert [scene.name for scene in evaluate(three_parts / "run", part="test").scenes] == ["2"]
    result = evaluate(three_parts / "run", write_config(three_parts / "everything.toml", three_parts / "all"))
    assert result.learned == ("0",)


@pytest.mark.parametrize(
    ("arguments", "said"), [({"part": "exam"}, "no part 'exam'"), ({"part": "test"}, "kept no scenes")]
)
def test_a_part_that_the_run_has_not_is_refused(place, arguments, said):
    with pytest.raises(ConfigError, match=said):
        evaluate(place / "run", **arguments)


def test_a_part_and_other_data_do_not_go_together(place):
    config = write_config(place / "part.toml", place / "new")
    with pytest.raises(ConfigError, match="'test' has no meaning"):
        evaluate(place / "run", config, part="test")
