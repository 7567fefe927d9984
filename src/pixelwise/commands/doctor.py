"""The command that looks at data and a configuration before any training."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.error_text import say_error
from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE, OVERRIDES
from pixelwise.errors import PixelwiseError

if TYPE_CHECKING:
    from pixelwise.config import Config
    from pixelwise.data.check import Survey
    from pixelwise.data.scenes import Scene
    from pixelwise.data.split import Split
    from pixelwise.labels import Classes


@click.command()
@click.argument("config", type=FILE)
@OVERRIDES
def check(config: Path, overrides: tuple[str, ...]) -> None:
    """Read every file of a configuration and say what is wrong.

    It also counts the pixels of each class, as training would see them.

    \b
    Example:
      pixelwise check fields.toml
    """
    with interruptible("Nothing was written."):
        from pixelwise.commands.progress import shown_steps
        from pixelwise.config import load_config
        from pixelwise.data.check import require_usable, survey
        from pixelwise.data.footprints import resolution_note
        from pixelwise.labels import make_classes
        from pixelwise.training.model_check import check_model

        loaded = load_config(config, overrides)
        classes = make_classes(loaded.data.classes, loaded.data.palette)
        parts, problems = _open_parts(loaded)
        if (note := resolution_note([scene.info for scenes in parts.values() for scene in scenes])) is not None:
            click.echo(f"Note: {note}")
        for name, scenes in parts.items():
            with shown_steps(f"Reading {name}", len(scenes)) as advance:
                found = survey(scenes, classes, advance=lambda _, advance=advance: advance())
            problems += found.problems
            _show(name, scenes, found, classes)
            try:
                # What training asks for besides; the problems of single files are listed above.
                require_usable(replace(found, problems=()), classes, name)
            except PixelwiseError as problem:
                problems += [] if problems or not scenes else [str(problem)]
        training = parts.get("training")
        problems += check_model(loaded, bands=len(training[0].reader.bands) if training else None)
        for problem in problems:
            say_error(problem)
        if problems:
            sys.exit(1)
        click.echo("Every file can be read.")


def _open_parts(config: "Config") -> tuple[dict[str, list["Scene"]], list[str]]:
    """Return the scenes of each part, or what is wrong: the network is checked then too."""
    from pixelwise.data.split import open_split

    try:
        _, split = open_split(config)
    except PixelwiseError as problem:
        return {}, [str(problem)]
    parts = {"training": split.training, "validation": split.validation}
    return parts | ({"test": split.test} if split.test else {}), _problems_of_unlabelled(config, split)


def _problems_of_unlabelled(config: "Config", split: "Split") -> list[str]:
    """Say how many images without labels there are, and return what is wrong with them."""
    from pixelwise.data.unlabelled import open_unlabelled

    if config.data.unlabelled is None:
        return []
    try:
        found = open_unlabelled(config.data, split.training[0], [*split.validation, *split.test], click.echo)
    except PixelwiseError as problem:
        return [str(problem)]
    click.echo(f"Without labels: {len(found)} images")
    return []


def _show(name: str, scenes: list["Scene"], found: "Survey", classes: "Classes") -> None:
    """Print what a part holds."""
    click.echo(f"{name.capitalize()}: {len(scenes)} scenes")
    pixels = int(found.class_pixels.sum()) + found.ignored
    counts = zip((*classes.names, "(ignored)"), (*found.class_pixels.tolist(), found.ignored), strict=True)
    for label, count in counts:
        click.echo(f"  {label:20}{count / max(1, pixels):>9.2%}{count:>16,} pixels")
    if not scenes:
        return
    means, deviations = found.statistics.mean, found.statistics.std
    for band, mean, deviation in zip(scenes[0].reader.bands, means, deviations, strict=True):
        click.echo(f"  band {band:<15}  mean {mean:.6g}, standard deviation {deviation:.6g}")
    # A small validation or test part may well lack a class.
    for note in found.notes if name == "training" else ():
        click.echo(f"Note: {note}")
