import pytest
from small_run import small_config

from pixelwise.models import create
from pixelwise.training import forecast
from pixelwise.training.forecast import TIMED, Timing, room_needed


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(forecast.time, "monotonic", lambda: Clock.now)
    return Clock


def timed(clock, config, pixels=0, steps=TIMED + 3):
    """Make steps of two seconds, with something that takes a minute between them."""
    timing, said = Timing(config, pixels), []
    for step in range(1, steps + 1):
        clock.now += 2
        said.append(timing.after(step))
        clock.now += 60
        timing.go_on()
    return said


def test_the_time_left_is_said_once_and_counts_steps_alone(clock, tmp_path):
    said = timed(clock, small_config(tmp_path, tmp_path, steps=111, evaluate_every=200))
    told = [text for text in said if text is not None]
    assert said.index(told[0]) == TIMED
    assert len(told) == 1
    assert told[0].startswith("A step takes 2.00 s: the 100 steps that are left take about 3 min. The end is near ")


def test_nothing_is_foretold_of_the_last_few_steps(clock, tmp_path):
    assert not any(timed(clock, small_config(tmp_path, tmp_path, steps=19)))
    assert any(timed(clock, small_config(tmp_path, tmp_path, steps=21)))


def test_evaluations_count_a_third_of_a_step_for_as_many_pixels(clock, tmp_path):
    config = small_config(tmp_path, tmp_path, steps=111, evaluate_every=20, crop_size=64, patience=2)
    # 9 crops per evaluation, and 6 of them: 54 crops at 2/3 s.
    told = next(text for text in timed(clock, config, pixels=9 * 64 * 64) if text)
    assert "and 6 evaluations perhaps 36 s more" in told
    assert told.endswith(", or earlier ([train].patience).")


def test_memory_and_disk_are_those_of_the_network_and_too_little_is_said(tmp_path):
    config = small_config(tmp_path, tmp_path, keep_every=1)
    model = create("unet", classes=2, bands=3, filters=[4, 8], batch_norm=False)
    parameters = sum(each.numel() for each in model.parameters())
    said = room_needed(model, config, tmp_path, 10**12)
    assert "of the 1,000.0 GB that are free" in said
    # Three states of 16 bytes per parameter, and six models of 4.
    assert f"up to {max(1, round(parameters * 72 / 1e6))} MB" in said
    assert "too much memory" not in said
    assert "too much memory" in room_needed(model, config, tmp_path, 1000)


def test_a_step_in_parts_takes_the_memory_of_a_part(tmp_path):
    model = create("unet", classes=2, bands=3, filters=[4, 8], batch_norm=False)
    whole, parts, part = (
        room_needed(model, small_config(tmp_path, tmp_path, crop_size=256, **keys), tmp_path, 10**12)
        for keys in ({"batch_size": 64}, {"batch_size": 64, "accumulate": 30}, {"batch_size": 3})
    )
    assert parts == part != whole
