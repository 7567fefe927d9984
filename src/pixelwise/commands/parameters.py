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
