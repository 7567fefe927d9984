"""Numbers of steps that are read late: nothing of a log is lost, and no bad step is kept."""

import math

import pytest
import torch
from small_run import small_config, write_scenes
from torch import nn

from pixelwise.errors import PixelwiseError
from pixelwise.training import state
from pixelwise.training.lion import Lion
from pixelwise.training.readings import Made, Readings
from pixelwise.training.train import Progress, train


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def made(loss, norm=1.0, bad=False):
    return Made(torch.tensor(loss), torch.tensor(norm), torch.tensor(bad), 0.1)


def test_rows_come_complete_in_order_and_the_first_bad_one_alone():
    readings = Readings(3)
    for step, each in enumerate([made(2.0), made(1.5, math.inf), made(math.nan, bad=True), made(1.0)], start=1):
        assert readings.due == (step == 4)
        readings.add({"step": step}, each)
    good, bad = readings.read()
    assert good == [
        {"step": 1, "loss": 2.0, "gradient_norm": 1.0},
        {"step": 2, "loss": 1.5, "gradient_norm": None},
    ]
    assert bad is not None
    assert bad["step"] == 3
    assert readings.read() == ([], None)


def test_a_log_that_is_read_late_has_the_rows_of_one_that_is_read_at_once(scenes, tmp_path):
    told = []
    often = train(small_config(scenes, tmp_path / "often", steps=7, evaluate_every=3, log_every=1))
    seldom = train(
        small_config(scenes, tmp_path / "seldom", steps=7, evaluate_every=3, log_every=5), report=told.append
    )

    def rows(run):
        return [{k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in run.log]

    assert [row["step"] for row in rows(often)] == [1, 2, 3, 4, 5, 6, 7]
    assert rows(seldom) == rows(often)
    steps = [each.step for each in told if isinstance(each, Progress)]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert (often.folder / "model/model.safetensors").read_bytes() == (
        seldom.folder / "model/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_bad_step_is_named_though_it_is_read_later_and_changes_no_weight(scenes, tmp_path, monkeypatch, optimizer):
    real, steps, held = state.total_loss, [], {}

    def broken(*arguments, **options):
        steps.append(0)
        return real(*arguments, **options) * (math.nan if len(steps) == 3 else 1.0)

    learn = state.Training.learn

    def watched(training, *arguments):
        result = learn(training, *arguments)
        held[training.step] = torch.cat([each.detach().flatten() for each in training.model.parameters()])
        return result

    monkeypatch.setattr(state, "total_loss", broken)
    monkeypatch.setattr(state.Training, "learn", watched)
    settings = small_config(
        scenes, tmp_path / "run", steps=6, evaluate_every=6, keep_every=6, log_every=5, optimizer=optimizer
    )
    with pytest.raises(PixelwiseError, match="loss is nan at step 3"):
        train(settings)
    assert torch.equal(held[3], held[2])
    assert not torch.equal(held[2], held[1])
    assert torch.isfinite(held[5]).all()
    run = tmp_path / "run"
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    assert not (run / "last").exists()
    assert not (run / "checkpoints").exists()


def test_errors_of_places_are_recorded_before_they_are_kept_or_drawn_from(scenes, tmp_path):
    data = small_config(scenes, tmp_path / "run", steps=3, log_every=9, crop_size=32)
    config = data.model_copy(update={"sampling": data.sampling.model_copy(update={"hard": 0.5})})
    errors = train(config).load_last()["targets"]["errors"]
    assert torch.isfinite(errors).any()


def test_lion_with_a_flag_on_the_device_is_lion_or_nothing():
    # "meta" stands for a device that cannot be asked; there, the flag must not be read at all.
    weight = nn.Parameter(torch.empty(3, device="meta"))
    optimizer = Lion([weight], lr=0.1)
    weight.grad = torch.empty(3, device="meta")
    optimizer.found_inf = torch.empty((), device="meta")
    optimizer.step()
    assert optimizer.state[weight]["momentum"].device.type == "meta"
