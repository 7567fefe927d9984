"""Arguments and options that several commands take."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)
OVERRIDES = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the configuration: train.steps=200; repeatable.",
)
ACCEPT_LICENCE = click.option(
    "--accept-licence",
    "accepted",
    multiple=True,
    metavar="NAME",
    help="Accept a licence of weights that forbids commercial use or is unknown; repeatable.",
)
UNITS = click.option(
    "--units",
    type=click.Choice(["refuse", "convert"]),
    default="refuse",
    show_default=True,
    help="Images in other units than the training images: 0 to 1, 0 to 255, 0 to 10,000 or 0 to 65,535.",
)
RESOLUTION = click.option(
    "--resolution",
    type=click.Choice(["own", "model"]),
    default="own",
    show_default=True,
    help="'model': resample images to the ground resolution of the training images; results have that too.",
)
OPTIONS = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="A network's option: output_stride=8; repeatable."
)
DESCRIBED = f"{__name__}.described"
"""In the context of a command: what `DESCRIBING` says."""


def _list_of(kind: type, text: str) -> list[Any]:
    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        wanted = "whole numbers, such as 1,2,3" if kind is int else "numbers, such as 123.7,116.3,103.5"
        raise click.BadParameter(f"{text!r} is no list of {wanted}.") from None


def _noted(kind: type | None) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def note(context: click.Context, parameter: click.Parameter, text: str | None) -> None:
        if text is not None:
            value = text if kind is None else _list_of(kind, text)
            context.meta.setdefault(DESCRIBED, {})[parameter.name] = value

    return note


DESCRIBING = (
    click.option(
        "--classes", metavar="A,B", expose_value=False, callback=_noted(str), help="Of a file of others: names."
    ),
    click.option("--mean", metavar="M,M", expose_value=False, callback=_noted(float), help="Likewise, band by band."),
    click.option("--std", metavar="S,S", expose_value=False, callback=_noted(float), help="Likewise: the deviations."),
    click.option(
        "--bands", metavar="N,N", expose_value=False, callback=_noted(int), help="Likewise, from 1 on: 3,2,1."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["uint8", "uint16", "int16", "float32"]),
        expose_value=False,
        callback=_noted(None),
        help="Likewise: type of its images.  [default: uint8]",
    ),
)
"""What a file takes and gives that others made. Commands do not get these one by one: `described` reads them."""


def describing(command: Callable) -> Callable:
    """Give a command the options of `DESCRIBING`, and ``--option``."""
    for option in reversed((OPTIONS, *DESCRIBING)):
        command = option(command)
    return command


def described(options: Sequence[str]) -> dict[str, Any]:
    """Return what ``--option`` and the options of `DESCRIBING` say, by key.

    Raises:
        ConfigError: an ``--option`` that is no assignment.
    """
    from pixelwise.config_table import parsed_options

    return parsed_options(options) | click.get_current_context().meta.get(DESCRIBED, {})
