"""The command that writes a configuration for a folder nobody has described."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE

LONGEST = 600
"""Letters of a complaint that are shown; `check` says all of it."""


@click.command()
@click.argument("folder", type=FILE)
@click.option("--out", type=FILE, default=Path("pixelwise.toml"), show_default=True, help="The configuration to write.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the likeliest reading.")
@click.option("--force", is_flag=True, help="Replace a configuration that is there; a copy of it is kept.")
def init(folder: Path, out: Path, yes: bool, force: bool) -> None:
    """Look at a folder and write a configuration for it.

    It finds images, masks and polygons by what is in the files, and classes with their names, colours and values. It
    says what it saw and what it guessed. Where two readings are equally likely, it asks on a terminal.

    \b
    Example:
      pixelwise init photos
      pixelwise check pixelwise.toml
      pixelwise train pixelwise.toml
    """
    with interruptible("Nothing was written."):
        import torch
        from rasterio.errors import NotGeoreferencedWarning

        from pixelwise.data.survey.proposal import Machine, propose
        from pixelwise.data.survey.toml import to_toml
        from pixelwise.data.survey.writing import complaint, require_free, write_configuration
        from pixelwise.machine import free_memory

        # A photo has no place on the ground. Threads share these filters, so they are set here.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        require_free(out, force=force)
        machine = Machine(torch.cuda.is_available(), free_memory())
        ask = _first if yes or not sys.stdin.isatty() else _asked
        found = propose(folder, machine=machine, ask=ask, say=click.echo)
        copy = write_configuration(out, to_toml(found, out))
        for title, sentences in (("Saw", found.saw), ("Guessed", found.guessed), ("Left out", found.later)):
            if sentences:
                click.echo(f"{title}:")
            for sentence in sentences:
                click.echo(f"  - {sentence}")
        if copy is not None:
            click.echo(f"The configuration that was there is kept as {copy}.")
        click.echo(f"{out} is written.")
        if (said := complaint(out)) is not None:
            short = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
            click.echo(f"`pixelwise check {out}` will complain: {short}")
        else:
            click.echo(f"Next: pixelwise check {out}, then pixelwise train {out}.")


def _first(question: str, answers: Sequence[str]) -> int:
    return 0


def _asked(question: str, answers: Sequence[str]) -> int:
    click.echo(question)
    for i, answer in enumerate(answers, start=1):
        click.echo(f"  {i}. {answer}")
    return int(click.prompt("Number", type=click.IntRange(1, len(answers)), default=1)) - 1
