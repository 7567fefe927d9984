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

from pixelwise.hub.ledger import fitting_weights
from pixelwise.hub.papers import SCORES, Score, paper_of

SIZE, CLASSES, BANDS = 512, 19, 3
"""Of what stands in ``costs.json``."""
BATCH = 4
"""Images of a training step whose memory is told."""
COPIES = 1.3
"""A step takes so many times the maps of its forward pass, for some gradients and for gaps between blocks of memory."""
SORTS = ("name", "year", "parameters", "flops", "cio", "memory", "seconds", "score")


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
    memory: int
    """Bytes that predicting one image takes at most: parameters and all maps, in float32."""
    training_memory: int
    """Bytes of a training step of `BATCH` such images without checkpointing, about."""
    seconds: float | None
    """Of one label map, median of three, with the fused network; None: not measured."""
    kept_seconds: float | None
    """The same on the machine of docs/performance.md, with 150 classes; None: not measured there, or another size."""
    scores: tuple[Score, ...]
    weights: str
    """Whose weights are known, and their licence."""
    free_weights: tuple[str, ...]
    """Names of weights for it or its encoder whose licence allows commercial use (`pixelwise weights`)."""
    bound_weights: tuple[str, ...]
    """Of those whose licence forbids that, or is unknown."""

    def to_dict(self) -> dict:
        """Return what ``--json`` prints."""
        return asdict(self)

    @property
    def time(self) -> float | None:
        """Seconds as measured here, or else as measured once on the machine of docs/performance.md."""
        return self.kept_seconds if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Wanted:
    """What a network may cost, and who may use its weights; None and False ask for nothing."""

    most_parameters: float | None = None
    most_flops: float | None = None
    most_seconds: float | None = None
    """Of a label map; networks whose time is not known are left out."""
    memory: float | None = None
    """Bytes that are free."""
    training: bool = False
    """The memory is for training, not for predicting."""
    commercial: bool = False
    """Some weights for it may be used commercially."""

    def takes(self, row: Row) -> bool:
        """Return whether a network is as wanted."""
        return (
            (self.most_parameters is None or row.parameters <= self.most_parameters)
            and (self.most_flops is None or row.flops <= self.most_flops)
            and (self.most_seconds is None or (row.time is not None and row.time <= self.most_seconds))
            and (self.memory is None or (row.training_memory if self.training else row.memory) <= self.memory)
            and (not self.commercial or bool(row.free_weights))
        )


@dataclass(frozen=True)
class Counted:
    """What is computed from a network."""

    parameters: int
    flops: int
    cio: int
    macs: int
    """Multiply-adds of the convolutions."""
    activations: int
    """Bytes of all maps of one image, as `pixelwise.cost` counts them."""
    encoder: str
    """That the network has by itself."""


def kept_costs() -> dict[str, Counted]:
    """Return what stands in ``costs.json``, for every name that `create` takes."""
    kept = json.loads(files("pixelwise.hub").joinpath("costs.json").read_text(encoding="utf-8"))
    return {name: Counted(**counts) for name, counts in kept.items()}


def step_bytes(parameters: int, activations: int, batch: int) -> int:
    """Return about what a training step takes: weights, gradients, AdamW's moments, an average; and the maps."""
    return 20 * parameters + int(COPIES * batch * activations)


def kept_times() -> dict[str, float]:
    """Return the seconds of a label map by network, which `benchmarks/choose.py` has put into ``measured.json``."""
    kept = json.loads(files("pixelwise.hub").joinpath("measured.json").read_text(encoding="utf-8"))
    return {name: facts["seconds"] for name, facts in kept["networks"].items()}


def count(name: str, *, classes: int, bands: int, size: int) -> Counted:
    """Compute what an image of ``size`` x ``size`` costs; nothing is allocated for the network."""
    import torch

    from pixelwise.models import MODELS, create
    from pixelwise.models.cio import convolutional_traffic
    from pixelwise.models.cost import cost

    with torch.device("meta"):
        model = create(name, classes=classes, bands=bands)
    found, traffic = cost(model, size=(size, size)), convolutional_traffic(model, (size, size))
    return Counted(
        found.parameters,
        found.flops,
        sum(layer.cio for layer in traffic),
        sum(layer.macs for layer in traffic),
        found.activation_bytes,
        # hmsa is one of them at several sizes.
        MODELS[str(model.architecture.options.get("network", name))].encoder,
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
    kept, times = kept_costs(), kept_times() if size == SIZE else {}
    usual = (classes, bands, size) == (CLASSES, BANDS, SIZE)
    rows = []
    for name in kept if names is None else names:
        counted = kept[name] if usual else count(name, classes=classes, bands=bands, size=size)
        seconds = measured_seconds(name, classes=classes, bands=bands, size=size) if timed else None
        rows.append(_row(name, counted, seconds, times.get(name)))
        if advance:
            advance()
    return rows


def _row(name: str, counted: Counted, seconds: float | None, kept_seconds: float | None) -> Row:
    paper, fitting = paper_of(name), fitting_weights(name, counted.encoder)
    return Row(
        name=name,
        paper=paper.title,
        year=paper.year,
        arxiv=paper.arxiv,
        parameters=counted.parameters,
        flops=counted.flops,
        cio=counted.cio,
        macs_over_cio=counted.macs / counted.cio,
        memory=4 * counted.parameters + counted.activations,
        training_memory=step_bytes(counted.parameters, counted.activations, BATCH),
        seconds=seconds,
        kept_seconds=kept_seconds,
        scores=SCORES.get(name, ()),
        weights=paper.weights,
        free_weights=tuple(row.name for row in fitting if row.commercial == "yes"),
        bound_weights=tuple(row.name for row in fitting if row.commercial != "yes"),
    )


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
        value = row.time if by == "seconds" else getattr(row, by)
        return value is None, value if value is not None else 0.0

    return sorted(rows, key=key)


def table_text(rows: list[Row], *, traffic: bool = False) -> str:
    """Return the rows as aligned columns, for a terminal of 100 characters.

    Args:
        traffic: CIO in place of memory, time and weights.
    """
    last = f"{'CIO':>8} {'MAC/CIO':>7}" if traffic else f"{'predict':>8} {'train':>8} {'ms':>6} {'weights':>8}"
    lines = [f"{'name':<18} {'arXiv':<10} {'year'} {'params':>8} {'GFLOP':>7} {'ADE20K':>6} {'City.':>5} {last}"]
    for row in rows:
        scores = {score.data: f"{score.single_scale:.1f}" for score in row.scores}
        lines.append(
            f"{row.name:<18} {row.arxiv:<10} {row.year} {row.parameters / 1e6:>6.1f} M {row.flops / 1e9:>7.1f} "
            f"{scores.get('ADE20K val', ''):>6} {scores.get('Cityscapes val', ''):>5} "
            f"{_traffic_text(row) if traffic else _needs_text(row)}".rstrip()
        )
    return "\n".join(lines)


def _traffic_text(row: Row) -> str:
    return f"{row.cio / 1e6:>6.0f} M {row.macs_over_cio:>7.0f}"


def _needs_text(row: Row) -> str:
    spent = "" if row.time is None else f"{1e3 * row.time:.0f}"
    weights = "free" if row.free_weights else "bound" if row.bound_weights else ""
    return f"{row.memory / 1e9:>5.2f} GB {row.training_memory / 1e9:>5.1f} GB {spent:>6} {weights:>8}"
