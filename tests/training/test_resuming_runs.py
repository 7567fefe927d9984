"""How a run begins, goes on, and is kept from other processes."""

import errno
import os
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import rasterio
import small_run
import torch
from safetensors import SafetensorError
from small_network import predictor_of
from small_run import small_config, write_scenes

import pixelwise as pw
from pixelwise import files
from pixelwise.errors import ConfigError, NotEnoughMemoryError, PixelwiseError, WeightsError, out_of_memory
from pixelwise.files import locked_folder
from pixelwise.predictor import load
from pixelwise.runs.run_folder import Run
from pixelwise.training import state
from pixelwise.training.checkpointing import smaller_step, training_bytes
from pixelwise.training.train import train


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes")


def stopped(config, step):
    """Begin a run that ends after a step, as a kill would end it."""

    def stop(event):
        if getattr(event, "step", 0) == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=stop)


def sentences(config, **options):
    said = []
    run = train(config, report=said.append, **options)
    return run, [line for line in said if isinstance(line, str)]


def weights(folder):
    return (folder / "model/model.safetensors").read_bytes()


def test_resuming_a_run_that_is_not_there_begins_none_and_names_the_one_that_is_meant(scenes, tmp_path):
    train(small_config(scenes, tmp_path / "runs/fields"))
    with pytest.raises(ConfigError, match=r"no run in .*feilds to go on with. Did you mean .*fields\?"):
        train(small_config(scenes, tmp_path / "runs/feilds"), resume=True)
    assert not (tmp_path / "runs/feilds").exists()


@pytest.mark.parametrize(
    "left",
    [
        [],
        ["lock", "lock.holder"],
        ["lock", ".config.0123456789abcdef.pixelwise.toml"],
        [".config.4711.toml"],
    ],
    ids=["an empty folder", "its lock", "half a configuration", "half a configuration of an earlier version"],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_was_killed_before_it_was_one_is_begun(scenes, tmp_path, left, resume):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).touch()
    train(small_config(scenes, tmp_path / "run"), resume=resume)
    assert not list((tmp_path / "run").glob(".config.*.pixelwise.toml"))


def test_a_run_that_kept_nothing_yet_begins_again_and_says_so(scenes, tmp_path):
    stopped(small_config(scenes, tmp_path / "run"), 1)
    run, said = sentences(small_config(scenes, tmp_path / "run"), resume=True)
    assert "This run has saved no state yet, so it begins again." in said
    assert weights(run.folder) == weights(train(small_config(scenes, tmp_path / "whole")).folder)


def test_settings_that_change_no_weight_may_change(scenes, tmp_path):
    train(small_config(scenes, tmp_path / "run", steps=2))
    run = train(small_config(scenes, tmp_path / "run", steps=4, activation_checkpointing=True), resume=True)
    assert run.log[-1]["step"] == 4


