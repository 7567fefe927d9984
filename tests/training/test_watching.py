import json

import numpy as np
import pytest
import rasterio
import torch
from small_run import small_config, write_scenes

import pixelwise as pw
from pixelwise.errors import ConfigError, NotEnoughMemoryError, PixelwiseError
from pixelwise.evaluation.pictures import load_pictures
from pixelwise.files import read_arrays
from pixelwise.runs.model_folder import load_model
from pixelwise.runs.run_notes import add_note, read_notes
from pixelwise.training import distributed, state
from pixelwise.training.events import Began, Ended, Evaluated, Saved, Step
from pixelwise.training.train import train


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """An undisturbed run, and its events."""
    events = []
    run = train(small_config(scenes, tmp_path_factory.mktemp("runs") / "whole"), callback=events.append)
    return run, events


def weights(run):
    return (run.folder / "last" / "state.pt").read_bytes(), (run.folder / "model" / "model.safetensors").read_bytes()


def test_a_callback_hears_of_all_that_happens_in_its_order(whole):
    run, events = whole
    kinds = [type(event).__name__ for event in events if getattr(event, "what", "") != "model"]
    evaluated = ["Step", "Saved", "Evaluated"]
    assert kinds == ["Began", "Step", *evaluated, "Step", *evaluated, "Ended"]
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3, 4]
    assert [event.loss for event in events if isinstance(event, Step)] == [row["loss"] for row in run.log]
    assert events[0] == Began(0, 4, run.folder)
    assert events[-1] == Ended(4, "complete", "All 4 steps are made.")
    saved = [(event.step, event.path) for event in events if isinstance(event, Saved) and event.what == "model"]
    assert saved == [(e.step, run.folder / "model") for e in events if isinstance(e, Evaluated) and e.best]


def test_an_evaluation_has_the_scores_that_the_log_has(whole):
    run, events = whole
    rows = [row for row in run.log if "mIoU" in row]
    for row, event in zip(rows, (event for event in events if isinstance(event, Evaluated)), strict=True):
        ious = [row[f"IoU/{name}"] for name in ("dark", "bright")]
        assert [each.iou for each in event.scores.classes] == ious
        assert row["mIoU"] == pytest.approx(np.mean(ious))


@pytest.mark.parametrize("kind", [Began, Step, Evaluated])
def test_an_error_in_a_callback_is_told_and_the_run_goes_on_from_there(scenes, whole, tmp_path, kind):
    def report(event):
        if isinstance(event, kind) and event.step >= (0 if kind is Began else 3):
            raise KeyError("no such column")

    config = small_config(scenes, tmp_path / "run")
    with pytest.raises(PixelwiseError, match=r"callback raised KeyError \('no such column'\).*resume=True") as problem:
        train(config, callback=report)
    assert isinstance(problem.value.__cause__, KeyError)
    run = train(config, resume=True)
    assert weights(run)[1] == weights(whole[0])[1]
    assert [row["step"] for row in run.log] == [1, 2, 3, 4]


def test_a_callback_ends_a_run_in_good_order(scenes, whole, tmp_path):
    def stop(event):
        if isinstance(event, Step) and event.step == 3:
            raise pw.StopTraining("seen enough")

    config, said = small_config(scenes, tmp_path / "run"), []
    run = train(config, callback=stop, report=said.append)
    assert [row["step"] for row in run.log] == [1, 2, 3]
    assert "mIoU" in run.log[-1]
    load_model(run.folder / "model")
    note = read_notes(run.folder)[-1]
    assert (note.kind, note.code, note.step) == ("ended", "callback", 3)
    assert "seen enough" in note.text
    assert note.text in said
    train(config, resume=True)
    ours, theirs = (torch.load(each.folder / "last" / "state.pt")["model"] for each in (run, whole[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


SCORES = (0.3, 0.5, 0.4, 0.5, 0.2, 0.9, 0.9)
"""The best is the second until the sixth."""


@pytest.fixture
def scored(monkeypatch):
    """Evaluations with the scores of `SCORES`, by their step."""
    made = distributed.evaluate_scenes

    def evaluate(*args, **kwargs):
        found = made(*args, **kwargs)
        score = SCORES[evaluate.training.step - 1]
        object.__setattr__(found.scores, "miou", score)
        return found

    begun = state.Training.__init__

    def begin(self, *args, **kwargs):
        begun(self, *args, **kwargs)
        evaluate.training = self

    monkeypatch.setattr(distributed, "evaluate_scenes", evaluate)
    monkeypatch.setattr(state.Training, "__init__", begin)


@pytest.mark.parametrize(("patience", "steps"), [(2, 4), (4, 7), (None, 7)])
def test_a_run_stops_after_so_many_evaluations_without_a_better_score(scored, scenes, tmp_path, patience, steps):
    run = train(small_config(scenes, tmp_path / "run", steps=7, evaluate_every=1, patience=patience))
    assert len(run.log) == steps
    # With patience 4 the sixth is better in time, and the seventh equals it.
    assert read_notes(run.folder)[-1].code == ("complete" if steps == 7 else "patience")


def test_patience_is_counted_on_over_a_resumption(scored, scenes, tmp_path):
    def kill(event):
        if isinstance(event, Step) and event.step == 4:
            raise RuntimeError("killed")

    config = small_config(scenes, tmp_path / "run", steps=7, evaluate_every=1, patience=3)
    with pytest.raises(PixelwiseError):
        train(config, callback=kill)
    assert len(train(config, resume=True).log) == 5
    assert len(train(config, resume=True).log) == 5, "it has stopped early, and no more steps come"
    more = config.model_copy(update={"train": config.train.model_copy(update={"patience": 4})})
    assert len(train(more, resume=True).log) == 7


def test_a_run_that_goes_on_shows_the_newest_score_not_the_best(scored, scenes, tmp_path):
    train(small_config(scenes, tmp_path / "run", steps=3, evaluate_every=1))
    shown = []
    train(small_config(scenes, tmp_path / "run", steps=5, evaluate_every=5), resume=True, report=shown.append)
    assert [(each.step, each.score) for each in shown if not isinstance(each, str)] == [(4, SCORES[2]), (5, SCORES[4])]


def test_patience_needs_a_validation_part(scenes, tmp_path):
    config = small_config(scenes, tmp_path / "run", patience=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"validation": 0.0})})
    with pytest.raises(ConfigError, match=r"\[train\]\.patience .* there is none"):
        train(config)


