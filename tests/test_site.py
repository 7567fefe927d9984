"""The site: its reference says what the code has, and its links lead where GitHub's do. `make docs` builds it."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import reference
from links import placed_links

import pixelwise
from pixelwise.cli import commands
from pixelwise.config import Config, explain_config

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_in_the_reference_of_python():
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)}
    # It is a pydantic model, whose keys have a page of their own.
    assert set(pixelwise.__all__) - documented == {"Config"}


def test_every_command_and_every_option_is_in_the_reference_of_commands():
    page = reference.commands_page()
    for name, command in commands.commands.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = command.get_help(click.Context(command, info_name=name)).partition("Options:")[2]
        assert set(re.findall(r"(?<!\S)--[\w-]+", options)) - {"--help"} <= set(re.findall(r"--[\w-]+", section))
        assert "```sh\npixelwise" in section


def test_every_key_with_its_default_is_in_the_reference_of_keys():
    page = reference.keys_page()
    rows = {table: page.partition(f"{{ #{table} }}")[2].partition("\n## ")[0] for table in Config.model_fields}
    for table, text in re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[\w+\]$|\Z)", explain_config(), re.MULTILINE | re.DOTALL):
        for key, value in re.findall(r"^(\w+) = (\S.*?) +# ", text, re.MULTILINE):
            row = re.search(rf"^\| `{key}` \|.*$", rows[table], re.MULTILINE)
            assert row, f"[{table}].{key}"
            # TOML and Python quote texts differently.
            assert f"`{value}`".replace('"', "'") in row[0].replace('"', "'"), row[0]


def test_no_row_of_a_table_has_another_number_of_cells_than_its_head():
    for text in reference.pages().values():
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize(
    ("uri", "link", "placed"),
    [
        ("index.md", "start/install.md", "start/install.md"),
        ("versions.md", "../CHANGELOG.md", "project/changes.md"),
        ("models/unet.md", "../provenance.md#models", "../provenance.md#models"),
        ("project/changes.md", "docs/scenes.md", "../scenes.md"),
        ("project/benchmarks.md", "../docs/performance.md", "../performance.md"),
        ("project/contributing.md", "CHANGELOG.md", "changes.md"),
        ("start/install.md", "../../README.md", "../index.md"),
        ("project/examples.md", "fields_model/README.md", "fields_model.md"),
        ("index.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("index.md", "nowhere/at/../../../all.md", "nowhere/at/../../../all.md"),
    ],
)
def test_a_link_leads_to_where_the_site_has_the_file(uri, link, placed):
    assert placed_links(f"see [it]({link}).", uri) == f"see [it]({placed})."


def test_the_reference_is_made_without_torch():
    code = "import sys, reference; reference.pages(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "website", check=True)
