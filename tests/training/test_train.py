import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from small_network import small_network

from pixelwise.config import Config
from pixelwise.data.sampler import Sampler
from pixelwise.data.split import open_parts
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss
from pixelwise.runs.model_folder import load_model
from pixelwise.runs.run_folder import Run, open_finished_run
from pixelwise.training import data_wait, state
from pixelwise.training import train as job
from pixelwise.training.data_wait import Waiting
from pixelwise.training.train import Progress, train

NARROW = {"widths": [8, 16, 20, 32], "depths": [1, 1, 1, 1], "decoder_channels": 16}
"""Of a SegFormer with all its parts: dropped branches, dropout, blocks that can be computed again."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four images of noise, of which bright pixels are one class and dark ones the other."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int))
        image = (mask * 100 + rng.integers(0, 100, (3, 64, 64))).astype(np.uint8)
        for kind, bands in (("images", image), ("masks", mask[None].astype(np.uint8))):
            shape = {"count": len(bands), "height": 64, "width": 64, "dtype": "uint8"}
            place = Affine.translation(1, 1)
            with rasterio.open(folder / kind / f"{i}.tif", "w", driver="GTiff", transform=place, **shape) as out:
                out.write(bands)
    return folder


def config(scenes, run, **settings):
    settings = {
        "steps": 6,
        "batch_size": 2,
        "crop_size": 64,
        "evaluate_every": 2,
        "workers": 0,
        "device": "cpu",
    } | settings
    data = {"images": scenes / "images", "labels": scenes / "masks", "classes": ["dark", "bright"], "validation": 0.25}
    return Config.model_validate(
        {
            "data": data,
            "model": {"name": "segformer-b0", "options": NARROW},
            "train": {"dice": 0.5, "ema_decay": 0.9} | settings,
            "predict": {"tile": 64, "overlap": 0},
            "run": {"folder": run},
        }
    )


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    return train(config(scenes, tmp_path_factory.mktemp("runs") / "whole"))


def weights(run):
    return (run.folder / "model" / "model.safetensors").read_bytes()


def without_time(rows):
    return [{key: value for key, value in row.items() if key not in ("seconds", "waited")} for row in rows]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(scenes, tmp_path, undisturbed, step):
    def stop(progress):
        if isinstance(progress, Progress) and progress.step == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(config(scenes, tmp_path / "run"), report=stop)
    run = train(config(scenes, tmp_path / "run"), resume=True)
    assert weights(run) == weights(undisturbed)
    found, expected = run.load_last(), undisturbed.load_last()
    for key in ("model", "average"):
        for name, tensor in found[key].items():
            assert torch.equal(tensor, expected[key][name]), name
    assert without_time(run.log) == without_time(undisturbed.log)


def test_another_number_of_workers_gives_the_same_bits(scenes, tmp_path, undisturbed):
    run = train(config(scenes, tmp_path / "run", workers=3))
    assert weights(run) == weights(undisturbed)
    assert without_time(run.log) == without_time(undisturbed.log)


def test_a_training_leaves_no_thread_behind(scenes, tmp_path):
    before = threading.active_count()
    train(config(scenes, tmp_path / "run", steps=1, workers=2))
    assert threading.active_count() <= before


def test_another_seed_gives_other_weights(scenes, tmp_path, undisturbed):
    assert weights(train(config(scenes, tmp_path / "run", seed=1))) != weights(undisturbed)


def test_the_log_has_a_row_per_step_and_scores_at_the_evaluations(undisturbed):
    rows = undisturbed.log
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "mIoU" in row] == [2, 4, 6]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]


def test_the_card_keeps_the_statistics_of_the_training_pixels(scenes, undisturbed):
    _, card, _ = load_model(undisturbed.folder)
    _, kept = open_finished_run(undisturbed.folder)
    _, training, validation = open_parts(kept)
    assert (len(training), len(validation)) == (3, 1)
    pixels = []
    for scene in training:
        with rasterio.open(scene.info.path) as source:
            pixels.append(source.read().reshape(3, -1).astype(np.float64))
    pixels = np.concatenate(pixels, axis=1)
    np.testing.assert_allclose(card.mean, pixels.mean(axis=1))
    np.testing.assert_allclose(card.std, pixels.std(axis=1))
    assert card.classes.names == ("dark", "bright")
    assert (card.bands, card.dtype, card.tile, card.overlap) == ((1, 2, 3), "uint8", 64, 0)


def test_a_folder_that_holds_a_run_is_not_overwritten(scenes, undisturbed):
    before = weights(undisturbed)
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        train(config(scenes, undisturbed.folder))
    assert weights(undisturbed) == before


def test_a_folder_that_holds_something_else_is_left_alone(scenes, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        train(config(scenes, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_resuming_with_other_settings_names_what_changed(scenes, undisturbed):
    with pytest.raises(ConfigError, match=r"other settings: \[train\]\.batch_size was 2 and is 3\."):
        train(config(scenes, undisturbed.folder, batch_size=3), resume=True)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"class_weights": [1.0, 2.0, 3.0]}, "3 numbers for 2 classes"),
        ({"learning_rate": 1e30, "evaluate_every": 6}, r"learning_rate \(it is 1e\+30\) .* batch is in \S+\.$"),
    ],
    ids=["found before the first step", "found in a step"],
)
def test_a_run_that_ended_by_a_mistake_begins_again_once_it_is_fixed(scenes, tmp_path, undisturbed, mistake, message):
    with pytest.raises(PixelwiseError, match=message):
        train(config(scenes, tmp_path / "run", **mistake))
    run = train(config(scenes, tmp_path / "run"), resume=(tmp_path / "run" / "config.toml").exists())
    assert weights(run) == weights(undisturbed)


def test_resuming_a_finished_run_changes_nothing(scenes, undisturbed):
    before = weights(undisturbed)
    run = train(config(scenes, undisturbed.folder), resume=True)
    assert weights(run) == before
    assert len(run.log) == 6


def test_a_last_row_of_the_log_that_a_kill_cut_short_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    run = Run(tmp_path)
    assert run.log == [{"step": 1}, {"step": 2}]
    run.rewind_log(1)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'


def test_class_weights_of_another_length_are_an_error(scenes, tmp_path):
    with pytest.raises(ConfigError, match="3 numbers for 2 classes"):
        train(config(scenes, tmp_path / "run", class_weights=[1.0, 2.0, 3.0]))


def test_auxiliary_outputs_and_padding_enter_the_loss_as_the_network_says(scenes, tmp_path):
    settings = config(scenes, tmp_path / "run", rmi=0.5, aux_loss="binary_cross_entropy")
    network = small_network(classes=2, stride=8).requires_grad_(True)
    network.multiple, network.align_corners, network.aux_weights = 24, True, {"early": 0.4}
    decode = network.decoder.forward
    network.decoder.forward = lambda maps: replace(decode(maps), aux={"early": maps[0].flip(1), "unused": maps[0]})
    image, mask = torch.randn(2, 3, 64, 64), torch.randint(IGNORE, 2, (2, 64, 64))
    loss, found = state._loss(network, network.decode, image, mask, settings, None)
    logits = network.decode(image).logits
    assert torch.equal(found, logits)
    assert logits.shape[-2:] == (9, 9), "72 pixels"
    padded = torch.full((2, 72, 72), IGNORE)
    padded[:, :64, :64] = mask
    main = segmentation_loss(logits, padded, LossConfig(dice=0.5, rmi=0.5), align_corners=True)
    binary = LossConfig(cross_entropy=0.0, binary_cross_entropy=1.0)
    aux = segmentation_loss(logits.flip(1), padded, binary, align_corners=True)
    torch.testing.assert_close(loss, main + 0.4 * aux)


def test_a_device_that_is_not_there_is_an_error(scenes, tmp_path):
    with pytest.raises(ConfigError, match="device"):
        train(config(scenes, tmp_path / "run", device="cuda:77"))
    with pytest.raises(ConfigError, match=r"'banana' does not work .* Use 'auto' or one of cpu, cuda"):
        train(config(scenes, tmp_path / "run", device="banana"))


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_do(scenes, tmp_path, monkeypatch):
    def broken(decoded, mask, losses, **options):
        return decoded.logits.sum() * float("nan")

    monkeypatch.setattr(state, "total_loss", broken)
    with pytest.raises(PixelwiseError, match=r"loss is nan at step 1.*learning_rate"):
        train(config(scenes, tmp_path / "run"))


def test_checkpointing_changes_no_bit_of_the_run(scenes, tmp_path, undisturbed):
    run = train(config(scenes, tmp_path / "run", activation_checkpointing=True))
    assert weights(run) == weights(undisturbed)
    assert without_time(run.log) == without_time(undisturbed.log)


def test_an_encoder_without_blocks_is_trained_as_it_is_and_the_user_is_told(scenes, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(state, "recompute_blocks", lambda encoder: 0)
    train(config(scenes, tmp_path / "run", activation_checkpointing=True, steps=1), report=said.append)
    assert any("[train].activation_checkpointing changes nothing" in line for line in said if isinstance(line, str))


def test_slow_reading_is_told_once_with_the_fix(scenes, tmp_path, monkeypatch):
    said, batch = [], Sampler.batch

    def slow(sampler, *which):
        time.sleep(0.4)
        return batch(sampler, *which)

    monkeypatch.setattr(Sampler, "batch", slow)
    monkeypatch.setattr(job, "Waiting", lambda: Waiting(2))
    monkeypatch.setattr(data_wait, "SHARE", 0.01)
    run = train(config(scenes, tmp_path / "run"), report=said.append)
    hints = [line for line in said if isinstance(line, str) and "waiting for crops" in line]
    assert len(hints) == 1
    assert "[train].workers (it is 0" in hints[0]
    assert run.log[0]["waited"] == 0
    assert all(row["waited"] >= 0.4 for row in run.log[1:])


COMPILED = """
import copy
import torch
from torch._inductor import metrics
import pixelwise as pw
from pixelwise.losses import segmentation_loss

