"""What the check of a release would stop."""

import importlib.util
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

spec = importlib.util.spec_from_file_location("release_check", Path(__file__).parents[1] / "release" / "check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

NAMES = ["LICENSE", "README.md", "src/pixelwise/__init__.py", "src/pixelwise/hub/costs.json", "tests/test_a.py"]
RECORDS = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")


def packed(folder, in_sdist, in_wheel):
    """Write an sdist and a wheel with files of these names."""
    (folder / "empty").touch()
    with tarfile.open(folder / "pixelwise-1.0.tar.gz", "w:gz") as archive:
        for name in in_sdist:
            archive.add(folder / "empty", f"pixelwise-1.0/{name}")
    with zipfile.ZipFile(folder / "pixelwise-1.0-py3-none-any.whl", "w") as archive:
        for name in [*in_wheel, *(f"pixelwise-1.0.dist-info/{record}" for record in RECORDS)]:
            archive.writestr(name, "")
    return folder / "pixelwise-1.0.tar.gz", folder / "pixelwise-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("lost", "more", "said"),
    [
        ([], [], []),
        (["pixelwise/hub/costs.json"], [], ["the wheel lacks pixelwise/hub/costs.json"]),
        ([], ["tests/test_a.py"], ["the wheel has tests/test_a.py, which nobody wants"]),
    ],
)
def test_files_that_are_missing_or_too_much_are_named(tmp_path, lost, more, said):
    wheel = {"pixelwise/__init__.py", "pixelwise/hub/costs.json"} - set(lost) | set(more)
    assert check.wrong_contents(NAMES, *packed(tmp_path, [*NAMES, "PKG-INFO"], wheel)) == said


def test_an_sdist_without_a_tracked_file_is_named(tmp_path):
    wheel = ["pixelwise/__init__.py", "pixelwise/hub/costs.json"]
    found = check.wrong_contents(NAMES, *packed(tmp_path, [*NAMES[1:], "PKG-INFO"], wheel))
    assert found == ["the sdist lacks LICENSE"]


@pytest.mark.parametrize(("licence", "wrong"), [("MIT", []), ("GPL-3.0-only", ["one: GPL-3.0-only"])])
def test_a_licence_that_is_not_on_the_list_is_named(monkeypatch, licence, wrong):
    monkeypatch.setattr(check, "_said", lambda command: json.dumps([{"Name": "One", "License": licence}]))
    assert check.wrong_licences({"one"}) == wrong


def test_a_package_without_a_licence_is_named(monkeypatch):
    monkeypatch.setattr(check, "_said", lambda command: "[]")
    assert check.wrong_licences({"one"}) == ["one: stated nowhere"]


def test_what_pixelwise_rests_on_has_no_tools_of_developers():
    found = check.rested_on()
    assert {"numpy", "pydantic-core"} <= found
    assert not {"pytest", "ruff", "pixelwise"} & found
    assert all(name == canonicalize_name(name) for name in found)
