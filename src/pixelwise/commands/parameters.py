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
