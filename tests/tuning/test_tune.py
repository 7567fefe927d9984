import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from safetensors.torch import save_file
from small_run import small_config, write_scenes

from pixelwise.cli import commands
from pixelwise.config import Config, load_config
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.evaluation.compare import compare
from pixelwise.hub.licences import Origin, records
from pixelwise.models import create
from pixelwise.report import write_report
from pixelwise.runs.model_card import ORIGINS_KEY, read_origins
from pixelwise.runs.run_folder import Run
from pixelwise.runs.run_notes import read_notes
from pixelwise.training.train import train
from pixelwise.tuning import tune as job
from pixelwise.tuning.space import Choices, Range, check_space, own_values, read_space
from pixelwise.tuning.study import open_study
from pixelwise.tuning.tune import tune

SPACE = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "augment.rotate": {"low": 0, "high": 90}}


def search_config(folder: Path, *, space=None, tune=None, **train) -> Config:
    if not (folder / "images").exists():
        write_scenes(folder)
    table = small_config(folder, folder / "unused", steps=2, evaluate_every=1, **train).model_dump(exclude_unset=True)
    table.pop("run")
    return Config.model_validate(
        {**table, "tune": {"folder": folder / "search", "space": space or SPACE, "pruner": "none", **(tune or {})}}
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    said = []
    config = search_config(folder, space={**SPACE, "model.options.filters": [[4, 8], [2, 4]]}, tune={"trials": 3})
    return config, tune(config, report=said.append), [each for each in said if isinstance(each, str)]


def test_each_trial_is_a_run_with_its_own_values_that_can_be_reported_and_compared(found):
    _, search, said = found
    assert [trial.state for trial in search.trials] == ["complete"] * 3
    for trial in search.trials:
        config = tomllib.loads((trial.folder / "config.toml").read_text())
        assert config["train"]["learning_rate"] == trial.values["train.learning_rate"]
        assert config["augment"]["rotate"] == trial.values["augment.rotate"]
        assert config["model"]["options"]["filters"] == trial.values["model.options.filters"]
        assert "tune" not in config
        assert trial.score == max(row["mIoU"] for row in Run(trial.folder).log if "mIoU" in row)
        assert not (trial.folder / "last").exists()
    assert "mean IoU" in write_report(search.trials[0].folder).read_text()
    compared = compare([trial.folder for trial in search.trials])
    # What is kept is the best model of a run, so its evaluation has the trial's score.
    for trial, run in zip(search.trials, compared.runs, strict=True):
        assert run.miou.value == pytest.approx(trial.score, abs=1e-9)
    assert sum(text.startswith("Trial") for text in said) == 6


def test_best_toml_is_the_best_trial_and_train_takes_it(found):
    _, search, _ = found
    best = max(search.trials, key=lambda trial: trial.score)
    assert search.best.score == best.score
    config = load_config(search.folder / "best.toml")
    assert config.train.learning_rate == search.best.values["train.learning_rate"]
    assert config.run.folder == Path("runs/best")
    again = config.model_copy(update={"run": config.run.model_copy(update={"folder": search.folder.parent / "again"})})
    run = train(again)
    assert weights_of(search.best.folder) == weights_of(run.folder), "the same configuration gives the same weights"


def weights_of(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def test_the_page_shows_every_trial_and_the_best_values(found):
    _, search, _ = found
    page = (search.folder / "tune.html").read_text()
    assert len(re.findall(r'<circle class="trial', page)) == 3 * 4, "the history and one drawing for each key"
    for trial in search.trials:
        assert f"{trial.score:.3f}" in page
    assert "prefers-color-scheme: dark" in page
    assert "<script" not in page


def test_the_same_call_adds_only_what_is_missing(found):
    config, search, _ = found
    before = {trial.number: weights_of(trial.folder) for trial in search.trials}
    assert len(tune(config).trials) == 3
    journal = search.folder / "study.journal"
    whole = journal.read_bytes()
    # A kill has cut the last line short.
    journal.write_bytes(whole + b'{"op_code":5,"worker')
    more = tune(config, trials=4)
    assert journal.read_bytes().startswith(whole)
    assert len(more.trials) == 4
    assert {number: weights_of(more.trials[number].folder) for number in before} == before
    changed = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 2})})
    with pytest.raises(ConfigError, match=r"\[train\]\.batch_size was 1 and is 2"):
        tune(changed, trials=5)


