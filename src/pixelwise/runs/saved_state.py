"""The state that a run goes on from: two generations, each whole on the disk before an older one goes.

torch is imported where a state is read or written: a run is looked at, and its page written, without torch.
"""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.files import replacing

STATE, EARLIER_STATE = "state.pt", "earlier.pt"
"""In ``last/``: the newest state and the one before, which is used if the newest is damaged."""


def save_state(folder: Path, state: dict) -> None:
    """Write a state; the one before it becomes the earlier one.

    Raises:
        ConfigError: the disk is full. What was saved before stays.
    """
    import torch

    newest = folder / STATE
    with replacing(newest) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # torch says where in its own code it failed to write, and not why.
            raise ConfigError(
                f"{newest} could not be written ({' '.join(str(error).split())[:80]}). Is the disk full? Make "
                f"room: a state takes {_size_of(state) / 1e6:,.0f} MB, and two are kept. --resume then goes on.",
                code="PW803",
            ) from None
        # The new state is whole now, and gets its name right after.
        earlier = newest.with_name(EARLIER_STATE)
        if newest.is_file():
            if earlier.is_dir():
                # A file does not replace a folder.
                _clear(earlier)
            os.replace(newest, earlier)


def load_state(folder: Path, say: Callable[[str], None]) -> dict | None:
    """Return the newest state that is whole; None if there is none, whole or damaged.

    Args:
        say: called with a sentence if the newest state is damaged and the one before is used.

    Raises:
        ConfigError: all states are damaged.
    """
    newest = folder / STATE
    problems = []
    for path in (newest, newest.with_name(EARLIER_STATE)):
        if not os.path.lexists(path):
            continue
        try:
            state = read_state(path)
        except ValueError as problem:
            problems.append(f"{path} is damaged ({problem})")
            continue
        if path != newest and problems:
            say(f"{problems[0]}. Going on from the state before it, of step {state['step']}.")
        if path != newest:
            # Else the next state would replace the good one, and the damaged one would stay.
            _clear(newest)
            os.replace(path, newest)
        return state
    if problems:
        raise ConfigError(
            f"{' and '.join(problems)}, so this run cannot go on. Restore it from a copy, or begin again in another "
            "folder (--run).",
            code="PW605",
        )
    return None


def read_state(path: Path) -> dict:
    """Read a state, and check the checksums that torch writes beside every tensor but does not check.

    Raises:
        ValueError: it is not as it was written; the message says how.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
        if bad is not None:
            raise ValueError(f"the checksum of {bad} is wrong")
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None
    kinds = {"model": dict, "average": dict, "optimizer": dict, "step": int, "best": float, "seconds": float}
    wrong = [key for key, kind in kinds.items() if not isinstance(state, dict) or not isinstance(state.get(key), kind)]
    if wrong:
        raise ValueError(f"it is not the state of a run: {wrong[0]} is missing")
    return state


def _size_of(state: object) -> int:
    if (size := getattr(state, "nbytes", None)) is not None:
        return size
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return sum(map(_size_of, parts))


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
