"""Times as a trace that Perfetto and Chrome open: https://ui.perfetto.dev, or chrome://tracing."""

from collections.abc import Sequence
from typing import Any

from pixelwise.profiling.timeline import Call, Span

PROCESS = 1
PATH_TRACK, NETWORK_TRACK = 1, 2
GAP = 0.003
"""Microseconds between two events."""


def trace_of(spans: Sequence[Span], calls: Sequence[Call], *, network: str) -> dict[str, Any]:
    """Return stages, memory and layers as trace events; times are microseconds.

    Layers are those of one tile, on a track of their own that begins at 0.

    Args:
        network: the track's name.
    """
    events: list[dict[str, Any]] = [
        _named("process_name", 0, "pixelwise"),
        _named("thread_name", PATH_TRACK, "The path of the image"),
        _named("thread_name", NETWORK_TRACK, network),
    ]
    for span in spans:
        events.append(_complete(span.stage, "stage", PATH_TRACK, span.start, span.seconds, {}))
        if span.peak_bytes:
            mib = round(span.peak_bytes / 2**20, 1)
            events.append(
                {"name": "memory", "ph": "C", "pid": PROCESS, "ts": _micro(span.start), "args": {"peak MiB": mib}}
            )
    # Outer layers before those inside them, as viewers nest them.
    for call in sorted(calls, key=lambda call: (call.start, -call.seconds)):
        told = {"kind": call.kind, "own ms": round(1e3 * call.own, 4)}
        told |= {} if call.output_bytes is None else {"output bytes": call.output_bytes}
        events.append(_complete(call.name, call.kind, NETWORK_TRACK, call.start, call.seconds, told))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": {"name": name}}


def _complete(
    name: str, kind: str, track: int, start: float, seconds: float, told: dict[str, object]
) -> dict[str, Any]:
    # Viewers count whole nanoseconds and drop what reaches into the next by one; so each ends a little before it.
    length = max(0.0, _micro(start + seconds) - _micro(start) - GAP)
    place = {"pid": PROCESS, "tid": track, "ts": _micro(start), "dur": round(length, 3)}
    return {"name": name, "cat": kind, "ph": "X", **place, "args": told}


def _micro(seconds: float) -> float:
    return round(1e6 * seconds, 3)
