"""What a command does at Ctrl-C, and when another signal has stopped a training."""

import os
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
        _say(f"{stopped} {advice} [pixelwise explain {stopped.code}]")
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        _say(f"Interrupted. {advice}")
        sys.exit(130)


def _say(text: str) -> None:
    # Of the processes that torchrun starts, one speaks.
    if os.environ.get("RANK", "0") == "0":
        click.echo(f"\n{text}", err=True)
