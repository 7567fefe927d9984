"""Two processes that train one network, against one process with the whole batch."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import together
import tomli_w
import torch
from safetensors.torch import load_file
from small_run import small_config, write_scenes
from torch import nn

from pixelwise import processes
from pixelwise.config import Config
from pixelwise.errors import ConfigError
from pixelwise.models.layers import DropPath
from pixelwise.runs.run_folder import Run
from pixelwise.training import distributed
from pixelwise.training.distributed import even_shares, require_shares
from pixelwise.training.train import train
from pixelwise.training.whole_batch import of_whole_batch

NETWORK = {"name": "unet", "options": {"filters": [4, 8]}}
"""Of convolutions and batch norms."""
LIGHT = {
    "batch_size": 4,
    "steps": 6,
    "evaluate_every": 3,
    "warmup": 0,
    "poly_power": 0.0,
    "dice": 0.5,
    "precision": "fp32",
    "activation_checkpointing": False,
}


def environment(**more: object) -> dict[str, str]:
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        **{key: str(value) for key, value in more.items()},
    }


def config(scenes: Path, run: Path, tables: dict | None = None, **train: object) -> Config:
    made = small_config(scenes, run, model=NETWORK, **{**LIGHT, **train}).model_dump(mode="json", exclude_none=True)
    return Config.model_validate({**made, **(tables or {})})


def in_parts(scenes: Path, run: Path, accumulate: int, dice: float) -> Config:
    """A network without batch norms, whose statistics depend on the parts."""
    light = {**LIGHT, "steps": 3, "accumulate": accumulate, "dice": dice}
    return small_config(scenes, run, **light)


MIXED = {"augment": {"classmix": 0.5}, "sampling": {"hard": 0.5}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), count=6)


@pytest.fixture(scope="module")
def of_one(scenes, tmp_path_factory):
    """The runs of one process, by what they show."""
    folder = tmp_path_factory.mktemp("one")
    return {
        "ddp": train(config(scenes, folder / "ddp", MIXED)),
        "fsdp": train(config(scenes, folder / "fsdp")),
        "begun": train(config(scenes, folder / "begun", steps=3)),
        "of pixels": train(in_parts(scenes, folder / "of pixels", 1, dice=0.0)),
        "of regions": train(in_parts(scenes, folder / "of regions", 1, dice=0.5)),
    }


@pytest.fixture(scope="module")
def of_two(scenes, of_one, tmp_path_factory):
    """What both processes found, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("two")
    todo = [
        (config(scenes, folder / "ddp", MIXED), False),
        (config(scenes, folder / "fsdp", parallel="fsdp"), False),
        # Goes on with what one process has begun, and leaves a run to one process.
        (config(scenes, of_one["begun"].folder, parallel="fsdp"), True),
        (config(scenes, folder / "left", steps=3, parallel="fsdp"), False),
        (in_parts(scenes, folder / "of pixels", 2, dice=0.0), False),
        (in_parts(scenes, folder / "of regions", 2, dice=0.5), False),
    ]
    cases = [{"config": each.model_dump(mode="json", exclude_none=True), "resume": resume} for each, resume in todo]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", together.__file__]
    done = subprocess.run(
        [*command, str(folder), json.dumps(cases)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)], folder


@pytest.fixture(scope="module")
def whole_losses():
    return together.of_losses(*together.batch())


@pytest.mark.parametrize("name", [*together.LOSSES, "distillation"])
def test_losses_and_gradients_are_those_of_the_whole_batch(of_two, whole_losses, name):
    loss, gradient = whole_losses[name]
    found = [rank["losses"][name] for rank in of_two[0]]
    assert loss != 0
    torch.testing.assert_close(sum(own for own, _ in found) / 2, loss, rtol=1e-12, atol=0)
    # Averaging over the processes halves what each of them found.
    torch.testing.assert_close(torch.cat([own for _, own in found]) / 2, gradient, rtol=1e-10, atol=1e-14)


def test_a_norm_takes_its_statistics_over_the_whole_batch(of_two):
    expected = together.normed(*together.norm_and_images())
    found = [rank["norm"] for rank in of_two[0]]
    for name in ("output", "by image"):
        torch.testing.assert_close(torch.cat([own[name] for own in found]), expected[name], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sum(own["by weight"] for own in found), expected["by weight"], rtol=1e-10, atol=1e-10)
    for own in found:
        for name in ("mean", "variance"):
            torch.testing.assert_close(own[name], expected[name], rtol=1e-10, atol=1e-12)


class Activated(nn.BatchNorm2d):
    """A norm that ends with an activation, as timm's do."""

    def __init__(self, channels, momentum):
        super().__init__(channels, momentum=momentum, dtype=torch.float64)
        self.act = nn.ReLU()

    def forward(self, image):
        return self.act(super().forward(image))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_shared_norm_does_what_the_one_that_it_replaces_did(momentum):
    norm, other = Activated(3, momentum), Activated(3, momentum)
    _, images = together.norm_and_images()
    shared = of_whole_batch(other)
    assert shared is not None
    assert shared.state_dict().keys() == norm.state_dict().keys()
    for _ in range(2):
        torch.testing.assert_close(shared(images), norm(images), rtol=1e-10, atol=1e-10)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(shared.eval()(images), norm.eval()(images), rtol=1e-10, atol=1e-10)


def test_what_is_left_out_at_random_is_drawn_for_the_whole_batch(of_two):
    _, images = together.norm_and_images()
    expected = together.dropped(images, DropPath(0.5), nn.Dropout2d(0.5))
    assert torch.equal(torch.cat([rank["dropped"] for rank in of_two[0]]), expected)


