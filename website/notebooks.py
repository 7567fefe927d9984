"""Notebooks made from the tutorials: `python website/notebooks.py` writes, `--check` compares, `--run` tries one."""

import argparse
import os
import posixpath
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import blocks
import jupytext
import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "examples" / "notebooks"
BEGIN = """\
Everything is made in a new folder, with a copy of the examples. Start Jupyter in the folder of this notebook, with the
Python that has pixelwise: `pip install jupyterlab`, then `jupyter lab`.

```python
import os
import shutil
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp(prefix="pixelwise-"))
shutil.copytree(Path.cwd().parent, folder / "examples", ignore=shutil.ignore_patterns("notebooks"))
os.chdir(folder)
print(folder)
```
"""
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
LONGEST = 900
"""Seconds for a cell of `--run`."""


def pages() -> list[Path]:
    """Return the pages that become notebooks: the first map, and the tutorials that have commands to run."""
    tutorials = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
    return [ROOT / "docs" / "start" / "first_map.md", *(page for page in tutorials if cells(page))]


def cells(page: Path) -> int:
    """Return how many blocks of a page become cells."""
    return sum(as_cell(each.parsed) is not None for each in blocks.parse(str(page), lambda example: None))


def notebook(page: Path, *, tiny: bool = False) -> Any:
    """Return a page as a notebook without outputs.

    Args:
        tiny: with the `settings` of the page, as the tests run it.
    """
    document = blocks.parse(str(page), lambda example: None)
    text, end, settings, left_out = [], 0, "", False
    for example in document:
        parsed = example.parsed
        text.append(document.text[end : example.start])
        end = example.end
        if isinstance(parsed, blocks.Mark):
            settings = parsed.text if tiny and parsed.name == "settings" else settings
        elif not isinstance(parsed, blocks.Block):
            left_out, end = True, blocks.end_of_comment(document, end)  # Sybil's skip
        else:
            cell = None if left_out else as_cell(parsed, settings)
            text.append(f"```python\n{cell}\n```" if cell else shown(parsed))
            left_out = False
    title, _, rest = without_front_matter("".join([*text, document.text[end:]])).partition("\n")
    written = f"{title}\n\n{BEGIN}\n{placed(rest, page)}"
    made = jupytext.reads(re.sub(r"\n{3,}", "\n\n", written), fmt="md")
    made.metadata = nbformat.from_dict(METADATA)
    for number, each in enumerate(made.cells):
        # Names of cells are random otherwise, and a notebook would differ each time that it is made.
        each["id"] = f"{page.stem}-{number}"
    return made


def as_cell(parsed: object, settings: str = "") -> str | None:
    """Return the code of a cell, or None for what a reader only reads."""
    if not isinstance(parsed, blocks.Block):
        return None
    if parsed.title:
        source = textwrap.dedent(parsed.source).rstrip()
        return f"%%writefile {parsed.title}\n{source}"
    if parsed.language == "python":
        return parsed.source.rstrip()
    if parsed.language != "sh" or parsed.hidden:
        return None
    lines = re.sub(r"\s*\\\n\s*", " ", parsed.source).splitlines()
    trained = [f"{line.split('  #')[0].split(' # ')[0]} {settings}" if trains(line) else line for line in lines]
    return "\n".join(line if line.startswith("#") or not line.strip() else f"!{line}" for line in trained).rstrip()


def trains(line: str) -> bool:
    """Return whether a page's `settings` belong to a command."""
    return bool(re.match(r"pixelwise (train|tune)\b(?!.* --resume)", line))


def shown(block: blocks.Block) -> str:
    """Return a block that is not run; without a language jupytext makes no cell of it."""
    return "" if block.hidden else f"```\n{block.source}```"


def without_front_matter(text: str) -> str:
    """Return a page without what stands between dashes at its top."""
    return re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.DOTALL)


def placed(text: str, page: Path) -> str:
    """Return text whose links lead from the notebooks' folder to what they name."""

    def lead(found: re.Match[str]) -> str:
        target = (page.parent / found[2]).resolve()
        return f"{found[1]}{posixpath.relpath(target.as_posix(), NOTEBOOKS.as_posix())}{found[3]}"

    return LINK.sub(lead, text)


def path_of(page: Path) -> Path:
    """Return where a page's notebook lies."""
    return NOTEBOOKS / f"{page.stem}.ipynb"


def differing() -> list[str]:
    """Return the notebooks that are not as their pages are, those that are missing, and those without a page."""
    wanted = {path_of(page): nbformat.writes(notebook(page)) + "\n" for page in pages()}
    there = {path: path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob("*.ipynb")}
    return sorted(path.name for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))


def main() -> None:
    """Write the notebooks, or compare or run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a notebook is not as its page is")
    parser.add_argument("--run", metavar="NAME", help="run the notebook of a page at tiny settings")
    given = parser.parse_args()
    if given.check and (wrong := differing()):
        sys.exit(f"Notebooks that are not as their pages are: {', '.join(wrong)}. `make notebooks` makes them again.")
    if given.run:
        from nbclient import NotebookClient

        # Cells call the command that belongs to this Python, whether or not its environment is active.
        os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        page = next(page for page in pages() if page.stem == given.run)
        NotebookClient(
            notebook(page, tiny=True), timeout=LONGEST, resources={"metadata": {"path": NOTEBOOKS}}
        ).execute()
        print(f"{given.run}: every cell ran")
    if not given.check and not given.run:
        NOTEBOOKS.mkdir(exist_ok=True)
        for path in NOTEBOOKS.glob("*.ipynb"):
            path.unlink()
        for page in pages():
            path_of(page).write_text(nbformat.writes(notebook(page)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
