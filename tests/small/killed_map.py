"""A process that maps a scene and dies when it is told to."""

import multiprocessing
import os
import signal
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from small_network import predictor_of

from pixelwise.mapping import map_scene as scenes


def map_until_killed(scene: Path, output: Path, log: Path, fatal: int, pause: float, piece: int) -> None:
    """Map a scene in this process, and die just before (below 0) or after one of the renames, if ``fatal`` says so.

    Args:
        log: gets a line for each tile that goes through the network.
        pause: seconds that each tile takes longer.
    """
    torch.set_num_threads(1)
    scenes.PIECE = piece
    predictor = predictor_of()
    decode, rename, moved = predictor.model.decode, os.replace, [0]

    def slow_decode(image):
        if image.shape[-1] == 64 and image.any():
            with log.open("a") as file:
                file.write("tile\n")
            time.sleep(pause)
        return decode(image)

    def deadly_rename(old, new):
        # Every file gets its name by a rename.
        moved[0] += 1
        if moved[0] == -fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(old, new)
        if moved[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    predictor.model.decode = slow_decode
    os.replace = deadly_rename
    predictor.map_scene(scene, output, confidence=True, probabilities=True)


def fork_server(patched: pytest.MonkeyPatch) -> ForkServerContext:
    """Return a context whose processes are copies of one that has imported everything, so each starts at once."""
    context = multiprocessing.get_context("forkserver")
    # The server looks for what it imports first along this path.
    patched.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    context.set_forkserver_preload(["killed_map"])
    return context


def wait_for(process: BaseProcess) -> int | None:
    """Wait for the end of a process and return its exit status, below 0 for a signal."""
    process.join()
    return process.exitcode
