"""What GDAL says in other bytes than UTF-8 does not belong on the user's screen."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


@contextmanager
def garbled_messages_hidden() -> Iterator[None]:
    """Hide what Python prints when rasterio cannot decode a message of GDAL.

    rasterio decodes each message inside a callback, which cannot raise. So Python prints the UnicodeDecodeError twice,
    the second time as "Exception ignored in". For programs, not for libraries: the hooks belong to the process.
    """
    raised, unraisable = sys.excepthook, sys.unraisablehook

    def show(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
        # An exception of Python code has a traceback.
        if kind is not UnicodeDecodeError or place is not None:
            raised(kind, error, place)

    def show_unraisable(told: "sys.UnraisableHookArgs") -> None:
        if told.exc_type is not UnicodeDecodeError or not str(told.object).startswith("rasterio."):
            unraisable(told)

    sys.excepthook, sys.unraisablehook = show, show_unraisable
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = raised, unraisable
