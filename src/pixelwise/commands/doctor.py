"""The command that looks at data and a configuration before any training."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.error_text import say_error
from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE, OVERRIDES
from pixelwise.errors import ConfigError, MissingExtraError, PixelwiseError

if TYPE_CHECKING:
    from pixelwise.config import Config
    from pixelwise.data.doctor import Examination, Finding
    from pixelwise.report.check_page import Section

FOLDER = Path("checks")
"""Where results go by default: a folder for each configuration in it."""
FACTS = "facts.jsonl"
"""In that folder, what is known of files that were read."""
FIRST = 3
"""So many files of a code are named in the table."""


@click.command()
@click.argument("config", type=FILE)
@OVERRIDES
@click.option("--with", "run", type=FILE, metavar="RUN", help="A trained run: rank labels that it contradicts.")
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="K",
    help="Train K networks, each on the other parts of the data, and rank labels that they contradict.",
)
@click.option("--out", type=FILE, help="Folder for check.html and check.json.  [default: checks/NAME]")
@click.option("--verbose", "-v", is_flag=True, help="List every finding, not one line for each code.")
@click.option("--fix", is_flag=True, help="Write corrected copies beside the old files: NAME_fixed.toml, masks_fixed.")
@click.option("--again", is_flag=True, help="Read every file, also those that have not changed since the last check.")
def check(
    config: Path,
    overrides: tuple[str, ...],
    run: Path | None,
    folds: int | None,
    out: Path | None,
    verbose: bool,
    fix: bool,
    again: bool,
) -> None:
    """Read every file of a configuration and say what is wrong.

    CONFIG is a configuration, or a folder that holds one; a folder without one is checked as `pixelwise init` would
    configure it. The exit status is 1 if there are errors, and 0 if there are warnings alone. A second check reads only
    what changed. check.html shows a picture of each problem.

    \b
    Example:
      pixelwise check fields.toml
      pixelwise check fields.toml --fix
      pixelwise check photos
      pixelwise check fields.toml --with runs/fields
      pixelwise check fields.toml --folds 2
    """
    if run is not None and folds is not None:
        raise click.UsageError("--with RUN and --folds K both say which networks judge the labels. Give one of them.")
    with interruptible("What was read is kept; the same command goes on."):
        from pixelwise.commands.progress import shown_stages
        from pixelwise.config import load_config
        from pixelwise.data.doctor import Finding, examine
        from pixelwise.training.model_check import check_model, network_stride

        folder = out if out is not None else FOLDER / name_of(config)
        path = config_in(config, or_else=lambda: _proposed(config, folder))
        loaded = load_config(path, overrides)
        with shown_stages() as advance:
            found = examine(
                loaded,
                stride=network_stride(loaded),
                cache=folder / FACTS,
                again=again,
                advance=advance,
            )
        bands = next((len(part.statistics.mean) for part in found.parts.values()), None)
        model = tuple(Finding("PW190", "[model]", said, " ") for said in check_model(loaded, bands=bands))
        unlabelled = () if found.errors else _problems_of_unlabelled(loaded)
        found = _with(found, [*model, *(Finding("PW191", "[data].unlabelled", said, " ") for said in unlabelled)])
        _show_parts(found)
        _show_findings(found, verbose=verbose)
        judged = run is not None or folds is not None
        compare = partial(_suspicious, folder, loaded, run, folds) if judged and not found.errors else None
        _write(folder, str(config), found, loaded, compare)
        if judged and found.errors:
            click.echo("Labels are compared with predictions once there are no errors.")
        if fix:
            _fix(path, loaded, found)
        if found.errors:
            sys.exit(1)
        click.echo("Every file can be read.")


def _problems_of_unlabelled(config: "Config") -> list[str]:
    """Say how many images without labels there are, and return what is wrong with them."""
    from pixelwise.data.split import open_split
    from pixelwise.data.unlabelled import open_unlabelled

    if config.data.unlabelled is None:
        return []
    try:
        _, split = open_split(config)
        found = open_unlabelled(config.data, split.training[0], [*split.validation, *split.test], click.echo)
    except PixelwiseError as problem:
        return [str(problem)]
    click.echo(f"Without labels: {len(found)} images")
    return []


def config_in(path: Path, *, or_else: Callable[[], Path] | None = None) -> Path:
    """Return a configuration; in a folder, that is pixelwise.toml, or the only TOML file there.

    Args:
        or_else: makes one for a folder without any.

    Raises:
        ConfigError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.toml"))
    named = [each for each in found if each.name == "pixelwise.toml"] or found
    if not named and or_else is not None:
        return or_else()
    if len(named) != 1:
        what = f"{len(named)} TOML files, none of them pixelwise.toml" if named else "no configuration"
        raise ConfigError(f"The folder {path} holds {what}. Name the configuration's file.", code="PW301")
    return named[0]


