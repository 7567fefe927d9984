"""The command that serves: what it says before it listens."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner
from small_server import write_model

from pixelwise.cli import commands
from pixelwise.errors import ConfigError, WeightsError


def said(error, *arguments):
    with pytest.raises(error) as problem:
        CliRunner().invoke(commands, ["serve", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)
    return str(problem.value)


def test_a_port_that_is_taken_is_told_before_a_model_is_read():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}, failed" in said(ConfigError, "nothing", "--port", port)


@pytest.mark.parametrize("option", ["--queue", "--max-body", "--timeout", "--rate"])
def test_a_limit_of_nothing_is_refused(option):
    assert "above 0" in said(ConfigError, "nothing", "--port", 0, option, 0)


def test_a_model_that_is_not_there_is_told(tmp_path):
    assert "holds no model" in said(WeightsError, tmp_path, "--port", 0)


def test_a_server_listens_and_ends_at_ctrl_c(tmp_path):
    model = write_model(tmp_path / "fields")
    command = [sys.executable, "-m", "pixelwise", "serve", str(model), "--port", "0", "--jobs", str(tmp_path / "jobs")]
    process = subprocess.Popen(
        command,
        stdout=-1,
        stderr=-1,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Whoever starts the tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines[0].startswith("fields, version 1: unet on torch")
    assert lines[1].startswith("Open http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, (out, error)
    assert "Jobs go on" in error
    assert "Traceback" not in error
