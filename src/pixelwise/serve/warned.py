"""What the library warns of while it works for a request, kept for its answer."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

from pixelwise.errors import ContractWarning

_heard = local()


@contextmanager
def notes_kept() -> Iterator[list[str]]:
    """Give a list that gets what this thread is warned of, such as an image of another resolution."""
    _heard.notes = notes = list[str]()
    try:
        yield notes
    finally:
        del _heard.notes


@contextmanager
def warnings_heard() -> Iterator[None]:
    """Let `notes_kept` hear warnings, of all threads, as long as a server runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ContractWarning)
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            notes = getattr(_heard, "notes", None)
            if notes is not None and issubclass(category, ContractWarning):
                notes.append(str(message))
            else:
                shown(message, category, *place)

        warnings.showwarning = show
        yield