def test_a_trial_that_fails_is_told_and_does_not_end_the_search(tmp_path, monkeypatch):
    real, calls = job.train, []

    def fails_once(config, **more):
        calls.append(config)
        if len(calls) == 2:
            raise PixelwiseError("The loss is nan at step 1. Lower [train].learning_rate.")
        return real(config, **more)

    monkeypatch.setattr(job, "train", fails_once)
    said = []
    search = tune(search_config(tmp_path, tune={"trials": 3}), report=said.append)
    assert [trial.state for trial in search.trials] == ["complete", "failed", "complete"]
    assert any("Trial 2 failed" in str(text) and "loss is nan" in str(text) for text in said)
    assert "The loss is nan" in (search.folder / "tune.html").read_text()


def test_trials_that_all_fail_alike_end_the_search(tmp_path, monkeypatch):
    def fails(config, **more):
        raise PixelwiseError("The disk is full.")

    monkeypatch.setattr(job, "train", fails)
    with pytest.raises(PixelwiseError, match=r"3 trials in a row .* The disk is full\."):
        tune(search_config(tmp_path, tune={"trials": 9}))


def test_a_bad_trial_is_ended_early_and_counts_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: self.number == 1)
    search = tune(search_config(tmp_path, tune={"trials": 3}))
    assert [trial.state for trial in search.trials] == ["complete", "pruned", "complete"]
    assert search.trials[1].steps == 1
    run = Run(search.trials[1].folder)
    assert [row["step"] for row in run.log] == [1]
    assert search.trials[1].score == run.log[0]["mIoU"]
    # Its run has not failed.
    last = read_notes(run.folder)[-1]
    assert (last.code, last.text) == ("interrupted", "The search ended this trial early, after step 1.")


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_pruners_end_what_lags_behind(tmp_path, pruner):
    config = search_config(tmp_path, tune={"pruner": pruner})
    config = config.model_copy(update={"train": config.train.model_copy(update={"steps": 9})})
    study = open_study(config, read_space(config), tmp_path / "search").optuna_study
    steps = []
    for number in range(18):
        trial = study.ask()
        for step in range(1, 10):
            trial.report(0.9 - 0.04 * number, step)
            if trial.should_prune():
                break
        steps.append(step)
        study.tell(
            trial,
            state=optuna.trial.TrialState.COMPLETE if step == 9 else optuna.trial.TrialState.PRUNED,
            values=[0.9 - 0.04 * number] if step == 9 else None,
        )
    assert steps[0] == 9
    assert (min(steps) < 9) == (pruner != "none")
    # Each trial is worse than all before it; the first four are what others are compared with.
    assert pruner != "median" or (steps[:4] == [9] * 4 and set(steps[4:]) == {2})


WORK = """
import sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
import test_tune, pixelwise.tuning.tune as job
folder, pause = Path(sys.argv[1]), float(sys.argv[2])
def slow(event):
    if not isinstance(event, str):
        print(event.step, flush=True)
        time.sleep(pause)
job.tune(test_tune.search_config(folder, tune={{"trials": 4}}), report=slow)
"""


def started(folder, pause):
    here = Path(__file__).parents[1]
    code = WORK.format(paths=[str(here / "tuning"), str(here / "small")])
    return subprocess.Popen([sys.executable, "-c", code, str(folder), str(pause)], stdout=subprocess.PIPE, text=True)