def test_a_loss_that_is_no_number_keeps_its_batch_and_says_where_it_broke(scenes, tmp_path):
    config = small_config(scenes, tmp_path / "run", batch_size=2, dice=0.5, learning_rate=1e-3)

    def spoil(event):
        if isinstance(event, Step) and event.step == 2:
            with torch.no_grad():
                next(spoil.model.decoder.parameters()).fill_(float("nan"))

    begun = state.Training.prepare

    def prepare(self):
        begun(self)
        spoil.model = self.model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.Training, "prepare", prepare)
        with pytest.raises(PixelwiseError, match="The loss is nan at step 3") as problem:
            train(config, callback=spoil)
    said = str(problem.value)
    assert "Not finite: cross_entropy, dice" in said
    assert "first output of the network that is not finite is that of decoder." in said
    assert "Lower [train].learning_rate (it is 0.001)" in said
    kept = read_arrays(tmp_path / "run" / "bad_batch.npz")
    assert str(tmp_path / "run" / "bad_batch.npz") in said
    # The log ends before that step.
    assert kept["step"] == 1 + len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3
    assert np.isnan([kept["loss"], kept["loss/cross_entropy"], kept["loss/dice"]]).all()
    assert kept["image"].shape == (2, 3, 32, 32)
    assert kept["mask"].shape == (2, 32, 32)
    assert set(kept["names"]) <= {"0", "1", "2", "3"}
    assert kept["windows"].shape == (2, 4)
    assert read_notes(tmp_path / "run")[-1].code == "error"


def test_the_module_that_float16_overflows_in_is_named(scenes, tmp_path, monkeypatch):
    begun = state.Training.prepare

    def prepare(self):
        begun(self)
        with torch.no_grad():
            # In float32 the sum of these products is a number.
            next(self.model.encoder.parameters()).fill_(6e4)

    monkeypatch.setattr(state.Training, "prepare", prepare)
    with pytest.raises(PixelwiseError, match=r"Not finite: cross_entropy\. .* not finite is that of encoder\."):
        train(small_config(scenes, tmp_path / "run", precision="fp16"))


def test_a_batch_that_is_too_large_to_look_into_is_kept_all_the_same(scenes, tmp_path, monkeypatch):
    def too_large(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(state.Training, "loss_with", too_large)
    monkeypatch.setattr(state, "total_loss", lambda decoded, *arguments, **more: decoded.logits.sum() * float("nan"))
    with pytest.raises(PixelwiseError, match="The loss is nan at step 1") as problem:
        train(small_config(scenes, tmp_path / "run", batch_size=2, accumulate=2))
    assert not isinstance(problem.value, NotEnoughMemoryError)
    assert len(read_arrays(tmp_path / "run" / "bad_batch.npz")["image"]) == 2


def test_samples_are_crops_of_the_validation_part_with_their_truth(scenes, whole):
    run, _ = whole
    pictures, _ = load_pictures(run.folder / "samples.npz")
    lines = (run.folder / "split" / "val.txt").read_text().splitlines()
    validation = [line.removesuffix(".tif") for line in lines if line[0] != "#"]
    assert [picture.name.split(",")[0] for picture in pictures] == validation

    name, row, column = pictures[0].name.replace(",", "").replace("row ", "").replace("column ", "").split()
    with rasterio.open(scenes / "masks" / f"{name}.tif") as file:
        truth = file.read(1)[int(row) : int(row) + 32, int(column) : int(column) + 32]
    np.testing.assert_array_equal(pictures[0].truth, truth)


def test_notes_are_read_around_damaged_lines(tmp_path):
    add_note(tmp_path, "began", 0, "", "")
    with (tmp_path / "notes.jsonl").open("a") as file:
        file.write('{"kind": "warned", "st')
    add_note(tmp_path, "ended", 5, "complete", "done")
    (tmp_path / "notes.jsonl").open("a").write(json.dumps({"kind": "ended", "step": "no"}) + "\n")
    assert [(note.kind, note.step) for note in read_notes(tmp_path)] == [("began", 0), ("ended", 5)]
