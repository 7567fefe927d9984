"""A run is killed or told to stop at any moment, and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_config, write_scenes

from pixelwise.errors import TrainingStopped
from pixelwise.runs.run_folder import Run
from pixelwise.training import stopping
from pixelwise.training.state import Training
from pixelwise.training.stopping import SIGNALS, Stopping, stopped_by_signals
from pixelwise.training.train import Progress, train

ALONE = "PIXELWISE_TEST_SIGNALS"
alone = pytest.mark.skipif(ALONE not in os.environ, reason="runs in a process of its own, which another test starts")
"""Of tests that raise signals: whatever other tests have loaded into a process may handle these too, and end it."""


@pytest.fixture(autouse=True)
def handled():
    """Handlers as a program starts with them, also where the tests were started so that signals are ignored."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_what_others_would_disturb_passes_in_a_process_of_its_own():
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-k", "signal", __file__]
    done = subprocess.run(command, env={**os.environ, ALONE: "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """An undisturbed run of 5 steps, which is evaluated after 2, 4 and 5."""
    return train(small_config(scenes, tmp_path_factory.mktemp("runs") / "whole", steps=5))


def require_same(run, whole):
    found, expected = run.load_last(), whole.load_last()
    for part in ("model", "average"):
        assert all(torch.equal(tensor, expected[part][name]) for name, tensor in found[part].items())
    assert (found["best"], found["best_step"]) == (expected["best"], expected["best_step"])
    assert (run.folder / "model/model.safetensors").read_bytes() == (
        whole.folder / "model/model.safetensors"
    ).read_bytes()
    kept = ("step", "loss", "learning_rate", "mIoU", "pixel_accuracy")
    rows, wanted = ([{key: row.get(key) for key in kept} for row in each.log] for each in (run, whole))
    assert rows == wanted


class KilledError(Exception):
    pass


def at_step(step, do):
    def report(event):
        if isinstance(event, Progress) and event.step == step:
            do()

    return report


def killed():
    raise KilledError


def test_a_run_that_is_killed_after_each_step_ends_as_the_undisturbed_one(scenes, tmp_path, whole):
    config = small_config(scenes, tmp_path / "run", steps=5, save_every_minutes=0.0)
    for step in range(1, 5):
        with pytest.raises(KilledError):
            train(config, resume=step > 1, report=at_step(step, killed))
        assert Run(tmp_path / "run").load_last()["step"] == step
    require_same(train(config, resume=True), whole)


def test_a_state_between_evaluations_needs_no_best_model_yet(scenes, tmp_path):
    config = small_config(scenes, tmp_path / "run", steps=5, save_every_minutes=0.0)
    said = []
    with pytest.raises(KilledError):
        train(config, report=at_step(1, killed))
    train(config, resume=True, report=said.append)
    assert not any("holds no model" in line for line in said if isinstance(line, str))


def test_a_kill_between_the_state_and_its_best_model_loses_neither(scenes, tmp_path, whole, monkeypatch):
    config = small_config(scenes, tmp_path / "run", steps=5)
    monkeypatch.setattr(Training, "save_model", lambda training, folder: killed())
    with pytest.raises(KilledError):
        train(config)
    monkeypatch.undo()
    assert not (tmp_path / "run/model").exists()
    with pytest.raises(KilledError):
        train(config, resume=True, report=at_step(3, killed))
    assert (tmp_path / "run/model/model.safetensors").exists()
    require_same(train(config, resume=True), whole)


def test_rows_that_are_read_late_are_in_the_log_before_the_state_is_saved(scenes, tmp_path, whole, monkeypatch):
    save = Run.save_last

    def save_and_kill(run, state):
        save(run, state)
        killed()

    config = small_config(scenes, tmp_path / "run", steps=5, evaluate_every=4, log_every=10)
    monkeypatch.setattr(Run, "save_last", save_and_kill)
    with pytest.raises(KilledError):
        train(config)
    monkeypatch.undo()
    assert [row["step"] for row in Run(tmp_path / "run").log] == [1, 2, 3]
    run = train(config, resume=True)
    assert [row["loss"] for row in run.log] == [row["loss"] for row in whole.log]


@alone
@pytest.mark.parametrize(("step", "rows"), [(2, 3), (3, 4), (5, 5)], ids=["plain", "evaluated", "after the last"])
def test_a_signal_ends_the_run_after_a_step_and_loses_nothing(scenes, tmp_path, whole, capfd, step, rows):
    config = small_config(scenes, tmp_path / "run", steps=5)
    before = [signal.getsignal(each) for each in SIGNALS]
    said = rf"SIGTERM stopped the run in .*run\. Its state is saved, of step {rows}\."
    with pytest.raises(TrainingStopped, match=said) as end:
        train(config, report=at_step(step, lambda: signal.raise_signal(signal.SIGTERM)))
    assert isinstance(end.value, KeyboardInterrupt)
    assert (end.value.signal, end.value.step) == (signal.SIGTERM, rows)
    assert "SIGTERM: the run stops after this step" in capfd.readouterr().err
    assert [signal.getsignal(each) for each in SIGNALS] == before
    run = Run(tmp_path / "run")
    assert ([row["step"] for row in run.log], run.load_last()["step"]) == (list(range(1, rows + 1)), rows)
    # Evaluations can be long, so one that was due is left to the next process.
    assert "mIoU" not in run.log[3] if rows == 4 else True
    require_same(train(config, resume=True), whole)


@alone
def test_a_signal_in_an_evaluation_ends_it_and_the_next_process_makes_it_anew(scenes, tmp_path, whole, monkeypatch):
    config = small_config(scenes, tmp_path / "run", steps=5)
    evaluate, left = Training.evaluate, []

    def interrupted(training):
        evaluate(training)
        signal.raise_signal(signal.SIGINT)
        left.append("not reached")

    monkeypatch.setattr(Training, "evaluate", interrupted)
    for resume in (False, True):
        with pytest.raises(TrainingStopped, match="of step 2"):
            train(config, resume=resume)
        state = Run(tmp_path / "run").load_last()
        assert (left, state["evaluated"], state["best_step"]) == ([], 0, 0)
    monkeypatch.setattr(Training, "evaluate", evaluate)
    require_same(train(config, resume=True), whole)


def test_a_run_that_is_made_shorter_is_evaluated_at_its_new_end(scenes, tmp_path):
    with pytest.raises(KilledError):
        train(small_config(scenes, tmp_path / "run", steps=5, save_every_minutes=0.0), report=at_step(3, killed))
    run = train(small_config(scenes, tmp_path / "run", steps=3, save_every_minutes=0.0), resume=True)
    assert [row["step"] for row in run.log if "mIoU" in row] == [2, 3]


@alone
@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_asks_to_save_and_to_stop_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with stopped_by_signals(minutes=5) as found:
        assert found.after_step() == (False, False)
        signal.raise_signal(number)
        assert found.after_step() == (True, True)
        assert found.unless_stopped(lambda: pytest.fail("was begun")) is None
    assert signal.getsignal(number) == before


@alone
@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda number, frame: None], ids=["nohup", "a program's own"])
def test_a_signal_that_is_ignored_or_handled_by_the_program_is_left_to_it(own):
    before = signal.signal(signal.SIGTERM, own)
    try:
        with stopped_by_signals(minutes=5) as found:
            signal.raise_signal(signal.SIGTERM)
            assert found.after_step() == (False, False)
        assert signal.getsignal(signal.SIGTERM) == own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_no_handler_is_installed():
    seen = []

    def work():
        with stopped_by_signals(minutes=5):
            seen.append([signal.getsignal(each) for each in SIGNALS])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[signal.getsignal(each) for each in SIGNALS]]


def test_a_second_ctrl_c_stops_at_once_but_not_one_that_a_launcher_passed_on(monkeypatch):
    now = iter([10.0, 10.0, 10.9, 11.1, 12.0])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(now))
    found = Stopping(5)
    found.receive(signal.SIGINT)
    found.receive(signal.SIGINT)
    # A scheduler may repeat itself while the state is written.
    found.receive(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        found.receive(signal.SIGINT)


@given(minutes=st.floats(0, 10), steps=st.lists(st.integers(0, 400), max_size=30))
def test_states_are_saved_when_so_many_minutes_are_over_and_never_sooner(minutes, steps):
    with pytest.MonkeyPatch.context() as patch:
        clock = [0.0]
        patch.setattr(stopping.time, "monotonic", lambda: clock[0])
        found, unsaved = Stopping(minutes), 0
        for seconds in steps:
            clock[0] += seconds
            unsaved += seconds
            save, stop = found.after_step()
            assert (save, stop) == (unsaved >= 60 * minutes, False)
            if save:
                found.saved()
                unsaved = 0
