"""Any file of a run may be damaged, emptied, replaced or gone: each command ends in one paragraph, or makes it anew."""

import json
import shutil
import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from small_run import small_config, write_scenes

from pixelwise.errors import ConfigError, PixelwiseError, WeightsError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.predictor import load
from pixelwise.report import write_report
from pixelwise.runs.model_folder import load_model
from pixelwise.runs.run_folder import Run, open_finished_run
from pixelwise.runs.saved_state import EARLIER_STATE, STATE
from pixelwise.training.train import train

DAMAGES = ("flip", "cut", "empty", "noise", "folder", "gone", "doubled", "values", "values")
FILES = (
    f"last/{STATE}",
    f"last/{EARLIER_STATE}",
    "config.toml",
    "log.jsonl",
    "metrics.json",
    "model/model.toml",
    "model/model.safetensors",
    "evaluations/validation.npz",
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """A finished run with all that commands write into it."""
    run = train(small_config(scenes, tmp_path_factory.mktemp("runs") / "run"))
    evaluate(run.folder)
    write_report(run.folder)
    return run.folder


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def damage(path, how, rng):
    data = bytearray(path.read_bytes())
    if how == "flip":
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] ^= 1 << int(rng.integers(8))
    elif how == "cut":
        del data[rng.integers(len(data)) :]
    elif how == "empty":
        data.clear()
    elif how == "noise":
        data[:] = rng.bytes(int(rng.integers(1, 2000)))
    elif how == "doubled":
        data *= 2
    elif how == "values":
        data[:] = other_values(path, data, rng)
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(data)


def other_values(path, data, rng):
    """Put a value of another kind somewhere into TOML or JSON that stays valid, as of a version without checksums."""
    if path.suffix == ".json":
        return json.dumps(replaced(json.loads(data), rng)).encode()
    if path.suffix == ".jsonl":
        return b"".join(json.dumps(replaced(json.loads(line), rng)).encode() + b"\n" for line in data.splitlines())
    if path.suffix == ".toml":
        return tomli_w.dumps(replaced(tomllib.loads(data.decode()), rng)).encode()
    return data[::-1]


def replaced(value, rng):
    others = [7, -1, 1e308, "text", [], {}, [[1, "a"]], {"a": 1}, True, "", 10**30]
    if not isinstance(value, dict | list) or not value:
        return others[rng.integers(len(others))]
    key = rng.choice(list(value)) if isinstance(value, dict) else int(rng.integers(len(value)))
    copy = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.2:
        del copy[key]
    else:
        copy[key] = replaced(value[key], rng)
    return copy


def attempt(call):
    """Return what a command gives, or the mistake it names in one paragraph. Anything else fails the test."""
    try:
        return call()
    except PixelwiseError as problem:
        text = str(problem)
        assert text.strip(), "said nothing"
        assert "\n" not in text.strip()
        assert len(text) < 1500
        return problem


@pytest.mark.parametrize("seed", range(72))
def test_a_damaged_file_of_a_run_ends_in_one_paragraph_or_is_made_anew(scenes, run, seed):
    rng = np.random.default_rng([20, seed])
    path, how = run / FILES[seed % len(FILES)], DAMAGES[seed // len(FILES)]
    damage(path, how, rng)
    image = np.full((64, 64, 3), 100, np.uint8)
    attempt(lambda: load(run, device="cpu").segment(image))
    attempt(lambda: evaluate(run))
    attempt(lambda: write_report(run))
    said = []
    result = attempt(lambda: train(small_config(scenes, run, steps=6), resume=True, report=said.append))
    if isinstance(result, PixelwiseError):
        assert str(run) in str(result)
        return
    # What goes on ends as a whole run, which every command takes.
    assert result.log[-1]["step"] == 6
    load_model(run)
    open_finished_run(run)
    assert not [path for path in run.rglob("*") if "pixelwise" in path.name]


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    return train(small_config(scenes, tmp_path_factory.mktemp("undisturbed") / "run", steps=6))


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "noise", "folder"])
def test_a_damaged_state_gives_way_to_the_one_before_and_ends_the_same(scenes, tmp_path, undisturbed, how):
    run = train(small_config(scenes, tmp_path / "run", steps=6)).folder
    state, said = run / "last" / STATE, []
    if how == "flip":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    else:
        damage(state, how, np.random.default_rng(0))
    resumed = train(small_config(scenes, run, steps=6), resume=True, report=said.append)
    lines = [line for line in said if isinstance(line, str)]
    assert any("is damaged" in line and "of step 4" in line for line in lines), lines
    for name, tensor in resumed.load_last()["model"].items():
        assert torch.equal(tensor, undisturbed.load_last()["model"][name])
    assert [row["step"] for row in resumed.log] == [1, 2, 3, 4, 5, 6]


