"""The networks as a table: origin, size, cost, time here, and what their authors measured.

What a network costs for an image of 512x512 and 19 classes stands in ``costs.json``, so that the table appears at once,
also where torch is not installed. `benchmarks/costs.py` writes that file, and a test computes it again.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.resources import files

from pixelwise.hub.papers import SCORES, Score, paper_of

SIZE, CLASSES, BANDS = 512, 19, 3
"""Of what stands in ``costs.json``."""
SORTS = ("name", "year", "parameters", "flops", "cio", "seconds", "score")


@dataclass(frozen=True)
class Row:
    """One network."""

    name: str
    paper: str
    year: int
    arxiv: str
    parameters: int
    flops: int
    """Of one image, computed; one multiply-add counts as two."""
    cio: int
    """Elements that the convolutions of one image read and write (`pixelwise.models.cio`)."""
    macs_over_cio: float
    """Multiply-adds of these convolutions per element; where it is small, the network waits for memory."""
    seconds: float | None
    """Of one label map, median of three, with the fused network; None: not measured."""
    scores: tuple[Score, ...]
    weights: str
    """Whose weights are known, and their licence."""

    def to_dict(self) -> dict:
        """Return what ``--json`` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Counted:
    """What is computed from a network."""

    parameters: int
    flops: int
    cio: int
    macs: int
    """Multiply-adds of the convolutions."""


def kept_costs() -> dict[str, Counted]:
    """Return what stands in ``costs.json``, for every name that `create` takes."""
    kept = json.loads(files("pixelwise.hub").joinpath("costs.json").read_text(encoding="utf-8"))
    return {name: Counted(**counts) for name, counts in kept.items()}


def count(name: str, *, classes: int, bands: int, size: int) -> Counted:
    """Compute what an image of ``size`` x ``size`` costs; nothing is allocated for the network."""
    import torch

    from pixelwise.models import create
    from pixelwise.models.cio import convolutional_traffic
    from pixelwise.models.cost import cost

    with torch.device("meta"):
        model = create(name, classes=classes, bands=bands)
    found, traffic = cost(model, size=(size, size)), convolutional_traffic(model, (size, size))
    return Counted(
        found.parameters, found.flops, sum(layer.cio for layer in traffic), sum(layer.macs for layer in traffic)
    )


def catalog(
    names: Iterable[str] | None = None,
    *,
    classes: int = CLASSES,
    bands: int = BANDS,
    size: int = SIZE,
    timed: bool = False,
    advance: Callable[[], None] | None = None,
) -> list[Row]:
    """Return the table.

    Args:
        names: of `list_models`; None: all.
        size: side of the image in pixels.
        timed: measure a label map of each network on this machine.
        advance: called after each network.
    """
    kept = kept_costs()
    usual = (classes, bands, size) == (CLASSES, BANDS, SIZE)
    rows = []
    for name in kept if names is None else names:
        counted = kept[name] if usual else count(name, classes=classes, bands=bands, size=size)
        seconds = measured_seconds(name, classes=classes, bands=bands, size=size) if timed else None
        paper = paper_of(name)
        rows.append(
            Row(
                name,
                paper.title,
                paper.year,
                paper.arxiv,
                counted.parameters,
                counted.flops,
                counted.cio,
                counted.macs / counted.cio,
                seconds,
                SCORES.get(name, ()),
                paper.weights,
            )
        )
        if advance:
            advance()
    return rows


def measured_seconds(name: str, *, classes: int, bands: int, size: int) -> float:
    """Return the median time of three label maps after one to warm up."""
    import torch

    from pixelwise.fast.fuse import fuse
    from pixelwise.models import create

    model = fuse(create(name, classes=classes, bands=bands))
    image = torch.randn(1, bands, size, size)
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        model.label_map(image)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def sort_rows(rows: list[Row], by: str) -> list[Row]:
    """Return the rows by one of `SORTS`: scores from the highest, all else from the lowest; what is unknown is last."""

    def key(row: Row) -> tuple[bool, float | str]:
        if by == "score":
            best = max((score.single_scale for score in row.scores if score.data == "ADE20K val"), default=None)
            return best is None, -(best or 0.0)
        value = getattr(row, by)
        return value is None, value if value is not None else 0.0

    return sorted(rows, key=key)


def table_text(rows: list[Row]) -> str:
    """Return the rows as aligned columns, for a terminal of 90 characters."""
    lines = [
        f"{'name':<18} {'arXiv':<10} {'year'} {'params':>8} {'GFLOP':>7} {'CIO':>8} {'MAC/CIO':>7} {'s':>6} "
        f"{'ADE20K':>6} {'City.':>5}"
    ]
    for row in rows:
        scores = {score.data: f"{score.single_scale:.1f}" for score in row.scores}
        lines.append(
            f"{row.name:<18} {row.arxiv:<10} {row.year} {row.parameters / 1e6:>6.1f} M {row.flops / 1e9:>7.1f} "
            f"{row.cio / 1e6:>6.0f} M {row.macs_over_cio:>7.0f} "
            f"{'' if row.seconds is None else format(row.seconds, '.3f'):>6} {scores.get('ADE20K val', ''):>6} "
            f"{scores.get('Cityscapes val', ''):>5}".rstrip()
        )
    return "\n".join(lines)
