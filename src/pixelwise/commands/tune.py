"""The command that searches for better values of a configuration."""

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.doctor import stop_on_errors
from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import ACCEPT_LICENCE, FILE, OVERRIDES

if TYPE_CHECKING:
    from pixelwise.training.train import Progress


@click.command()
@click.argument("config", type=FILE)
@click.option("--folder", type=FILE, help="The search's folder.  [default: [tune].folder, or runs/NAME-tune]")
@click.option("--trials", type=click.IntRange(min=1), help="Trials in all.  [default: as [tune] says]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="No trial begins after so many minutes.")
@click.option("--no-check", is_flag=True, help="Do not look for mistakes in the data first.")
@ACCEPT_LICENCE
@OVERRIDES
def tune(
    config: Path,
    folder: Path | None,
    trials: int | None,
    minutes: float | None,
    no_check: bool,
    accepted: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Search for values with which a network scores best.

    It is scored on the validation part. [tune.space] in CONFIG says what is tried. Each trial is a run. The same
    command goes on where the search was stopped, and can be given in several terminals at once.

    \b
    Example:
      pixelwise tune fields.toml
      pixelwise tune fields.toml --trials 40 --minutes 120
      pixelwise train runs/fields-tune/best.toml
    """
    named = {"--folder": folder, "--trials": trials, "--minutes": minutes}
    flags = [part for name, value in named.items() if value is not None for part in (name, str(value))]
    flags += [part for each in accepted for part in ("--accept-licence", each)]
    flags += [part for each in overrides for part in ("--set", each)]
    again = shlex.join(["pixelwise", "tune", str(config), *flags])
    with interruptible(f"`{again}` goes on from there."):
        from pixelwise.config import load_config
        from pixelwise.optional import optional_module
        from pixelwise.tuning.tune import tune

        optional_module("optuna")
        loaded = load_config(config, overrides)
        if accepted:
            names = json.dumps([*loaded.model.accept_licence, *accepted])
            overrides = (*overrides, f"model.accept_licence={names}")
            loaded = load_config(config, overrides)
        place = folder or loaded.tune.folder
        if not no_check and not (place is not None and place.exists()):
            # A search that goes on has seen its data.
            stop_on_errors(config, loaded)
        with _shown() as report:
            found = tune(config, overrides=overrides, folder=folder, trials=trials, minutes=minutes, report=report)
        if found.best is None:
            click.echo(f"No trial has reached its end yet. {found.folder} keeps what there is.")
            return
        best = found.best
        click.echo(f"The best of {len(found.trials)} trials is trial {best.number + 1}: mIoU {best.score:.3f}.")
        for key, value in best.values.items():
            click.echo(f"  {key} = {value}")
        click.echo(f"{found.folder / 'tune.html'} shows the search. Train with these values:")
        click.echo(f"  pixelwise train {found.folder / 'best.toml'}")


@contextmanager
def _shown() -> "Iterator[Callable[[Progress | str], None]]":
    """Give the function that `pixelwise.tune` reports to: a bar for each trial, and sentences between."""
    from pixelwise.commands.progress import shown_training

    current: list[Callable[[Progress | str], None]] = []
    with ExitStack() as shown:

        def report(event: "Progress | str") -> None:
            if isinstance(event, str):
                shown.close()
                current.clear()
                click.echo(event)
                return
            if not current:
                current.append(shown.enter_context(shown_training()))
            current[0](event)

        yield report
