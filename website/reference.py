"""Pages of the reference that are made from the code itself: commands from click, keys from pydantic's schema."""

import inspect
import re
import textwrap
from typing import Any

import click

from pixelwise.cli import commands
from pixelwise.config import Config

GROUPS = {
    "Begin": ("demo", "init", "doctor", "check", "split", "explain"),
    "Train": ("train", "tune", "report", "compare"),
    "Score": ("evaluate", "calibrate", "analyze"),
    "Map": ("predict", "polygonize", "score-parcels"),
    "Networks and weights": ("models", "weights", "licences", "prune"),
    "Ship": ("export", "profile", "serve"),
}
"""In which order commands are shown. One that is in no group comes under *More*."""


def pages() -> dict[str, str]:
    """Return the made pages, by their place on the site."""
    return {"reference/commands.md": commands_page(), "reference/keys.md": keys_page()}


def commands_page() -> str:
    """Return every command with its help, its example, its arguments and its options."""
    parts = [
        "# Commands\n",
        "What `pixelwise COMMAND --help` says, made from the commands themselves. The exit status is 0, or 1 for a "
        "mistake that the message tells how to fix, 2 for a wrong option, 130 after Ctrl-C, and 128 and its number "
        "after another signal.\n",
    ]
    grouped = {name for names in GROUPS.values() for name in names}
    groups = GROUPS | {"More": tuple(name for name in commands.commands if name not in grouped)}
    there = {group: [name for name in names if name in commands.commands] for group, names in groups.items()}
    for group, names in there.items():
        rows = [f"| [`{name}`](#{name}) | {commands.commands[name].get_short_help_str(200)} |" for name in names]
        if rows:
            parts += [f"**{group}**\n", "| command | what it does |\n|---|---|", "\n".join(rows) + "\n"]
    for names in there.values():
        parts += [command_section(name, commands.commands[name]) for name in names]
    return "\n".join(parts)


def command_section(name: str, command: click.Command) -> str:
    """Return what one command's help says, as Markdown."""
    context = click.Context(command, info_name=f"pixelwise {name}")
    said, _, example = inspect.cleandoc(command.help or "").partition("\b\n")
    heading, _, lines = example.partition("\n")
    parts = [f"## {name}\n", said.strip() + "\n"]
    if lines:
        parts += [f"{heading.strip()}\n", f"```sh\n{textwrap.dedent(lines).strip()}\n```\n"]
    parts += [f"```text\n{command.get_usage(context)}\n```\n"]
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [record for each in options if (record := each.get_help_record(context))]
    rows = [f"| `{one_line(flags)}` | {cell(meaning)} |" for flags, meaning in records if "--help" not in flags]
    if rows:
        parts += ["| option | meaning |\n|---|---|", "\n".join(rows) + "\n"]
    return "\n".join(parts)


def keys_page() -> str:
    """Return every key of the configuration with its type, its default and its meaning."""
    schema = Config.model_json_schema()
    parts = [
        "# Every key of the configuration\n",
        "Made from the keys themselves; `pixelwise train --print-config` prints the same as a file. "
        "[Configuration](../configuration.md) says how a file is written.\n",
    ]
    for table, entry in Config.model_fields.items():
        model: Any = entry.annotation
        properties = schema["$defs"][model.__name__]["properties"]
        parts += [f"## `[{table}]` {{ #{table} }}\n", f"{inspect.cleandoc(model.__doc__ or '')}\n"]
        parts += ["| key | meaning | default | value |\n|---|---|---|---|"]
        for key, field in model.model_fields.items():
            default = "**needed**" if field.is_required() else shown_default(field.get_default())
            allowed = cell(value_of(properties[key], schema))
            parts += [f"| `{key}` | {cell(field.description or '')} | {default} | {allowed} |"]
        parts += [""]
    return "\n".join(parts)


def value_of(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what a key may hold, in words, from its part of the JSON schema."""
    if "$ref" in about:
        return value_of(schema["$defs"][about["$ref"].rsplit("/", 1)[1]], schema)
    if "anyOf" in about:
        kinds = [value_of(each, schema) for each in about["anyOf"] if each.get("type") != "null"]
        one, *more = dict.fromkeys(kinds)
        return f"{one}, or a list of them" if more == [f"list: {one}"] else " or ".join([one, *more])
    if "enum" in about:
        return ", ".join(f"`{each}`" for each in about["enum"])
    if "const" in about:
        return f"`{about['const']}`"
    kind = about.get("type")
    if kind == "array":
        return f"list: {value_of(about['items'], schema)}" if about.get("items") else "list"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    word = "path" if about.get("format") == "path" else words.get(str(kind), "table" if kind == "object" else "value")
    limits = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    return " ".join([word, *(f"{said} {about[limit]:g}" for limit, said in limits if limit in about)])


def shown_default(value: object) -> str:
    """Return a default as TOML has it; a key without one is shown as a dash."""
    if value is None or value == {}:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(repr(each) for each in value)}]`"
    return f"`{value!r}`" if isinstance(value, str) else f"`{value}`"


def one_line(text: str) -> str:
    """Return text without line breaks, and with bars that part no cells."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def cell(text: str) -> str:
    """Return text that may stand in a cell of a table."""
    text = one_line(text)
    # Outside of code, angle brackets would be tags, and square ones links.
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("[", "\\[") for part in parts[::2]]
    return re.sub(r"docs/(\w+)\.md", r"[\1](../\1.md)", "`".join(parts))