def test_processes_exchange_tensors_and_objects(of_two):
    for rank, found in enumerate(each["exchanged"] for each in of_two[0]):
        assert found["world"] == 2
        assert found["gathered"].tolist() == [[0, 0], [1, 1], [1, 1]]
        assert found["followers"].tolist() == ([1, 2], [3, 0])[rank]
        assert found["range"] == ([0, 1, 2], [3, 4, 5])[rank]
        assert found["from first"] == "from 0"
        assert found["agreed"] == (True, False)
        assert found["count"] == 1.5
        assert found["no count"] == 0.5


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in Run(run).log]


def scores(run: Path) -> list[float]:
    return [row["mIoU"] for row in Run(run).log if "mIoU" in row]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_run_of_two_processes_has_the_losses_and_scores_of_one(of_one, of_two, kind):
    one, two = of_one[kind].folder, of_two[1] / kind
    assert len(losses(two)) == 6
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-5, rtol=0)
    np.testing.assert_allclose(scores(two), scores(one), atol=1e-3)
    assert Run(two).load_last()["step"] == 6
    expected = Run(one).load_last()
    for name, tensor in Run(two).load_last()["average"].items():
        torch.testing.assert_close(tensor, expected["average"][name], rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("loss", ["of pixels", "of regions"])
def test_two_processes_with_two_parts_each_are_one_with_the_whole_batch(of_one, of_two, loss):
    one, two = of_one[loss].folder, of_two[1] / loss
    assert len(losses(two)) == 3
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-5, rtol=0)
    expected = Run(one).load_last()["model"]
    for name, tensor in Run(two).load_last()["model"].items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_the_first_process_alone_writes_and_talks(of_two):
    (first, second), folder = of_two
    assert first["said"]
    assert second["said"] == []
    assert [row["step"] for row in Run(folder / "ddp").log] == [1, 2, 3, 4, 5, 6]
    assert len(list((folder / "ddp" / "events").iterdir())) == 1


def test_a_run_goes_on_with_another_number_of_processes(scenes, of_one, of_two):
    train(config(scenes, of_two[1] / "left"), resume=True)
    for run in (of_one["begun"].folder, of_two[1] / "left"):
        np.testing.assert_allclose(losses(run), losses(of_one["fsdp"].folder), atol=1e-5, rtol=0)
        weights = load_file(run / "model" / "model.safetensors")
        assert weights.keys() == load_file(of_one["fsdp"].folder / "model" / "model.safetensors").keys()


def started_together(*arguments: object) -> list[subprocess.Popen[str]]:
    """Start two processes as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # The tests may have been started so that signals are ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        for rank in range(2)
    ]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("mistaken", "fields.tif is cut off. Copy it again. So all processes end."),
        ("killed", "it ended without a word: it was killed"),
    ],
)
def test_a_process_that_fails_ends_the_others_with_its_reason(how, reason):
    started = started_together(together.__file__, how)
    # The second one first: a process that nobody has waited for is not gone.
    (_, silent), (_, said) = [each.communicate(timeout=120) for each in reversed(started)]
    assert [each.returncode for each in started] == [1, -9 if how == "killed" else 1]
    assert f"Error: Process 1 (of 2, on {socket.gethostname()}) has failed: " in said
    assert reason in said
    assert "Error:" not in silent, "one process says it"


@pytest.mark.parametrize("reached", [[0, 1, 0, 1], [1]], ids=["all, twice", "the second alone"])
def test_ctrl_c_ends_all_processes_after_one_step_and_the_state_is_saved_once(scenes, tmp_path, reached):
    made = small_config(scenes, tmp_path / "run", steps=100_000, batch_size=2, evaluate_every=50_000)
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(made.model_dump(mode="json", exclude_none=True)))
    started = started_together("-m", "pixelwise", "train", tmp_path / "mine.toml", "--no-check")
    log = tmp_path / "run/log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 3):
        assert all(each.poll() is None for each in started), started[0].communicate()
        time.sleep(0.05)
    # The terminal and the launcher may both pass it on.
    for rank in reached:
        started[rank].send_signal(signal.SIGINT)
    (_, said), (_, silent) = [each.communicate(timeout=120) for each in started]
    assert [each.returncode for each in started] == [130, 130], said + silent
    assert said.count("SIGINT stopped the run in") == 1
    assert "--resume` goes on" in said
    assert "Traceback" not in said
    assert silent.strip() == ""
    run = Run(tmp_path / "run")
    assert run.load_last()["step"] == run.log[-1]["step"]
    assert not (tmp_path / "run/last/earlier.pt").exists(), "one state was saved"


@pytest.mark.parametrize(("size", "count", "fits"), [(6, 4, "4 or 8"), (2, 4, "4"), (9, 2, "8 or 10")])
def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, scenes, tmp_path, size, count, fits):
    monkeypatch.setattr(distributed, "world", lambda: count)
    with pytest.raises(ConfigError, match=rf"batch_size is {size}, which {count} processes .* Set it to {fits}, or"):
        require_shares(config(scenes, tmp_path, batch_size=size))
    require_shares(config(scenes, tmp_path, batch_size=count * 2))


def test_work_is_shared_evenly_and_each_part_is_in_one_share():
    assert even_shares([5, 1, 4, 2, 3], 2) == [[0, 3, 1], [2, 4]]
    assert even_shares([7], 3) == [[0], [], []]


def test_alone_nothing_changes():
    rows = torch.randn(3, 2)
    for same in (processes.all_sum, processes.all_mean, processes.gathered, processes.own_share):
        assert same(rows) is rows
    assert torch.equal(processes.followers(rows), rows.roll(-1, 0))
    assert list(processes.own_range(5)) == [0, 1, 2, 3, 4]
    assert processes.from_first("a") == "a"
    assert processes.collected("a") == ["a"]
