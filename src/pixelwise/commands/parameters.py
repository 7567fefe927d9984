"""Arguments and options that several commands take."""

from pathlib import Path

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
