"""Someone who follows a page from top to bottom, in a folder of their own."""

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import blocks
from sybil import Example

from pixelwise.cli import main

QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
SHELL = re.compile(r"[|<>&;$*?`]")
"""A line with one of these outside of quotes is for the shell. Any other pixelwise line is called in this process."""
TRAINS = re.compile(r"pixelwise (train|tune)\b(?!.* --resume)")
"""The lines that a page's `settings` are added to. A run that goes on has its settings."""
LATER = 60
"""Seconds after which a command of the shell is ended."""


class Reader:
    """Runs what a page says; `website/blocks.py` has the marks.

    Args:
        tiny: with the `settings` of the page; else with those that it shows.

    Attributes:
        left_out: the reasons of the blocks that the page itself tells to skip.
    """

    def __init__(self, folder: Path, *, tiny: bool = True) -> None:
        self.folder = folder
        self.left_out: list[str] = []
        self._tiny = tiny
        self._settings = ""
        self._marks: set[str] = set()
        self._said = ""
        self._started: list[subprocess.Popen[bytes]] = []

    def follow(self, page: Path) -> None:
        """Run all of a page.

        Raises:
            AssertionError: something did not do what the page says, with its line.
        """
        with contextlib.chdir(self.folder):
            try:
                for example in blocks.parse(str(page), self._evaluate):
                    try:
                        example.evaluate()
                    except SkipTest as skipped:
                        self.left_out.append(f"{page.name}:{example.line}: {skipped}")
            finally:
                for process in self._started:
                    process.terminate()
                    process.wait()

    def _evaluate(self, example: Example) -> None:
        where = f"{example.path}:{example.line}"
        match example.parsed:
            case blocks.Mark("settings", text):
                self._settings = text if self._tiny else ""
            case blocks.Mark(name, text):
                assert text == "next", f"{where}: write `{name}: next`, not {text!r}"
                self._marks.add(name)
            case blocks.Block() as block:
                marks, self._marks = self._marks, set()
                self._block(example, block, marks, where)

    def _block(self, example: Example, block: blocks.Block, marks: set[str], where: str) -> None:
        if "prints" in marks:
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            wanted = f"...{block.source.strip()}..."
            assert doctest.OutputChecker().check_output(wanted, self._said, options), f"{where}: said\n{self._said}"
        elif block.title:
            (self.folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.title).write_text(block.source, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                # Errors name the lines of the page.
                exec(compile("\n" * example.line + block.source, example.path, "exec"), example.namespace)
            self._said = said.getvalue()
        elif block.language == "sh":
            for line in command_lines(block.source):
                self._said = self._line(line, 1 if "fails" in marks else 0, where)
        else:
            assert block.language, f"{where}: a block without a language; write sh for commands, text for what is said"

    def _line(self, line: str, status: int, where: str) -> str:
        if TRAINS.match(line):
            line = f"{line} {self._settings}"
        if line.endswith("&"):
            self._started.append(subprocess.Popen(["bash", "-c", f"exec {line[:-1]}"], env=_environment()))
            return ""
        if line.startswith("pixelwise ") and not SHELL.search(QUOTED.sub("", line)):
            got, said = run_here(shlex.split(line))
        else:
            done = subprocess.run(
                ["bash", "-c", line], env=_environment(), capture_output=True, text=True, check=False, timeout=LATER
            )
            got, said = done.returncode, done.stdout + done.stderr
        assert got == status, f"{where}: {line}\nexit status {got}, not {status}:\n{said}"
        return said


def command_lines(source: str) -> list[str]:
    """Return the commands of a block, without comments; a line that ends with a backslash goes on in the next."""
    lines = re.sub(r"\s*\\\n\s*", " ", source).splitlines()
    return [line for each in lines if (line := re.sub(r"(^|\s+)# .*", "", each).strip())]


def run_here(words: list[str]) -> tuple[int, str]:
    """Run the pixelwise command in this process; return its exit status and what it says."""
    said, arguments, status = io.StringIO(), sys.argv, 0
    sys.argv = words
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as left:
        status = int(left.code or 0)
    finally:
        sys.argv = arguments
    return status, said.getvalue()


def _environment() -> dict[str, str]:
    """Return the environment, in which `python` and `pixelwise` are those that run the tests."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
