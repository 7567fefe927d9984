"""The command that makes confidence honest."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE

if TYPE_CHECKING:
    from pixelwise.evaluation.calibration import Calibration


@click.command()
@click.argument("run", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the scores before and after as JSON.")
def calibrate(run: Path, as_json: bool) -> None:
    """Fit the temperature that makes a run's confidence honest.

    `pixelwise train` does it at its end; this is for runs of earlier versions. The temperature is fitted on the
    validation part and kept with the model. No class changes. Validation is scored again, and the test part if the run
    keeps one.

    \b
    Example:
      pixelwise calibrate runs/fields
    """
    with interruptible("The same command begins again."):
        from pixelwise.data.split_lists import lists_any
        from pixelwise.evaluation.calibrate import calibrate
        from pixelwise.evaluation.evaluate import evaluate
        from pixelwise.fast.allocator import keep_freed_memory
        from pixelwise.runs.run_folder import open_finished_run

        keep_freed_memory()
        say = None if as_json else click.echo
        fit = calibrate(run, report=say)
        kept, _ = open_finished_run(run)
        parts = ["validation", *(["test"] if lists_any(kept.split, "test") else [])]
        found = {part: evaluate(run, part=part).calibration for part in parts}
    if as_json:
        scores = {part: each.to_dict() for part, each in found.items() if each is not None}
        click.echo(json.dumps({"temperature": fit.temperature, "notes": fit.notes, "parts": scores}, indent=2))
        return
    for part, each in found.items():
        if each is not None:
            click.echo(f"On the {part} part{', which it was fitted on' if each.fitted_here else ''}:")
            show_calibration(each)
    if "test" not in found:
        click.echo(f"No test part is kept. Figures that do not flatter: `pixelwise evaluate {run} NEW_DATA.toml`.")


def show_calibration(found: "Calibration") -> None:
    """Print the scores of confidence as a table, before and after."""
    click.echo(f"{f'{found.pixels:,} pixels':24}{'ECE':>8}{'adaptive':>10}{'NLL':>8}{'Brier':>8}{'AURC':>8}")
    rows = [("confidence as it was", found.before), (f"at temperature {found.after.temperature:.3g}", found.after)]
    for name, each in rows if found.fitted_on else rows[:1]:
        values = (each.ece, each.adaptive_ece, each.nll, each.brier, each.aurc)
        shown = ["-" if value is None else f"{value:.4f}" for value in values]
        click.echo(f"{name:24}{shown[0]:>8}{shown[1]:>10}{''.join(f'{text:>8}' for text in shown[2:])}")
