"""The judge of `benchmarks/fuzz.py` sees each kind of fault, and its damage is the same each time."""

import json
import random
import subprocess
import sys
from pathlib import Path

import fuzz
import fuzz_cases
import pytest
from damage import damage_bytes

CASE = fuzz.Case(0, "runs", "log.jsonl: empty", ("evaluate", "r"), ("out.json",))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("status", "said", "fault"),
    [
        (0, "", ""),
        (1, "Error: The file is damaged.\n", ""),
        (2, "Usage: pixelwise", ""),
        (1, "", "traceback"),
        (99, "Traceback (most recent call last):\n", "traceback"),
        (130, "", "traceback"),
        (-11, "", "traceback"),
        (-9, "", "hang"),
    ],
)
def test_each_end_of_a_command_is_judged(status, said, fault):
    assert fuzz.judge(CASE, status, said, set(), {}) == fault


@pytest.mark.parametrize("left", [".map.123.tif", "last.new/state.pt", ".p.gpkg.scratch/x"])
def test_what_a_command_leaves_behind_is_seen(left):
    Path(left).parent.mkdir(exist_ok=True)
    Path(left).write_text("")
    assert fuzz.judge(CASE, 0, "", set(), {}).startswith("half written")
    assert fuzz.judge(CASE, 0, "", {left}, {}) == "", "it was there before"


def test_pieces_of_an_unfinished_map_are_no_fault():
    Path(".map.tif.parts").mkdir()
    Path(".map.tif.parts/piece-0").write_text("")
    assert fuzz.judge(CASE, 1, "Error: no room.", set(), {}) == ""


def test_an_output_that_does_not_open_is_half_written():
    Path("out.json").write_text('{"a":')
    assert fuzz.judge(CASE, 0, "", {"out.json"}, {}) == "half written: out.json"


def test_other_bytes_are_a_fault_only_where_nothing_was_said():
    Path("out.json").write_text("{}")
    sound = {(CASE.command, CASE.outputs): ({"out.json": "another digest"}, "scores")}
    assert fuzz.judge(CASE, 0, "scores", set(), sound) == "other bytes"
    assert fuzz.judge(CASE, 0, "scores\nNote: log.jsonl was empty and is made anew.", set(), sound) == ""
    sound = {(CASE.command, CASE.outputs): (fuzz._digests(("out.json",)), "scores")}
    assert fuzz.judge(CASE, 0, "scores", set(), sound) == ""


def test_damage_is_a_function_of_the_seed_and_changes_the_file():
    seen = set()
    for seed in range(40):
        made = []
        for _ in range(2):
            path = Path("a.bin")
            path.unlink(missing_ok=True) if not path.is_dir() else path.rmdir()
            path.write_bytes(bytes(range(200)))
            said = damage_bytes(path, random.Random(seed))
            made.append((said, path.read_bytes() if path.is_file() else None))
        assert made[0] == made[1]
        seen.add(made[0][0])
        assert made[0][1] != bytes(range(200))
    assert len(seen) > 8, "the kinds of damage"


def test_a_command_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(fuzz, "PROCESSOR_SECONDS", 1)

    def forever() -> int:
        while True:
            pass

    status = fuzz.forked(forever, Path("log.txt"))
    assert fuzz.judge(CASE, status, Path("log.txt").read_text(), set(), {}) == "hang"


def test_ten_cases_one_of_each_kind_show_no_fault():
    command = [sys.executable, fuzz.__file__, "--first", "10", "--cases", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["kinds"] == dict.fromkeys(fuzz_cases.KINDS, 1)
