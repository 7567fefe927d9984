"""What the pages say is there: links, files, commands, configurations and calls."""

import ast
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import reference

import pixelwise
from pixelwise.cli import commands
from pixelwise.config import Config, parse_config
from pixelwise.config_table import merged
from pixelwise.predictor import Predictor

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for room in ("docs", "examples", "benchmarks") for page in (ROOT / room).rglob("*.md"))]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
ROOMS = ("src", "tests", "benchmarks", "examples", "release", "website")
CODE = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
SMALLEST = {"data": {"images": "images", "labels": "masks", "classes": ["background", "road"]}}
TABLES = {name: entry.annotation.model_fields for name, entry in Config.model_fields.items()}
CALLS = {"pw": pixelwise, "pixelwise": pixelwise, "predictor": Predictor}

MADE = {ROOT / "docs" / uri for uri in reference.pages()}
"""Pages that only the site has."""

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def blocks(page, *languages):
    """Return the fenced blocks of some languages."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def prose(page):
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def outside(line, arguments):
    """Return what is wrong with a command line, or an empty text; missing arguments are not."""
    if not arguments:
        return ""
    name, *rest = arguments
    if name not in commands.commands:
        return "" if name in ("--help", "--version") else f"{line}: there is no command {name!r}"
    try:
        commands.commands[name].make_context(name, rest)
    except (click.MissingParameter, click.exceptions.Exit):
        return ""
    except click.UsageError as problem:
        return f"{line}: {problem.format_message()}"
    return ""


@each_page
def test_relative_links_and_their_anchors_exist(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if linked in MADE and not anchor:
            continue
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            wrong.append(target)
    assert wrong == []


def unknown_files(text):
    """Return the Python files that a text names in backticks and that are not there."""
    named = re.findall(r"`(?:\w+ )*?([\w/]+\.py)\b", text)
    return [name for name in named if not any(f"/{path.as_posix()}".endswith(f"/{name}") for path in CODE)]


@each_page
def test_code_files_that_are_named_exist(page):
    # The changelog also names what went.
    assert unknown_files("" if page.name == "CHANGELOG.md" else page.read_text(encoding="utf-8")) == []


def test_code_names_only_files_that_exist():
    found = {path.name: unknown_files(path.read_text(encoding="utf-8")) for path in CODE if path != Path(__file__)}
    assert {name: unknown for name, unknown in found.items() if unknown} == {}


def test_the_architecture_names_every_room_and_only_what_is_there():
    source = ROOT / "src" / "pixelwise"
    rows = re.findall(
        r"^\| `(\w+)/` \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {room for room, _ in rows} == {path.name for path in source.iterdir() if (path / "__init__.py").exists()}
    wrong = [
        f"{room}/{name}"
        for room, text in rows
        for name in re.findall(r"`(\w+)`", text)
        if not (source / room / f"{name}.py").exists()
    ]
    assert wrong == []


@each_page
def test_commands_parse(page):
    text = "\n".join([*blocks(page, "", "sh", "bash"), *re.findall(r"`(pixelwise [^`]+)`", prose(page))])
    text = text.replace("\\\n", " ")
    lines = re.findall(r"(?:^|[\s;])(pixelwise(?: [^;#\n]*)?)", text, re.MULTILINE)
    problems = (outside(line, shlex.split(line.split(" > ")[0])[1:]) for line in lines)
    assert [problem for problem in problems if problem] == []


@each_page
@pytest.mark.filterwarnings("error::pixelwise.errors.OldNameWarning")
def test_configurations_load(page):
    for text in blocks(page, "toml"):
        table = tomllib.loads(text)
        table.pop("base", None)
        smallest = SMALLEST["data"]
        if "annotations" in table.get("data", {}):
            smallest = {key: value for key, value in smallest.items() if key != "labels"}
        parse_config(merged({"data": smallest}, table), page.name)


@each_page
def test_keys_that_are_named_are_known(page):
    # `[train].steps`, `[train] steps` and `--set train.steps=200`.
    text = "" if page.name == "CHANGELOG.md" else page.read_text(encoding="utf-8")
    rooms = "|".join(TABLES)
    named = re.findall(rf"\[({rooms})\]\.(\w+)", text) + re.findall(rf"`\[({rooms})\] (\w+)", text)
    named += re.findall(rf"--set ({rooms})\.(\w+)", text)
    assert [f"[{table}].{key}" for table, key in named if key not in TABLES[table]] == []


@each_page
def test_python_compiles_and_calls_what_there_is(page):
    wrong = []
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner, name = ast.unparse(node.func.value), node.func.attr
            if owner not in CALLS:
                continue
            called = getattr(CALLS[owner], name, None)
            if called is None:
                wrong.append(f"{owner}.{name}")
                continue
            parameters = inspect.signature(called).parameters
            if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
                continue
            wrong += [f"{owner}.{name}({key.arg}=)" for key in node.keywords if key.arg not in parameters]
    assert wrong == []


@each_page
def test_benchmarks_have_the_options_that_are_named(page):
    wrong = []
    for name, arguments in re.findall(r"python (benchmarks/\w+\.py)([^`\n]*)", page.read_text(encoding="utf-8")):
        source = (ROOT / name).read_text(encoding="utf-8")
        wrong += [f"{name} {flag}" for flag in re.findall(r"--[\w-]+", arguments) if f'"{flag}"' not in source]
    assert wrong == []