def _proposed(folder: Path, results: Path) -> Path:
    """Write the configuration that `init` would write for a folder, beside the results of its check."""
    from pixelwise.commands.init import proposed_for, show_proposal
    from pixelwise.data.survey.toml import to_toml
    from pixelwise.files import ensure_folder, replacing

    found = proposed_for(folder, ask=False)
    path = ensure_folder(results) / "proposed.toml"
    with replacing(path) as temporary:
        temporary.write_text(to_toml(found, path), encoding="utf-8", newline="\n")
    click.echo(f"{folder} holds no configuration, so it is checked as `pixelwise init {folder}` configures it: {path}.")
    show_proposal(found)
    return path


def name_of(path: Path) -> str:
    """Return the name of a configuration's results: its own, or its folder's where it is called pixelwise.toml."""
    if path.is_dir():
        named = sorted(path.glob("*.toml"))
        return name_of(named[0]) if len(named) == 1 else path.resolve().name
    return path.resolve().parent.name if path.stem == "pixelwise" else path.stem


def stop_on_errors(path: Path, config: "Config") -> None:
    """Check data before training, with what an earlier check has read.

    Raises:
        DataError: there are errors.
    """
    from pixelwise.commands.progress import shown_stages
    from pixelwise.data.doctor import examine
    from pixelwise.data.doctor.finding import paragraphs
    from pixelwise.errors import DataError

    with shown_stages() as advance:
        found = examine(config, cache=FOLDER / name_of(path) / FACTS, advance=advance)
    if found.errors:
        said, kinds = paragraphs(found.errors, shown=FIRST), {finding.code for finding in found.errors}
        more = f" ({len(said) - FIRST} kinds of errors more)" if len(said) > FIRST else ""
        raise DataError(
            f"{' '.join(said[:FIRST])}{more} `pixelwise check {path}` shows all; --no-check trains all the same.",
            code=kinds.pop() if len(kinds) == 1 else "PW416",
        )
    codes = sorted({finding.code for finding in found.warnings})
    if codes:
        click.echo(f"Note: the data has warnings ({', '.join(codes)}); `pixelwise check {path}` shows them.")


def _with(found: "Examination", more: Sequence["Finding"]) -> "Examination":
    from dataclasses import replace

    return replace(found, findings=(*found.errors, *more, *found.warnings))


def _show_parts(found: "Examination") -> None:
    """Print what each part holds."""
    for name, part in found.parts.items():
        click.echo(f"{name.capitalize()}: {part.scenes} scenes")
        if found.classes is None:
            continue
        total = sum(part.class_pixels) + part.ignored
        counts = zip((*found.classes.names, "(ignored)"), (*part.class_pixels, part.ignored), strict=True)
        for label, count in counts:
            click.echo(f"  {label:20}{count / max(1, total):>9.2%}{count:>16,} pixels")
        statistics = part.statistics
        for band, (mean, deviation) in enumerate(zip(statistics.mean, statistics.std, strict=True), start=1):
            click.echo(f"  band {band:<15}  mean {mean:.6g}, standard deviation {deviation:.6g}")


