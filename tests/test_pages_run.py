"""The pages of the site are followed from top to bottom, each in a new folder with the examples, at tiny settings."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from reader import Reader
from reader_files import copy_examples, prepare

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted([*(DOCS / "start").glob("*.md"), *(DOCS / "tutorials").glob("*.md"), *(DOCS / "explain").glob("*.md")])
HOW_TO = sorted((DOCS / "howto").glob("*.md"))

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the pages' commands are those of a POSIX shell"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Commands that are started apart use one core too, and nobody's cache."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder for what is made once for all processes that test."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder, unless another process of this test run has."""
    finished = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not finished.exists():
            # Made in its place, since runs name their data by absolute paths.
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            finished.touch()
    return folder


@pytest.fixture(scope="session")
def examples(made) -> Path:
    return once(made / "reader-examples", copy_examples)


@pytest.fixture(scope="session")
def prepared(made) -> Path:
    return once(made / "reader-files", prepare)


@pytest.mark.parametrize("page", PAGES, ids=[f"{page.parent.name}/{page.stem}" for page in PAGES])
def test_a_page_does_what_it_says(page, examples, tmp_path):
    shutil.copytree(examples, tmp_path / "examples")
    reader = Reader(tmp_path)
    reader.follow(page)
    assert all(reason.partition(": ")[2] for reason in reader.left_out)


@pytest.mark.parametrize("page", HOW_TO, ids=[page.stem for page in HOW_TO])
def test_a_how_to_does_what_it_says_on_files_that_are_there(page, examples, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    shutil.copytree(examples, tmp_path / "examples")
    reader = Reader(tmp_path)
    reader.follow(page)
    assert all(reason.partition(": ")[2] for reason in reader.left_out)
