"""A run that goes on elsewhere says that its last bits may differ, and takes as many threads as before."""

import os

import pytest
import torch
from small_run import small_config, write_scenes

from pixelwise.training import exactness
from pixelwise.training.exactness import made_with, threads_to_go_on
from pixelwise.training.train import train

CPU = torch.device("cpu")


@pytest.fixture
def four_cores(monkeypatch):
    """A machine of four cores that would take four threads, whose user has set none."""
    for name in exactness.CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


def going_on(**changes):
    said = []
    return threads_to_go_on(made_with(CPU) | changes, CPU, said.append), said


def test_a_process_like_the_one_before_has_nothing_to_say(four_cores):
    assert going_on() == (4, [])
    assert threads_to_go_on({}, CPU, pytest.fail) == 4, "a state of an early version"


def test_the_threads_of_the_beginning_are_taken_where_the_user_has_set_none(four_cores):
    assert going_on(threads=2) == (2, ["Threads: 2, as before. OMP_NUM_THREADS sets another number."])


@pytest.mark.parametrize("why", ["the user's choice", "fewer cores"])
def test_with_another_number_of_threads_the_run_says_that_bits_may_differ(four_cores, monkeypatch, why):
    if why == "the user's choice":
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads, said = going_on(threads=2 if why == "the user's choice" else 8)
    assert threads == 4
    assert len(said) == 1
    assert said[0].startswith("The last bits of the weights may differ")
    assert "threads was 2 and is 4" in said[0] or "threads was 8 and is 4" in said[0]


def test_all_that_differs_is_in_one_sentence(four_cores):
    _, said = going_on(torch="2.5.0", processor="x86_64 with AVX2", device="NVIDIA H200", threads=4)
    assert len(said) == 1
    for before in (
        "torch was 2.5.0 and is ",
        "processor was x86_64 with AVX2 and is ",
        "device was NVIDIA H200 and is cpu",
    ):
        assert before in said[0]


def test_a_state_records_what_made_it_and_the_run_that_goes_on_compares(tmp_path):
    scenes, said = write_scenes(tmp_path / "scenes"), []
    run = train(small_config(scenes, tmp_path / "run", steps=2))
    state = run.load_last()
    assert state["made_with"]["threads"] == torch.get_num_threads()
    assert state["made_with"]["torch"] == torch.__version__
    run.save_last(state | {"made_with": state["made_with"] | {"torch": "1.0"}})
    train(small_config(scenes, tmp_path / "run", steps=2), resume=True, report=said.append)
    assert f"torch was 1.0 and is {torch.__version__}." in "".join(line for line in said if isinstance(line, str))
