"""How a mistake is told."""

import os
import sys
import textwrap
from shutil import get_terminal_size

import click


def say_error(text: str, code: str) -> None:
    """Print a paragraph to stderr: wrapped and red on a terminal, on one line in a log, so that grep finds it.

    Of the processes that torchrun starts on a machine, the first prints it.

    Args:
        code: the kind of error, which stands at the end; empty: none.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    text += f" [pixelwise explain {code}]" if code else ""
    if sys.stderr.isatty():
        width = max(40, min(100, get_terminal_size().columns))
        # A terminal would break lines in the middle of words.
        text = textwrap.fill(f"Error: {text}", width, break_long_words=False, break_on_hyphens=False)
        click.secho(text, fg="red", err=True)
    else:
        click.echo(f"Error: {text}", err=True)