torch.manual_seed(0)
plain = pw.create("unet", classes=3, filters=[4, 8], batch_norm=False, upsampling="transposed").train()
compiled = copy.deepcopy(plain)
image, mask = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
segmentation_loss(plain.decode(image).logits, mask).backward()
decode = torch.compile(compiled.decode)
metrics.reset()
segmentation_loss(decode(image).logits, mask).backward()
print(metrics.generated_kernel_count)
pairs = zip(plain.parameters(), compiled.parameters(), strict=True)
print(max(float((b.grad - a.grad).abs().max() / a.grad.abs().max()) for a, b in pairs))
"""


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler to compile with")
def test_a_compiled_network_has_the_plain_ones_gradients(tmp_path):
    # In a process of its own, since the checks of shapes in tests cannot be compiled.
    place = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", COMPILED], env=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels, difference = done.stdout.split()
    assert int(kernels) > 0
    assert float(difference) <= 1e-4


def test_without_a_compiler_the_user_is_told_before_any_run_is_begun(scenes, tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    torch._dynamo.reset()
    with pytest.raises(ConfigError, match=r"\[train\].compile = true needs a compiler.*compile = false"):
        train(config(scenes, tmp_path / "run", compile=True))
    assert not (tmp_path / "run" / "config.toml").exists()