def test_both_states_damaged_are_one_paragraph_and_nothing_is_overwritten(scenes, run):
    for name in (STATE, EARLIER_STATE):
        (run / "last" / name).write_bytes(b"")
    model = (run / "model/model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"state.pt is damaged .* and .*earlier.pt is damaged .*--run"):
        train(small_config(scenes, run), resume=True)
    assert (run / "model/model.safetensors").read_bytes() == model


def test_a_flipped_bit_of_a_weight_is_noticed_by_all_that_read_the_model(run):
    path = run / "model/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"not the file that .*model.toml was written for"):
        load(run, device="cpu")


def test_a_changed_number_of_the_card_is_noticed_unless_its_checksum_is_deleted(run):
    path = run / "model/model.toml"
    first, text = path.read_text().split("\n", 1)
    assert first.startswith("# SHA-256")
    text = text.replace("tile = 64", "tile = 96")
    path.write_text(f"{first}\n{text}")
    with pytest.raises(WeightsError, match="delete its first line"):
        load(run, device="cpu")
    path.write_text(text)
    assert load(run, device="cpu").card.tile == 96


def test_a_damaged_best_model_is_made_anew_when_the_run_goes_on(scenes, run):
    (run / "model/model.safetensors").write_bytes(b"")
    said = []
    train(small_config(scenes, run), resume=True, report=said.append)
    assert any("The model of step 4 takes its place" in line for line in said if isinstance(line, str))
    load_model(run)


def test_rows_that_were_lost_are_counted(scenes, run):
    rows = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([rows[0], "garbage", '{"step": "three"}', rows[3]]) + "\n")
    said = []
    train(small_config(scenes, run), resume=True, report=said.append)
    assert any("2 of the 4 rows" in line for line in said if isinstance(line, str))


def test_the_row_of_the_newest_state_survives_a_kill_before_it_was_written(scenes, run):
    rows = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join(rows[:3]) + "\n")
    train(small_config(scenes, run), resume=True)
    assert (run / "log.jsonl").read_text().splitlines() == rows


def test_a_run_of_an_earlier_version_goes_on(scenes, tmp_path, undisturbed):
    def stop(event):
        if getattr(event, "step", 0) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_config(scenes, tmp_path / "run", steps=6), report=stop)
    run = Run(tmp_path / "run")
    state = run.load_last()
    old = {key: state[key] for key in ("model", "average", "optimizer", "step", "best", "seconds")}
    shutil.rmtree(run.folder / "last")
    # Killed between the two renames of a folder that was replaced, as that version did it.
    (run.folder / "last.old").mkdir()
    torch.save(old, run.folder / "last.old/state.pt")
    for file in (run.folder / "config.toml", run.folder / "model/model.toml"):
        lines = file.read_text().splitlines(keepends=True)[1:]
        file.write_text("".join(line for line in lines if not line.startswith("weights_sha256")))
    resumed = train(small_config(scenes, tmp_path / "run", steps=6), resume=True)
    for name, tensor in resumed.load_last()["model"].items():
        assert torch.equal(tensor, undisturbed.load_last()["model"][name])
