"""The command that sets runs side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.parameters import FILE

if TYPE_CHECKING:
    from pixelwise.evaluation.compare import ComparedRun, Comparison, Difference, Score


@click.command()
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option(
    "--evaluation", default="validation", show_default=True, help="Which evaluation of the runs: its name in each."
)
@click.option("--page", type=FILE, help="Write a page with the curves, such as compare.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare(runs: tuple[Path, ...], evaluation: str, page: Path | None, as_json: bool) -> None:
    """Say which of several runs is better by more than noise.

    It prints scores with intervals, and the settings that differ.

    All are scored on the scenes that all of them have. Differences are to the first run.

    \b
    Example:
      pixelwise compare runs/fields runs/fields-b1
      pixelwise compare runs/* --evaluation test --page compare.html
    """
    from pixelwise.evaluation.compare import compare
    from pixelwise.report.comparison import write_comparison

    found = compare(runs, evaluation=evaluation)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _show(found)
    if page is not None:
        write_comparison(found, page)
        click.echo(f"{page} is written.", err=as_json)


def _show(found: "Comparison") -> None:
    widest = max(len(run.name) for run in found.runs)
    scenes = f"{found.scenes} scene{'s' if found.scenes > 1 else ''}"
    click.echo(f"Evaluation {found.evaluation!r} on {scenes}; intervals of 95 % from {found.drawn}.")
    click.echo(f"{'run':{widest}}  {'mIoU':>5}  {'interval':15}{'to the first':>12}  {'interval':17}more than noise")
    for run in found.runs:
        line = f"{run.name:{widest}}  {_number(run.miou)}  {_interval(run.miou):15}"
        if run.miou_difference is not None:
            line += f"{_signed(run.miou_difference):>12}  {_signed_interval(run.miou_difference):17}"
            line += _verdict(run.miou_difference)
        click.echo(line.rstrip())
    for name in found.runs[0].classes:
        values = "  ".join(f"{run.name} {_number(run.classes[name])}{_mark(run, name)}" for run in found.runs)
        click.echo(f"IoU of {name}: {values}")
    if any(_mark(run, name) for run in found.runs for name in run.class_differences):
        click.echo("* more than noise")
    for key, values in found.settings.items():
        click.echo(f"{key}: {', '.join(map(str, values))}")
    for note in found.notes():
        click.echo(f"Note: {note}")


def _mark(run: "ComparedRun", name: str) -> str:
    difference = run.class_differences.get(name)
    return "*" if difference is not None and difference.more_than_noise else ""


def _verdict(difference: "Difference") -> str:
    return {True: "yes", False: "no", None: "not known"}[difference.more_than_noise]


def _number(score: "Score") -> str:
    return "    -" if score.value is None else f"{score.value:.3f}"


def _interval(score: "Score") -> str:
    return "" if score.interval is None else "{:.3f} to {:.3f}".format(*score.interval)


def _signed(difference: "Difference") -> str:
    return "-" if difference.value is None else f"{difference.value:+.3f}"


def _signed_interval(difference: "Difference") -> str:
    return "" if difference.interval is None else "{:+.3f} to {:+.3f}".format(*difference.interval)