def test_a_killed_trial_goes_on_and_two_processes_share_a_search(tmp_path):
    config = search_config(tmp_path, tune={"trials": 4})
    first = started(tmp_path, 60)
    assert first.stdout.readline().strip() == "1"
    # The first is in its first trial, alive: another process takes other trials.
    said = []
    search = tune(config, trials=2, report=said.append)
    assert [trial.state for trial in search.trials] == ["running", "complete"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    search = tune(config, report=said.append)
    assert [trial.state for trial in search.trials] == ["complete"] * 4
    assert any(str(text).startswith("Trial 1 of 4 goes on") for text in said)
    assert [row["step"] for row in Run(search.trials[0].folder).log] == [1, 2]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, r"\[tune.space\] says nothing"),
        ({"train.learning_rat": [1e-3]}, r"learning_rat is not a known key\. Did you mean learning_rate"),
        ({"learning_rate": [1e-3]}, r"Did you mean 'train\.learning_rate'"),
        ({"train.learning_rate": {"low": -1, "high": 1}}, r'"train\.learning_rate" = -1.*greater than 0'),
        ({"train.learning_rate": {"low": 1, "high": 0.1}}, "the smaller as low"),
        ({"train.learning_rate": {"low": 1e-4}}, "a list of values, or a range such as"),
        ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, "low is above 0"),
        ({"train.learning_rate": {"low": 1e-4, "high": 1, "logs": True}}, "'logs'"),
        ({"train.learning_rate": 0.1}, "Give a list"),
        ({"train.batch_size": {"low": 4, "high": 16, "step": 0.5}}, "takes whole numbers alone"),
        ({"train.compile": {"low": 0, "high": 1}}, r"Write \[true, false\]"),
        ({"train.learning_rate": {"low": 1e-4, "high": 1e-3, "step": 1}}, "longer than the range"),
        ({"train.class_weights": ["balanced", [1, 2, 3]]}, r"\[1, 2, 3\]: .*has 3 numbers for 2 classes"),
        ({"model.name": ["unet", "segfromer-b0"]}, "Did you mean 'segformer-b0'"),
        ({"model.options.filtres": [[4, 8]]}, "has no option 'filtres'"),
        ({"data.validation": [0.1, 0.2]}, "could not be compared"),
        ({"train.seed": [1, 2]}, "was lucky"),
        ({"run.folder": ["a"]}, "a folder of its own"),
    ],
)
def test_a_space_that_does_not_work_is_said_before_the_first_trial(tmp_path, space, told):
    config = search_config(tmp_path, tune={"space": space})
    with pytest.raises(ConfigError, match=told):
        tune(config)
    assert not (tmp_path / "search").exists()


def test_keys_may_stand_in_tables_and_know_their_type(tmp_path):
    space = {
        "train": {"batch_size": {"low": 1.0, "high": 4.0}, "weight_decay": {"low": 0, "high": 1}},
        "augment.scale": [[0.5, 2.0], [1.0, 1.0]],
        "model.options.filters": [[2, 4]],
    }
    config = search_config(tmp_path, space=space)
    read = read_space(config)
    assert read == (
        Range("train.batch_size", 1, 4, False, None, whole=True),
        Range("train.weight_decay", 0, 1, False, None, whole=False),
        Choices("augment.scale", ([0.5, 2.0], [1.0, 1.0])),
        Choices("model.options.filters", ([2, 4],)),
    )
    check_space(config, read, tmp_path)
    assert own_values(config, read) is None
    assert own_values(config, read[:2]) == {"train.batch_size": 1, "train.weight_decay": 0.01}


def test_the_first_trial_has_the_configurations_own_values(tmp_path):
    config = search_config(tmp_path, space={"train.batch_size": {"low": 1, "high": 4}}, tune={"trials": 1})
    search = tune(config)
    assert search.trials[0].values == {"train.batch_size": config.train.batch_size}
    assert "with your own values" in (search.folder / "tune.html").read_text()


def test_the_command_searches_and_train_ignores_the_table(tmp_path, monkeypatch):
    write_scenes(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        """
[data]
images = "images"
labels = "masks"
classes = ["dark", "bright"]
validation = 0.25
[model]
name = "unet"
options = {filters = [4, 8], batch_norm = false}
weights = "theirs.safetensors"
[train]
steps = 2
batch_size = 1
crop_size = 32
workers = 0
[predict]
tile = 64
overlap = 0
[tune]
trials = 2
[tune.space]
train.learning_rate = {low = 1e-4, high = 1e-2, log = true}
"""
    )
    theirs = create("unet", classes=2, filters=[4, 8], batch_norm=False)
    origin = Origin("theirs", "a hub", "CC-BY-NC-4.0", "no", "", "")
    save_file(theirs.state_dict(), "theirs.safetensors", metadata={ORIGINS_KEY: json.dumps(records([origin]))})
    command = ["tune", "mine.toml", "--no-check", "--accept-licence", "CC-BY-NC-4.0"]
    said = CliRunner().invoke(commands, command, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "pixelwise train runs/mine-tune/best.toml" in said.output
    kept = tomllib.loads(Path("runs/mine-tune/best.toml").read_text())
    assert "tune" not in kept
    assert re.search(r"The best of 2 trials is trial [12]: mIoU 0\.\d{3}\.", said.output)
    assert kept["model"]["accept_licence"] == ["CC-BY-NC-4.0"]
    done = CliRunner().invoke(commands, ["train", *command[1:]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert read_origins(Path("runs/mine")) == (origin,)
    assert json.loads(Path("runs/mine/metrics.json").read_text())["validation"]["calibration"]["pixels"] > 0
