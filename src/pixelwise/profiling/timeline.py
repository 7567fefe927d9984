"""Stages that follow each other, with their time and their largest memory."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from pixelwise.machine import reset_peak_memory
from pixelwise.mapping.capacity import peak_memory

STAGES = {
    "open": "opening the image, planning tiles",
    "read": "bytes from the disk or the system's cache",
    "decode": "bytes to pixels",
    "normalise": "pixels to what the network takes",
    "network": "the network",
    "blend": "adding overlapping tiles",
    "decide": "upsampling, and the class of each pixel",
    "write": "pieces on disk, then the map",
}
"""In the order of the path, with what they do."""


@dataclass(frozen=True)
class Span:
    """A stage at work, once."""

    stage: str
    start: float
    """Seconds since the timeline began."""
    seconds: float
    peak_bytes: int
    """Largest memory of the process meanwhile; 0 where the system does not say."""


@dataclass(frozen=True)
class StageTime:
    """A stage over the whole path."""

    name: str
    seconds: float
    calls: int
    peak_bytes: int


@dataclass(frozen=True)
class Call:
    """A layer of the network at work, once."""

    name: str
    """Its place in the network: ``encoder.stages.0.0.attention``."""
    kind: str
    """What it is, in words."""
    start: float
    """Seconds since the run began; where the runtime does not say, as if one followed the other."""
    seconds: float
    """With the layers inside it."""
    own: float
    """Without them."""
    output_bytes: int | None = None
    weight_bytes: int | None = None


class Timeline:
    """One stage at any time, from the first to the end, so that their times add up to the time that passed."""

    def __init__(self) -> None:
        self.began = self._since = 0.0
        self.spans: list[Span] = []
        self._stage = ""

    def switch(self, stage: str) -> None:
        """End the stage at hand, and begin another one; '' ends the last."""
        now = time.perf_counter()
        if not self._stage:
            self.began = now
        else:
            self.spans.append(Span(self._stage, self._since - self.began, now - self._since, peak_memory()))
        reset_peak_memory()
        self._stage, self._since = stage, now

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the last stage."""
        return self._since - self.began


def by_stage(spans: Iterable[Span]) -> list[StageTime]:
    """Return the sum of each stage, in the order of `STAGES`."""
    found = list[StageTime]()
    spans = list(spans)
    for name in STAGES:
        own = [span for span in spans if span.stage == name]
        if own:
            peak = max(span.peak_bytes for span in own)
            found.append(StageTime(name, sum(span.seconds for span in own), len(own), peak))
    return found
