"""The pages of the site are followed from top to bottom, each in a new folder with the examples, at tiny settings."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from reader import Reader
from reader_files import EXAMPLES, prepare

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
def prepared(tmp_path_factory) -> Path:
    """The files of `reader_files.py`, made once for all processes that test."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / "reader.lock"):
        if not (base / "reader").exists():
            shutil.rmtree(base / "unfinished", ignore_errors=True)
            (base / "unfinished").mkdir()
            prepare(base / "unfinished")
            (base / "unfinished").rename(base / "reader")
    return base / "reader"


@pytest.mark.parametrize("page", PAGES, ids=[f"{page.parent.name}/{page.stem}" for page in PAGES])
def test_a_page_does_what_it_says(page, tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    reader = Reader(tmp_path)
    reader.follow(page)
    assert all(": " in reason for reason in reader.left_out)


@pytest.mark.parametrize("page", HOW_TO, ids=[page.stem for page in HOW_TO])
def test_a_how_to_does_what_it_says_on_files_that_are_there(page, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    Reader(tmp_path).follow(page)
