"""What a command does at Ctrl-C."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Exit with 130 at Ctrl-C, and tell how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        # Of several processes, one speaks. torchrun numbers them.
        if os.environ.get("RANK", "0") == "0":
            click.echo(f"\nInterrupted. {advice}", err=True)
        sys.exit(130)