def _show_findings(found: "Examination", *, verbose: bool) -> None:
    """Print a row for each code, the warnings in words, and the errors where errors go."""
    from pixelwise.data.doctor import CODES
    from pixelwise.data.doctor.finding import paragraphs

    by_code: dict[str, list[Finding]] = {}
    for finding in found.findings:
        by_code.setdefault(finding.code, []).append(finding)
    if by_code:
        click.echo(f"{'code':7}{'number':>6}  {'what':50}first files")
    for code, those in by_code.items():
        files = ", ".join(dict.fromkeys(Path(finding.file).name for finding in those[:FIRST]))
        more = ", ..." if len(those) > FIRST else ""
        click.echo(f"{code:7}{len(those):>6,}  {CODES[code].what:50}{files}{more}")
    if by_code:
        click.echo(f"`pixelwise explain {next(iter(by_code))}` says what a code means, with an example.")
    shown = len(found.findings) if verbose else 10
    if verbose:
        for finding in found.findings:
            click.echo(f"{finding.severity.capitalize()} {finding.code}: {finding.message} {finding.fix}".rstrip())
    for said in () if verbose else paragraphs(found.warnings, shown):
        click.echo(f"Warning: {said}")
    for note in found.notes:
        click.echo(f"Note: {note}")
    for said in paragraphs(found.errors, shown):
        say_error(said.strip(), "")


def _suspicious(folder: Path, config: "Config", run: Path | None, folds: int | None) -> "Section":
    """Rank labels that networks contradict, write them as files, and return their part of the page.

    Args:
        run: of the network; None: one is trained for each fold.
    """
    from pixelwise.commands.progress import shown_stages
    from pixelwise.evaluation.suspect_files import write_suspect_json, write_suspect_polygons
    from pixelwise.evaluation.suspects import suspects_of, suspects_of_folds
    from pixelwise.labels import make_classes
    from pixelwise.report.suspect_gallery import suspect_section
    from pixelwise.training.folds import train_folds

    with shown_stages() as advance:
        if run is not None:
            suspects, scenes = suspects_of(run, config, advance=advance)
        else:
            assert folds is not None
            run = folder / "folds"
            trained = train_folds(config, folds, run, advance=advance)
            suspects, scenes = suspects_of_folds([(each.run.folder, each.judged) for each in trained], advance=advance)
    written = [folder / "suspicious.json"]
    write_suspect_json(written[0], suspects, run)
    if write_suspect_polygons(folder / "suspicious.gpkg", suspects, scenes):
        written.append(folder / "suspicious.gpkg")
    for rank, suspect in enumerate(suspects[:5], start=1):
        place = f"row {suspect.window.top}, column {suspect.window.left}"
        click.echo(
            f"Suspicious {rank}: {suspect.scene}, {place}: {suspect.label}, but {suspect.predicted} is predicted"
        )
    seen = sum(suspect.learned for suspect in suspects)
    note = f"; {seen} of them in images that the run has learned from" if seen else ""
    click.echo(f"{len(suspects)} labels are suspicious{note}: {', '.join(map(str, written))}.")
    return suspect_section(suspects, make_classes(config.data.classes, config.data.palette), run)


def _write(
    folder: Path, title: str, found: "Examination", config: "Config", compare: Callable[[], "Section"] | None
) -> None:
    from pixelwise.report.check_page import write_check_json, write_check_page

    sections = [] if compare is None else [compare()]
    try:
        write_check_json(folder / "check.json", title, found)
        write_check_page(folder / "check.html", title, found, config, sections)
    except MissingExtraError as problem:
        # Everything is said above, and check.json has it.
        click.echo(str(problem))
    except (OSError, ConfigError) as problem:
        click.echo(f"Note: {folder} was not written: {problem}")
    else:
        click.echo(f"{folder / 'check.html'} shows pictures and histograms.")


def _fix(path: Path, config: "Config", found: "Examination") -> None:
    from pixelwise.data.doctor.fix import fix

    fixed = fix(path, config, found)
    for said in fixed.done:
        click.echo(f"Fixed: {said}")
    for said in fixed.left:
        click.echo(f"Not fixed: {said}")
    if fixed.config is None:
        click.echo("Nothing was found that a program can correct.")
    else:
        click.echo(f"Look at the copies, then go on with: pixelwise check {fixed.config}")