def test_a_missing_configuration_is_taken_from_the_state(scenes, tmp_path):
    stopped(small_config(scenes, tmp_path / "run"), 2)
    (tmp_path / "run/config.toml").unlink()
    with pytest.raises(ConfigError, match="holds a run already"):
        train(small_config(scenes, tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"other settings: \[train\].batch_size was 1 and is 2\."):
        train(small_config(scenes, tmp_path / "run", batch_size=2), resume=True)
    train(small_config(scenes, tmp_path / "run"), resume=True)
    assert tomllib.loads((tmp_path / "run/config.toml").read_text())["train"]["batch_size"] == 1


def test_two_processes_never_train_in_one_folder(scenes, tmp_path):
    config = small_config(scenes, tmp_path / "run")
    (tmp_path / "run").mkdir()
    with (
        locked_folder(tmp_path / "run", work="is training", instead="another"),
        pytest.raises(ConfigError, match=rf"Another process is training in .*process {os.getpid()}"),
    ):
        train(config)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["lock", "lock.holder"]


def test_a_run_can_be_made_longer_and_its_data_may_have_moved(scenes, tmp_path):
    train(small_config(scenes, tmp_path / "run", steps=4))
    scenes.rename(tmp_path / "elsewhere")
    longer = small_config(tmp_path / "elsewhere", tmp_path / "run", steps=6, workers=1, evaluate_every=1)
    run, said = sentences(longer, resume=True)
    assert [row["step"] for row in run.log] == [1, 2, 3, 4, 5, 6]
    assert any("Going on from step 4 of 6." in line for line in said)
    assert any("[train].steps was 4 and is 6 (the learning rate follows the new length" in line for line in said)
    assert not any("changed" in line for line in said)
    with pytest.raises(ConfigError, match=r"made 6 steps, and \[train\].steps is 4"):
        train(small_config(tmp_path / "elsewhere", tmp_path / "run"), resume=True)


@pytest.mark.parametrize("what", ["pixels", "labels", "gone", "new"])
def test_resuming_says_which_data_changed_and_keeps_the_statistics_of_the_beginning(scenes, tmp_path, what):
    config = small_config(scenes, tmp_path / "run")
    stopped(config, 2)
    card = tomllib.loads((tmp_path / "run/model/model.toml").read_text())
    names = {"pixels": ["images"], "labels": ["masks"]}.get(what, ["images", "masks"])
    for name in names:
        for path in sorted((scenes / name).iterdir())[:2]:
            if what == "gone":
                path.unlink()
            elif what == "new":
                (path.parent / f"new{path.name}").write_bytes(path.read_bytes())
            else:
                with rasterio.open(path, "r+") as file:
                    file.write(255 - file.read() if what == "pixels" else 1 - file.read())
    run, said = sentences(config, resume=True)
    changes = [line for line in said if line.startswith("The data changed since the run began")]
    # Images that came later are in no list of the run, so they are not used.
    wanted = {"pixels": "with other pixels", "labels": "with other labels", "gone": "gone"}
    assert len(changes) == (what in wanted)
    assert all(wanted[what] in change for change in changes)
    after = tomllib.loads((run.folder / "model/model.toml").read_text())
    assert (after["mean"], after["std"]) == (card["mean"], card["std"])


def test_data_that_only_was_written_again_has_not_changed(scenes, tmp_path):
    config = small_config(scenes, tmp_path / "run")
    stopped(config, 2)
    for path in scenes.rglob("*.tif"):
        with rasterio.open(path) as file:
            values, profile = file.read(), file.profile
        with rasterio.open(path, "w", **(profile | {"compress": "deflate"})) as file:
            file.write(values)
    _, said = sentences(config, resume=True)
    assert not any("changed" in line for line in said)


def test_checkpoints_stay_every_so_many_steps_and_are_models(scenes, tmp_path):
    run = train(small_config(scenes, tmp_path / "run", keep_every=2, steps=5))
    kept = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert kept == ["step-000002", "step-000004"]
    image = np.full((64, 64, 3), 90, np.uint8)
    assert load(run.checkpoint(2), device="cpu").segment(image).labels.shape == (64, 64)
    assert weights_of(run.checkpoint(2)) != weights_of(run.checkpoint(4))
    stopped(small_config(scenes, tmp_path / "other", keep_every=2, steps=5), 3)
    other = train(small_config(scenes, tmp_path / "other", keep_every=2, steps=5), resume=True)
    assert [weights_of(other.checkpoint(step)) == weights_of(run.checkpoint(step)) for step in (2, 4)] == [True, True]


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_a_killed_run_ends_with_the_same_bits(scenes, tmp_path, precision):
    settings = {"precision": precision, "steps": 6}
    plain = train(small_config(scenes, tmp_path / "plain", steps=6))
    whole = train(small_config(scenes, tmp_path / "whole", **settings))
    assert all(np.isfinite(row["loss"]) for row in whole.log)
    assert weights(whole.folder) != weights(plain.folder)
    np.testing.assert_allclose([row["loss"] for row in whole.log], [row["loss"] for row in plain.log], rtol=0.05)
    assert bool(whole.load_last()["scaler"]) == (precision == "fp16")
    stopped(small_config(scenes, tmp_path / "run", **settings), 3)
    run = train(small_config(scenes, tmp_path / "run", **settings), resume=True)
    assert weights(run.folder) == weights(whole.folder)
    assert run.load_last()["scaler"] == whole.load_last()["scaler"]


def test_a_step_whose_float16_gradient_overflows_is_left_out_and_the_loss_scaled_less(scenes, tmp_path, monkeypatch):
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *at, **options: real(*at, init_scale=2.0**60, **options))
    run = train(small_config(scenes, tmp_path / "run", precision="fp16", steps=2, average=0.0))
    state = run.load_last()
    assert state["scaler"]["scale"] == 2.0**58
    torch.manual_seed(0)
    fresh = pw.create("unet", classes=2, bands=3, filters=[4, 8], batch_norm=False).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in state["model"].items())


