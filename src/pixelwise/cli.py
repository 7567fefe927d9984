"""The group of commands, and how errors are shown. Commands import what is heavy, so that `--help` is fast."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pixelwise import __version__
from pixelwise.commands.calibrate import calibrate
from pixelwise.commands.compare import compare
from pixelwise.commands.demo import demo
from pixelwise.commands.doctor import check
from pixelwise.commands.error_text import say_error
from pixelwise.commands.explain import explain
from pixelwise.commands.export import export
from pixelwise.commands.init import init
from pixelwise.commands.networks import analyze, models, prune
from pixelwise.commands.parcels import polygonize, score_parcels
from pixelwise.commands.predict import predict
from pixelwise.commands.profile import profile
from pixelwise.commands.serve import serve
from pixelwise.commands.split import split
from pixelwise.commands.training import evaluate, report, train
from pixelwise.commands.tune import tune
from pixelwise.commands.weights import licences, weights
from pixelwise.errors import ContractWarning, OldNameWarning, PixelwiseError, out_of_memory
from pixelwise.geo.gdal_messages import garbled_messages_hidden
from pixelwise.optional import torch_missing


def main() -> None:
    """Run the command; exit with 0, 1 for a mistake of the user, 2 for usage, 128 and its number for a signal."""
    if "RANK" in os.environ:
        # One of several processes: torch would warn that it looks for heads without a gradient.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        with _warnings_in_one_line(), garbled_messages_hidden():
            commands.main(prog_name="pixelwise", standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except click.Abort:
        sys.exit(130)
    except PixelwiseError as problem:
        say_error(str(problem), problem.code)
        sys.exit(1)
    except ModuleNotFoundError as problem:
        if (said := torch_missing(problem, "This command")) is None:
            raise
        say_error(str(said), said.code)
        sys.exit(1)
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        say_error(
            f"There is not enough memory ({(str(problem).splitlines() or ['none is left'])[0][:200]}). Use smaller "
            "tiles, crops or batches, or close other programs.",
            "PW903",
        )
        sys.exit(1)
    except OSError as problem:
        # The system's own refusals: a full disk, a folder without permission, a file that went away.
        if problem.filename is None and problem.strerror is None:
            raise
        say_error(f"{problem.filename or 'The system'}: {problem.strerror}.", "PW905")
        sys.exit(1)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        # Our warnings are for users. The line of code would tell them nothing.
        if os.environ.get("RANK", "0") != "0":
            # Of several processes that train together, the first one talks.
            return
        if issubclass(category, OldNameWarning | ContractWarning):
            # With what is said before the work, so that the last line is the result; but JSON stays JSON.
            click.echo(f"Note: {message}", err="--json" in sys.argv)
        else:
            shown(message, category, *place)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pixelwise")
def commands() -> None:
    """Train on images, score, map whole scenes and draw parcels: every pixel gets a class.

    \b
    Example, from a configuration to land parcels:
      pixelwise check fields.toml
      pixelwise train fields.toml
      pixelwise evaluate runs/fields test.toml
      pixelwise predict runs/fields scene.tif map.tif
      pixelwise polygonize map.tif parcels.gpkg
    """


for _command in (
    *(demo, init, check, split, train, tune, evaluate, calibrate, compare, report, predict, polygonize, score_parcels),
    *(models, analyze, prune, export, profile, serve),
    *(weights, licences, explain),
):
    commands.add_command(_command)
