"""What a run will take: memory and disk before its first step, time after a few."""

import shutil
import time
from pathlib import Path

from pixelwise.config import Config
from pixelwise.models import Segmenter
from pixelwise.processes import own_range
from pixelwise.training.checkpointing import training_bytes

TIMED = 10
"""Steps that are timed before the time is foretold; the first of a process is slower and is not among them."""
STATE, MODEL = 16, 4
"""Bytes per parameter: of a state (weights, their average and two moments), and of a model."""
FORWARD = 1 / 3
"""Share of a step that its forward pass takes: the backward pass is about twice as long."""


def room_needed(model: Segmenter, config: Config, folder: Path, room: int | None) -> str:
    """Say how much memory a step takes, and how much disk the run.

    Args:
        room: bytes of memory that are free; None: unknown.
    """
    settings, parameters = config.train, sum(each.numel() for each in model.parameters())
    crops = -(-len(own_range(settings.batch_size)) // settings.accumulate)
    memory = training_bytes(model, crops, settings.crop_size)
    kept = settings.steps // settings.keep_every if settings.keep_every else 0
    # Two generations of the state are kept, and a third is there while it is written.
    disk = parameters * (3 * STATE + MODEL * (2 + kept))
    free = shutil.disk_usage(folder).free
    of = "" if room is None else f" of the {size(room)} that are free"
    text = f"A step takes about {size(memory)}{of}, and the run up to {size(disk)} on a disk with {size(free)} free."
    if room is not None and memory > room:
        text += " That is probably too much memory: lower [train].batch_size or [train].crop_size if it fails"
        text += "." if settings.accumulate > 1 else ", or take a step in parts ([train].accumulate)."
    if disk > free:
        text += " That is too little disk: make room, or raise [train].keep_every." if kept else " Make room there."
    return text


class Timing:
    """Times the first steps, and says then when the run will end."""

    def __init__(self, config: Config, pixels: int) -> None:
        """Begin.

        Args:
            pixels: of the validation part.
        """
        self.settings, self.pixels = config.train, pixels
        self._since: float | None = None
        self._spent, self._made = 0.0, 0

    def go_on(self) -> None:
        """Begin to time the next step: what came after the last one, such as an evaluation, does not count."""
        self._since = time.monotonic()

    def after(self, step: int, count: int = 1) -> str | None:
        """Return, once, how long the steps that are left will take, with their evaluations.

        Args:
            step: that was just made, and not yet evaluated.
            count: of the steps that were made since `go_on`.
        """
        if self._since is None or self._made >= TIMED:
            return None
        self._spent += time.monotonic() - self._since
        self._made += count
        if self._made < TIMED:
            return None
        settings, each = self.settings, self._spent / self._made
        left = settings.steps - step
        if left < TIMED:
            # Over before it is read.
            return None
        every = settings.evaluate_every or max(1, settings.steps // 10)
        evaluations = settings.steps // every - step // every + bool(settings.steps % every)
        per_pixel = each * FORWARD / (settings.batch_size * settings.crop_size**2)
        judged = evaluations * self.pixels * per_pixel if self.pixels else 0.0
        several = f"{evaluations} evaluations" if evaluations > 1 else "an evaluation"
        more = f", and {several} perhaps {spoken(judged)} more" if judged > 0.05 * left * each else ""
        end = time.strftime("%H:%M", time.localtime(time.time() + left * each + judged))
        days = (left * each + judged) // 86400
        end += f" in {days:.0f} days" if days >= 1 else ""
        early = "" if settings.patience is None else ", or earlier ([train].patience)"
        return (
            f"A step takes {per_step(each)}: the {left:,} steps that are left take about {spoken(left * each)}{more}. "
            f"The end is near {end}{early}."
        )


def size(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{max(1, round(count / 1e6))} MB"


def per_step(seconds: float) -> str:
    """Return the time of a step in words."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def spoken(seconds: float) -> str:
    """Return a longer time in words."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
