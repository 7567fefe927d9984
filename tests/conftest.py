"""Shapes in signatures are checked in every test."""

import sys

import pytest
import torch
from checked_types import check_types
from hypothesis import settings

check_types()
torch.set_num_threads(1)
settings.register_profile("pixelwise", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("pixelwise")


@pytest.fixture
def pixelwise(monkeypatch, capsys):
    """Run the command in this process; give its exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
        from pixelwise.cli import main

        try:
            main()
        except SystemExit as left:
            said = capsys.readouterr()
            return int(left.code or 0), said.out, said.err
        said = capsys.readouterr()
        return 0, said.out, said.err

    return run
