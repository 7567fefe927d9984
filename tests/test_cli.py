import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio

import pixelwise as pw
from pixelwise.cli import commands
from pixelwise.models import create
from pixelwise.weights import save_weights

NAMES = sorted(commands.commands)


def write_scene(path: Path, values: np.ndarray) -> None:
    """Write a GeoTIFF of 1 m per pixel; its name, a number, says how many kilometres it lies to the east."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    transform = rasterio.Affine(1, 0, 500000 + 1000 * int(path.stem), 0, -1, 4600000)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=bands,
        dtype=values.dtype,
        crs=32616,
        transform=transform,
    ) as file:
        file.write(values)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Four small scenes, whose masks say where they are bright, and a configuration of six steps."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((24, 24))).astype(np.uint8)
        image = (mask * 120 + rng.integers(0, 40, (3, 96, 96))).astype(np.uint8)
        write_scene(tmp_path / f"scenes/{i}.tif", image)
        write_scene(tmp_path / f"masks/{i}.tif", mask[None])
    (tmp_path / "small.toml").write_text(
        """
[data]
images = "scenes"
labels = "masks"
classes = ["dark", "bright"]
[train]
steps = 6
batch_size = 2
crop_size = 64
evaluate_every = 3
workers = 1
[predict]
tile = 64
overlap = 32
"""
    )
    return tmp_path


def assert_user_error(result: tuple[int, str, str], *parts: str) -> None:
    status, _, said = result
    assert status == 1, said
    assert "Traceback" not in said
    assert said.startswith("Error: ")
    assert said.count("\n") == 1, "one paragraph"
    for part in parts:
        assert part in said


def test_the_commands_of_the_readme_exist():
    assert set(NAMES) == {
        "analyze",
        "calibrate",
        "demo",
        "check",
        "compare",
        "train",
        "tune",
        "evaluate",
        "predict",
        "polygonize",
        "profile",
        "score-parcels",
        "models",
        "prune",
        "report",
        "serve",
        "split",
        "init",
        "export",
        "weights",
        "licences",
        "explain",
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_command_helps_with_a_purpose_and_an_example(pixelwise, name):
    status, out, err = pixelwise(name, "--help")
    assert (status, err) == (0, "")
    assert f"Usage: pixelwise {name}" in out
    assert f"pixelwise {name}" in out.split("Example:")[1]
    assert all(not isinstance(p, click.Option) or p.help for p in commands.commands[name].params)


def test_the_list_of_commands_shows_the_purpose_of_each(pixelwise):
    status, out, _ = pixelwise("--help")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.split() and line.split()[0] in NAMES}
    assert set(lines) == set(NAMES)
    assert all(len(line.split()) > 4 and not line.endswith("...") for line in lines.values())


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["nonsense"], ["train"], ["predict", "a"], ["models", "--jsn"], ["models", "--size", "-5"]],
)
def test_wrong_usage_leaves_with_2_and_says_how_to_get_help(pixelwise, arguments):
    status, _, err = pixelwise(*arguments)
    assert status == 2
    assert "Error: " in err
    assert "Traceback" not in err


def test_the_version_is_printed(pixelwise):
    import pixelwise as pw

    assert pixelwise("--version") == (0, f"pixelwise, version {pw.__version__}\n", "")


def test_print_config_prints_what_a_configuration_can_hold(pixelwise):
    status, out, _ = pixelwise("train", "--print-config")
    assert status == 0
    assert "[train]" in out
    assert "images" in out


def test_a_batch_that_the_memory_cannot_hold_is_refused_before_the_run_begins(pixelwise, project):
    status, _, said = pixelwise("train", "small.toml", "--set", "train.batch_size=100000000")
    assert status == 1
    assert "the images of a batch alone take 4,915.2 GB" in said
    assert not (project / "runs/small/config.toml").exists()


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(("value", "said"), [(255, "No pixel of the training scenes"), (0, "are of the class 'dark'")])
def test_what_training_refuses_is_refused_by_check(pixelwise, project, command, value, said):
    for i in range(4):
        write_scene(project / f"masks/{i}.tif", np.full((1, 96, 96), value, np.uint8))
    assert_user_error(pixelwise(command, "small.toml"), said)


@pytest.mark.parametrize("command", ["check", "train"])
def test_weights_of_another_network_are_refused(pixelwise, project, command):
    save_weights(create("segformer-b1", classes=2), project / "b1.safetensors")
    given = ("--set", "model.weights=b1.safetensors", "--set", "model.name=segformer-b0")
    assert_user_error(pixelwise(command, "small.toml", *given), "another network")


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_configuration_that_is_not_there_is_named(pixelwise, tmp_path, command):
    assert_user_error(pixelwise(command, tmp_path / "none.toml"), str(tmp_path / "none.toml"), "--print-config")


@pytest.mark.parametrize("command", ["check", "train"])
def test_an_unknown_key_names_the_nearest_one(pixelwise, project, command):
    text = (project / "small.toml").read_text().replace("steps", "step")
    (project / "small.toml").write_text(text)
    assert_user_error(pixelwise(command, "small.toml"), "small.toml", "[train].step", "steps")


@pytest.mark.parametrize("command", ["check", "train"])
def test_an_image_without_a_mask_is_named(pixelwise, project, command):
    (project / "masks/2.tif").unlink()
    assert_user_error(pixelwise(command, "small.toml"), "2.tif")


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_mask_of_another_size_is_named(pixelwise, project, command):
    write_scene(project / "masks/2.tif", np.zeros((1, 96, 95), np.uint8))
    assert_user_error(pixelwise(command, "small.toml"), "2.tif", "95", "96")


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_mask_value_without_a_class_is_named_before_the_first_step(pixelwise, project, command):
    write_scene(project / "masks/2.tif", np.full((1, 96, 96), 7, np.uint8))
    assert_user_error(pixelwise(command, "small.toml"), "2.tif", "value 7", "ignore = [255, 7]")
    assert not (project / "runs/small/model").exists()


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_truncated_image_is_named_before_the_first_step(pixelwise, project, command):
    whole = (project / "scenes/1.tif").read_bytes()
    (project / "scenes/1.tif").write_bytes(whole[: len(whole) // 2])
    assert_user_error(pixelwise(command, "small.toml"), "1.tif", "truncated")


def test_an_output_folder_with_a_file_in_the_way_is_named(pixelwise, project):
    (project / "runs").write_text("")
    assert_user_error(pixelwise("train", "small.toml"), "runs", "Choose another")


@pytest.mark.parametrize(
    "arguments", [["evaluate", "none"], ["predict", "none", "scenes/0.tif", "map.tif"], ["report", "none"]]
)
def test_a_run_that_is_not_there_is_named(pixelwise, project, arguments):
    assert_user_error(pixelwise(*arguments), "none")


def test_check_counts_the_pixels_of_each_class_and_names_no_problem(pixelwise, project):
    status, out, err = pixelwise("check", "small.toml")
    assert (status, err) == (0, "")
    pixels = sum((rasterio.open(project / f"masks/{i}.tif").read() == 1).sum() for i in range(4))
    counted = [int(line.split()[-2].replace(",", "")) for line in out.splitlines() if line.split()[0] == "bright"]
    assert sum(counted) == pixels


def test_the_whole_job_from_check_to_parcels(pixelwise, project):
    status, out, err = pixelwise("train", "small.toml")
    assert status == 0, err
    assert "step 6 of 6" in out
    assert_user_error(pixelwise("train", "small.toml"), "--resume")
    assert pixelwise("train", "small.toml", "--resume")[0] == 0

    status, out, err = pixelwise("evaluate", "runs/small", "--json")
    assert status == 0, err
    scores = json.loads(out)
    status, out, _ = pixelwise("evaluate", "runs/small", "small.toml")
    assert status == 0
    assert "bright" in out
    assert 0 <= scores["mIoU"] <= 1

    status, out, err = pixelwise("predict", "runs/small", "scenes/0.tif", "map.tif")
    assert status == 0, err
    with rasterio.open("map.tif") as made, rasterio.open("scenes/0.tif") as scene:
        assert (made.shape, made.crs, made.transform) == (scene.shape, scene.crs, scene.transform)
        assert set(np.unique(made.read(1))) <= {0, 1}
        plain = made.read(1)
    assert "4 tiles of 64 pixels" in out  # two by two of 64 pixels cover 96, with 32 shared
    status, out, err = pixelwise("predict", "runs/small", "scenes/0.tif", "other.tif", "--forecast")
    assert status == 0, err
    assert "of memory" in out
    assert not (project / "other.tif").exists()
    status, out, err = pixelwise(
        "predict", "runs/small", "scenes/0.tif", "cloud.tif", "--cog", "--probabilities", "--batch", "2"
    )
    assert status == 0, err
    np.testing.assert_array_equal(rasterio.open("cloud.tif").read(1), plain)
    assert rasterio.open("cloud.probabilities.tif").count == 2
    status, out, err = pixelwise("polygonize", "map.tif", "parcels.gpkg")
    assert status == 0, err
    assert (project / "parcels.gpkg").exists()
    status, out, err = pixelwise("report", "runs/small")
    assert status == 0, err
    assert (project / "runs/small/report.html").stat().st_size > 1000


def test_an_interrupted_training_leaves_with_130_and_says_how_to_go_on(project):
    text = (project / "small.toml").read_text().replace("steps = 6", "steps = 5000")
    (project / "small.toml").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "pixelwise", "train", "small.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The tests may have been started so that signals are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step "):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "SIGINT: the run stops after this step" in said
    assert re.search(r"Its state is saved, of step \d+\. `pixelwise train small.toml --resume` goes on", said)
    assert (project / "runs/small/last/state.pt").exists()
    assert "Traceback" not in said


def test_check_names_a_mistake_in_the_model_beside_those_in_the_files(pixelwise, project):
    write_scene(project / "masks/2.tif", np.zeros((1, 96, 95), np.uint8))
    write_scene(project / "masks/3.tif", np.zeros((1, 96, 94), np.uint8))
    status, _, said = pixelwise("check", "small.toml", "--set", "model.name=segformer-b9")
    assert status == 1
    files, model = said.splitlines()
    assert files.startswith("Error: ")
    assert all(part in files for part in ("2.tif", "3.tif", "1 more"))
    assert model.startswith("Error: ")
    assert "segformer-b9" in model


@pytest.mark.parametrize("override", ["model.options.output_strid=8", "train.class_weights=[1, 2, 3]"])
def test_check_names_options_that_the_network_does_not_have_and_weights_that_do_not_fit(pixelwise, project, override):
    assert_user_error(pixelwise("check", "small.toml", "--set", override), override.split("=")[0].split(".")[-1])


def test_check_refuses_weights_of_another_network_as_training_does(pixelwise, project):
    pw.save_weights(pw.create("segnext-t", classes=2), project / "other.safetensors")
    for command in ("check", "train"):
        refused = pixelwise(command, "small.toml", "--set", f"model.weights={project}/other.safetensors")
        assert_user_error(refused, "segformer-b0's encoder", "of another network")


def test_the_test_part_of_a_run_is_scored_under_its_name(pixelwise, project):
    shares = ("--set", "data.validation=0.25", "--set", "data.test=0.25", "--set", "train.steps=1")
    assert pixelwise("train", "small.toml", *shares)[0] == 0
    status, out, err = pixelwise("evaluate", "runs/small", "--part", "test")
    assert status == 0, err
    assert "Kept as 'test'" in out
    (scene,) = (project / "runs/small/split/test.txt").read_text().splitlines()[1:]
    kept = json.loads((project / "runs/small/metrics.json").read_text())
    assert list(kept["test"]["scenes"]) == [Path(scene).stem]


def test_options_of_the_paper_for_inference_reach_the_network(pixelwise, project):
    network = ("--set", "model.name=deeplabv3", "--set", 'model.options={encoder="resnet18", output_stride=16}')
    status, _, err = pixelwise("train", "small.toml", "--set", "train.steps=1", *network)
    assert status == 0, err
    status, out, err = pixelwise("evaluate", "runs/small", "small.toml", "--option", "output_stride=8", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["about"]["options"] == {"output_stride": 8}
    assert pixelwise("predict", "runs/small", "scenes/0.tif", "a.tif", "--option", "output_stride=8")[0] == 0
    assert pixelwise("predict", "runs/small", "scenes/0.tif", "b.tif")[0] == 0
    assert_user_error(pixelwise("evaluate", "runs/small", "--option", "output_strid=8"), "output_strid")
    assert_user_error(pixelwise("predict", "runs/small", "scenes/0.tif", "c.tif", "--option", "x"), "output_stride=8")


@pytest.mark.parametrize(("share", "lists"), [("0", ("training", "validation")), ("0.5", ("training",))])
def test_a_run_is_scored_where_its_lists_name_a_validation_part(pixelwise, project, share, lists):
    keys = ["train.steps=1", "model.name=unet", "model.options={filters=[4, 8], batch_norm=false}"]
    keys += [f"data.validation={share}"]
    for number, part in enumerate(lists):
        (project / f"{part}.txt").write_text(f"{number}.tif\n")
        keys += [f"data.{part}_list={part}.txt"]
    status, _, err = pixelwise("train", "small.toml", "--no-check", *(part for key in keys for part in ("--set", key)))
    assert status == 0, err
    assert (project / "runs/small/metrics.json").exists() == ("validation" in lists)
