"""What a command does at Ctrl-C, and when another signal has stopped a training."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pixelwise.errors import TrainingStopped


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Exit with 130 at Ctrl-C, as shells do with 128 and a signal's number, and tell how to go on."""
    try:
        yield
    except TrainingStopped as stopped:
        click.echo(f"\n{stopped} {advice}", err=True)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. {advice}", err=True)
        sys.exit(130)
