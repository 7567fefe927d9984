"""The demo of a minute: a network that comes trained maps an example scene, and draws its parcels."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.errors import ConfigError

if TYPE_CHECKING:
    from pixelwise.config import Config

MODEL, CONFIG = "fields_model", "fields_model.toml"
"""Below the examples: the trained network, and the configuration that it was trained by."""


def run_quick(examples: Path, output: Path, *, fresh: bool, say: Callable[[str], None]) -> Path:
    """Map a scene, draw its parcels, score all test scenes and write the page, without any training.

    ``output`` becomes the run of the network that comes with the examples, as if it had been trained there: each
    command that takes a run takes it.

    Args:
        examples: the folder of ``fields_model.toml``.
        output: the run's folder.
        fresh: delete an earlier quick demo in ``output`` first.
        say: called with each line.

    Returns:
        the page.

    Raises:
        ConfigError: no trained network among the examples, or an output folder that holds something else.
    """
    from pixelwise.commands.demo import delete_demo, draw_parcels, list_files
    from pixelwise.config import RunConfig, as_places, load_config
    from pixelwise.evaluation.evaluate import evaluate
    from pixelwise.geo.raster import describe
    from pixelwise.predictor import load
    from pixelwise.report import ParcelFiles, write_report

    begun = time.monotonic()
    kept, test = examples / MODEL, load_config(examples / "fields_test.toml")
    if not (kept / "model" / "model.toml").is_file():
        raise ConfigError(
            f"{examples} holds no trained network (no {MODEL}/model/model.toml), so there is nothing to map with. "
            "Take the examples of the repository as they are, or train one: pixelwise demo.",
            code="PW317",
        )
    config = load_config(examples / CONFIG).model_copy(update={"run": RunConfig(folder=output)})
    if fresh:
        delete_demo(output)

    say(f"1. The network, {kept}")
    _begin_run(kept, config, output)
    predictor = load(output)
    places = len(list(as_places(config.data.images)[0].glob("*.tif")))
    network = predictor.card.architecture
    on = f" on {network.options['encoder']}" if "encoder" in network.options else ""
    say(f"   {network.name}{on}, {config.train.steps} steps with {places} scenes; its card is README.md there")

    info = describe(scene := sorted(as_places(test.data.images)[0].glob("*.tif"))[-1])
    say(f"2. Map of {scene.name}, {info.width}x{info.height} pixels, which it has never seen")
    predictor.map_scene(scene, output / "map.tif", confidence=True)

    say("3. Parcels")
    draw_parcels(output)

    say("4. Scores on the test scenes")
    scores = evaluate(output, test, name="fields_test").scores
    say(f"   mIoU {scores.miou or 0:.3f}, {scores.pixel_accuracy or 0:.1%} of the pixels right")

    say("5. Page")
    page = write_report(output, ParcelFiles(scene=scene))
    say(f"\nDone in {time.monotonic() - begun:.0f} s. Look at:")
    list_files(output, say)
    return page


def _begin_run(kept: Path, config: "Config", output: Path) -> None:
    """Make a finished run of the network: its configuration, its log and its model.

    Raises:
        ConfigError: the folder holds something else.
    """
    from pixelwise.files import ensure_folder, file_digest, replacing_folder
    from pixelwise.runs.run_folder import Run, holds_run

    run, weights = Run(output), Path("model") / "model.safetensors"
    if holds_run(output):
        if (output / weights).is_file() and file_digest(output / weights) == file_digest(kept / weights):
            return
        raise ConfigError(
            f"{output} holds another run, which is kept. Choose another --output, or delete an earlier demo with "
            "--fresh.",
            code="PW602",
        )
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty and holds no demo. Choose another --output.", code="PW602")
    ensure_folder(output)
    with replacing_folder(output / "model") as temporary:
        shutil.copytree(kept / "model", temporary, dirs_exist_ok=True)
    shutil.copyfile(kept / "log.jsonl", output / "log.jsonl")
    run.begin(config)