def test_weights_of_another_network_are_refused_and_of_other_classes_and_bands_taken(scenes, tmp_path):
    def fine_tuned(name, **options):
        pw.save_weights(pw.create(name, **options), tmp_path / "w.safetensors")
        model = {"name": "segformer-b0", "weights": tmp_path / "w.safetensors"}
        return small_config(scenes, tmp_path / name / str(options["classes"]), model=model, steps=1, crop_size=64)

    for name in ("segformer-b1", "segnext-t"):
        config = fine_tuned(name, classes=2)
        with pytest.raises(WeightsError, match=r"of the \d+ tensors of segformer-b0's encoder.*of another network"):
            train(config)
        assert not (config.run.folder / "config.toml").exists()
    _, said = sentences(fine_tuned("segformer-b0", classes=7, bands=12))
    assert any("the first 3 bands of the weights are kept" in line for line in said)


NO_MEMORY = (
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_training_out_of_memory_says_what_would_fit(scenes, tmp_path, monkeypatch, error):
    def failing(*arguments):
        raise error

    monkeypatch.setattr(state, "_loss", failing)
    with pytest.raises(
        NotEnoughMemoryError, match=r"\[train\].batch_size = 4 crops .* Try \[train\].batch_size = 2,"
    ) as caught:
        train(small_config(scenes, tmp_path / "run", batch_size=4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_prediction_out_of_memory_names_a_smaller_tile(monkeypatch, error):
    predictor = predictor_of()

    decode = predictor.model.decode

    def failing(image):
        if image.shape[-1] < 128:
            return decode(image)
        raise error

    monkeypatch.setattr(predictor.model, "decode", failing)
    with pytest.raises(NotEnoughMemoryError, match="--tile 64"):
        predictor.segment(np.zeros((128, 128, 3), np.uint8), tile=128)


def test_other_errors_are_none_of_memory():
    assert not any(map(out_of_memory, (RuntimeError("shape mismatch"), OSError(28, "No space left"), ValueError("x"))))


def test_what_is_advised_fits_by_the_same_estimate_and_is_smaller():
    model = pw.create("unet", classes=2, filters=[8, 16])
    need = training_bytes(model, 8, 256)
    assert "[train].batch_size = 4," in smaller_step(model, 8, 256, room=10 * need)
    assert "[train].batch_size = 2," in smaller_step(model, 8, 256, room=int(training_bytes(model, 2, 256) / 0.79))
    assert "[train].batch_size = 1 and [train].crop_size = 128," in smaller_step(model, 8, 256, room=need // 25)
    assert "[train].batch_size = 1 and [train].crop_size = 128," in smaller_step(model, 1, 256, room=None)


FULL = """
import resource, signal, sys
from pathlib import Path
import pixelwise as pw
sys.path.insert(0, {tests!r})
from small_run import small_config
from pixelwise.errors import PixelwiseError
# A file beyond the limit fails as one on a full disk does.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
config = small_config(Path({scenes!r}), Path({run!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    pw.train(config)
except PixelwiseError as problem:
    print(problem)
    sys.exit(1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
@pytest.mark.parametrize(("limit", "file"), [(700, "config.toml"), (4000, "state.pt"), (20000, "state.pt")])
def test_a_disk_that_is_full_ends_in_one_paragraph_with_nothing_half_written(scenes, tmp_path, limit, file):
    whole = train(small_config(scenes, tmp_path / "whole"))
    size = next(whole.folder.rglob(file)).stat().st_size
    assert size > limit
    script = FULL.format(
        tests=os.path.dirname(small_run.__file__), scenes=str(scenes), run=str(tmp_path / "run"), limit=limit
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("\n") == 1
    assert file in done.stdout
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [name for name in left if "pixelwise" in name or name == file]
    run = train(small_config(scenes, tmp_path / "run"), resume=True)
    assert weights(run.folder) == weights(whole.folder)


def better_each_time(monkeypatch):
    """Let each evaluation have the best score so far, so that each model is saved."""
    evaluate = state.Training.evaluate
    monkeypatch.setattr(state.Training, "evaluate", lambda training: {**evaluate(training), "mIoU": training.step / 10})


def filled_up(monkeypatch, file, when):
    """Let the disk be full when a file is written, or when it is flushed: its beginning is there then."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half_written(content, path, *_, **__):
        with open(path, "wb") as out:
            out.write(b"half")
        if file == "state.pt":
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        raise SafetensorError(f"Error while serializing: I/O error: {full.strerror} (os error {full.errno})")

    def not_flushed(path):
        if path.suffix == os.path.splitext(file)[1]:
            raise full

    if when == "flushed":
        monkeypatch.setattr(files, "flush_file", not_flushed)
    elif file == "state.pt":
        monkeypatch.setattr(torch, "save", half_written)
    else:
        monkeypatch.setattr("pixelwise.weights.files.save_file", half_written)


@pytest.mark.parametrize("when", ["written", "flushed"])
@pytest.mark.parametrize(("file", "kept"), [("state.pt", 2), ("model.safetensors", 4)])
def test_a_disk_that_fills_up_later_loses_neither_the_model_nor_the_state(
    scenes, tmp_path, monkeypatch, file, kept, when
):
    better_each_time(monkeypatch)
    whole, config = train(small_config(scenes, tmp_path / "whole")), small_config(scenes, tmp_path / "run")
    stopped(config, 3)
    before = weights(tmp_path / "run")
    with monkeypatch.context() as patched:
        filled_up(patched, file, when)
        with pytest.raises(ConfigError, match=file.partition(".")[0]):
            train(config, resume=True)
    assert weights(tmp_path / "run") == before
    assert Run(tmp_path / "run").load_last()["step"] == kept
    assert not [path for path in (tmp_path / "run").rglob("*") if ".pixelwise" in path.name]
    run = train(config, resume=True)
    assert weights(run.folder) == weights(whole.folder) != before


def test_a_foreign_state_is_no_state(scenes, tmp_path):
    stopped(small_config(scenes, tmp_path / "run"), 2)
    torch.save({"model": {}, "epoch": 7}, tmp_path / "run/last/state.pt")
    with pytest.raises(ConfigError, match="not the state of a run: average is missing"):
        train(small_config(scenes, tmp_path / "run"), resume=True)


def test_a_state_of_another_run_is_named(scenes, tmp_path):
    train(small_config(scenes, tmp_path / "run", steps=1))
    train(small_config(scenes, tmp_path / "other", steps=1, seed=1))
    shutil.copy(tmp_path / "other/last/state.pt", tmp_path / "run/last/state.pt")
    with pytest.raises(ConfigError, match=r"last holds the state of another run: \[train\].seed was 1 and is 0\."):
        train(small_config(scenes, tmp_path / "run", steps=1), resume=True)


def test_a_run_goes_on_where_the_loss_must_be_scaled_and_says_the_precision(scenes, tmp_path):
    # As from a CPU to an old GPU, with precision = "auto".
    settings = {"precision": "fp16", "steps": 1}
    run = train(small_config(scenes, tmp_path / "run", **settings))
    kept = run.load_last()
    run.save_last(kept | {"scaler": {}, "made_with": kept["made_with"] | {"precision": "float32"}})
    _, said = sentences(small_config(scenes, tmp_path / "run", **settings), resume=True)
    assert any("precision was float32 and is float16" in line for line in said)


def test_a_state_of_another_network_is_named(scenes, tmp_path):
    for name, filters in (("run", [4, 8]), ("other", [8, 16])):
        model = {"name": "unet", "options": {"filters": filters, "batch_norm": False}}
        stopped(small_config(scenes, tmp_path / name, model=model), 2)
    state = torch.load(tmp_path / "other/last/state.pt", weights_only=True)
    del state["architecture"], state["config"]
    torch.save(state, tmp_path / "run/last/state.pt")
    with pytest.raises(PixelwiseError, match="state of another network"):
        train(small_config(scenes, tmp_path / "run"), resume=True)
