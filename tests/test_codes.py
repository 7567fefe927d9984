"""Codes of errors and findings: the table, what is raised, the page, and the command."""

import ast
import json
import pickle
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from pixelwise import errors
from pixelwise.cli import commands, main
from pixelwise.codes import GROUPS, codes, codes_about, errors_page, near_codes
from pixelwise.config import parse_config
from pixelwise.config_table import merged

ROOT = Path(__file__).parents[1]
SMALLEST = {"images": "images", "labels": "masks", "classes": ["background", "road"]}


def explain(*arguments):
    return CliRunner().invoke(commands, ["explain", *arguments])


def codes_in_the_program():
    """Return every text of the program that is a code."""
    found = set()
    for path in (ROOT / "src" / "pixelwise").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"PW\d{3}", node.value):
                found.add(node.value)
    return found


def test_every_code_that_is_raised_or_found_is_in_the_table_and_the_other_way_round():
    assert codes_in_the_program() == set(codes())


@pytest.mark.parametrize("code", codes())
def test_every_code_says_what_why_how_to_fix_it_and_shows_an_example(code):
    about = codes()[code]
    assert code[:3] in GROUPS
    assert about.what
    assert not about.what.endswith(".")
    assert about.why.endswith(".")
    assert about.fix.endswith(".")
    assert len(about.example.splitlines()) >= 1
    assert not re.search(r"TODO|\.\.\.$", f"{about.why} {about.fix}")


@pytest.mark.parametrize("code", codes())
def test_commands_of_examples_are_commands_of_pixelwise(code):
    for line in re.findall(r"^\$ (pixelwise .*)", codes()[code].example, re.MULTILINE):
        name, *rest = shlex.split(line.split("  #")[0])[1:]
        # It stops at the first option that is not known.
        commands.commands[name].make_context(name, rest)


def last_configuration(example):
    """Return the last configuration of an example: its last paragraphs of TOML with different heads."""
    found, heads = {}, []
    for paragraph in reversed(example.split("\n\n")):
        head = paragraph.splitlines()[0]
        if not re.match(r"\[\w+(\.\w+)?\]$", head) or head in heads:
            break
        heads.append(head)
        found = merged(tomllib.loads(paragraph), found)
    return found


@pytest.mark.parametrize("code", [code for code, about in codes().items() if last_configuration(about.example)])
def test_the_last_configuration_of_an_example_is_one_that_loads(code):
    told = last_configuration(codes()[code].example)
    without_masks = {key: value for key, value in SMALLEST.items() if key != "labels"}
    base = without_masks if "annotations" in told.get("data", {}) else SMALLEST
    parse_config(merged({"data": base}, told), code)


def test_the_page_is_what_the_command_prints():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert page == errors_page() == explain("--markdown").output
    assert re.findall(r"^### (PW\d+)$", page, re.MULTILINE) == list(codes())


def test_explain_prints_all_four_parts_and_takes_small_letters():
    about, said = codes()["PW120"], explain("pw120")
    assert said.exit_code == 0
    words = said.output.split()
    for text in (about.what, about.why, about.fix, about.example):
        assert " ".join(text.split()) in " ".join(words)
    assert max(map(len, said.output.splitlines()[:6])) <= 100


def test_explain_as_json_holds_one_code_or_all():
    assert json.loads(explain("PW120", "--json").output) == {"code": "PW120", **codes()["PW120"].to_dict()}
    assert set(json.loads(explain("--json").output)) == set(codes())


def test_explain_without_a_code_lists_all_and_with_words_those_that_are_about_them():
    assert re.findall(r"^  (PW\d+)  ", explain().output, re.MULTILINE) == list(codes())
    assert re.findall(r"^  (PW\d+)  ", explain("licence").output, re.MULTILINE) == codes_about("licence")
    assert "PW505" in codes_about("licence")


def test_an_unknown_code_is_wrong_usage_and_names_near_ones():
    said = explain("PW999")
    assert said.exit_code == 2
    assert "There is no code PW999" in said.output
    assert near_codes("PW999")[0].startswith("PW9")
    assert near_codes("104") == near_codes("PW-104") == ["PW104"]
    assert explain("qwertz").exit_code == 2


KINDS = [errors.PixelwiseError, errors.ConfigError, errors.DataError, errors.WeightsError, errors.MissingExtraError]


@pytest.mark.parametrize("kind", [*KINDS, errors.NotEnoughMemoryError])
def test_an_error_has_the_code_of_its_kind_or_a_finer_one_which_its_text_does_not_show(kind):
    assert kind.code in codes()
    plain, finer = kind("It is wrong."), kind("It is wrong.", code="PW505")
    assert (str(plain), plain.code) == ("It is wrong.", kind.code)
    assert (str(finer), finer.code) == ("It is wrong.", "PW505")
    # Processes and clusters send errors to each other.
    assert pickle.loads(pickle.dumps(finer)).code == "PW505"
    assert kind.code != "PW505"


def said_by(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["pixelwise", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    return capsys.readouterr().err


def test_the_command_line_ends_an_error_with_its_code(monkeypatch, capsys, tmp_path):
    said = said_by(monkeypatch, capsys, "train", str(tmp_path / "nothing.toml"))
    assert said.startswith("Error: There is no configuration")
    assert said.endswith("[pixelwise explain PW301]\n")
    (tmp_path / "wrong.toml").write_text("[data\n")
    assert said_by(monkeypatch, capsys, "check", str(tmp_path / "wrong.toml")).endswith("[pixelwise explain PW302]\n")
    (tmp_path / "key.toml").write_text('[data]\nimages = "a"\nlabels = "b"\nclasses = ["a", "b"]\n[train]\nstep = 3\n')
    assert said_by(monkeypatch, capsys, "check", str(tmp_path / "key.toml")).endswith("[pixelwise explain PW303]\n")
    assert said_by(monkeypatch, capsys, "predict", str(tmp_path), "a.tif", "b.tif").endswith(
        "[pixelwise explain PW509]\n"
    )


def test_an_error_without_a_kind_of_ours_has_the_code_of_the_system(monkeypatch, capsys):
    def fail():
        raise PermissionError(13, "Permission denied", "scenes/7.tif")

    monkeypatch.setattr(commands, "main", lambda **_: fail())
    said = said_by(monkeypatch, capsys)
    assert said == "Error: scenes/7.tif: Permission denied. [pixelwise explain PW905]\n"
