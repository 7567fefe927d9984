"""How a page is shown at once, where somebody sits in front of the machine."""

import os
import sys
import webbrowser
from pathlib import Path


def has_display() -> bool:
    """Return whether a browser would have a screen to open on.

    On Linux a desktop says so by variables. macOS and Windows have one, but not for who came in by SSH.
    """
    if sys.platform in ("darwin", "win32"):
        return not os.environ.get("SSH_CONNECTION")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_page(path: Path) -> bool:
    """Open a page in the user's browser, and return whether that worked. Without a display nothing is tried."""
    # Without this check a browser for terminals would take over the terminal.
    return has_display() and webbrowser.open(path.resolve().as_uri())
