"""What each part of `pixelwise.fast` gives: class maps with one part off beside those with all parts on.

    python benchmarks/engine.py [--networks unet linknet] [--threads 1 2] [--size 256] [--seconds 15]
    python benchmarks/engine.py --toy

Networks with a part off and the whole one take turns in one process, so that a slow moment of the machine slows all.
The ratio of a round is taken before the median over rounds. A ratio above 1 means that the part helps. On one thread it
is a ratio of processor time, which other processes hardly touch; on several, of time by the clock. A part that changes
the process (`keep_freed_memory`) gets processes of its own (`turns.py`). Results are merged into
`results/engine.json`. `--toy` runs every part once on tiny images, and keeps nothing.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from turns import Way, machine, take_turns, with_kept_memory

import pixelwise as pw
from pixelwise.fast import convolution, fuse
from pixelwise.fast.convolution import FusedConvolution
from pixelwise.fast.onednn import ConvolutionOperators, convolution_operators
from pixelwise.models import segformer, segnext
from pixelwise.models.segmenter import Segmenter

RESULTS = Path(__file__).parent / "results" / "engine.json"
NETWORKS: dict[str, dict[str, object]] = {
    "segformer-b0": {},
    "segformer-b2": {},
    "segnext-t": {},
    "hrnet-w18": {},
    "pspnet": {},
    "deeplabv3plus": {},
    "unet": {},
    "unet3p": {},
    "fchardnet-70": {},
    "linknet": {},
    "segmenter-mask": {"encoder": "vit-tiny", "image_size": 256},
    "depict-sa": {"encoder": "vit-small", "image_size": 512},
}
TOY = ["segformer-b0", "linknet", "segmenter-mask"]
MEMORY_NETWORKS = ("segformer-b0", "linknet", "unet")
ALL = "all"
NOISE, FEWEST_ROUNDS = 0.1, 4
"""A part whose middle half of rounds is wider, or that has fewer rounds, is marked as noise."""

Off = Callable[[], AbstractContextManager[object]]


def without(*kinds: type[nn.Module]) -> Off:
    """Take modules of some kinds out of the table."""
    rest = {kind: make for kind, make in fuse.FASTER.items() if kind not in kinds}
    return lambda: patch.dict(fuse.FASTER, rest, clear=True)


def unordered() -> AbstractContextManager[object]:
    """Hand weights to oneDNN as torch keeps them."""

    def operators(values: torch.Tensor, weight: torch.Tensor) -> ConvolutionOperators | None:
        found = convolution_operators(values, weight)
        return None if found is None else found._replace(order=lambda kernel, *settings: kernel.to_dense())

    return patch.object(convolution, "convolution_operators", operators)


PARTS: dict[str, Off] = {
    "packed linear": without(nn.Linear),
    "ordered convolution weights": unordered,
    "oneDNN's convolutions": lambda: patch.object(convolution, "convolution_operators", lambda *given: None),
    "3x3 convolutions by rows": lambda: patch.object(FusedConvolution, "rows_pay", lambda *given: False),
    "resized convolutions": lambda: patch.object(convolution, "pays", lambda *given: False),
    "SegFormer's decoder": without(segformer.AllMLPDecoder),
    "SegNeXt's blocks": without(segnext.Block),
}
OF_MODULES: dict[str, tuple[type[nn.Module], ...]] = {
    "packed linear": (nn.Linear,),
    "SegFormer's decoder": (segformer.AllMLPDecoder,),
    "SegNeXt's blocks": (segnext.Block,),
}
"""Parts that only networks with such modules have."""


def parts_of(model: Segmenter) -> dict[str, Off]:
    """Return the parts that may change a network."""
    kinds = {type(module) for module in model.modules()}
    return {name: off for name, off in PARTS.items() if kinds & set(OF_MODULES.get(name, tuple(kinds)))}


def ablation(name: str, *, threads: int, size: int, seconds: float, parts: list[str] | None) -> list[dict]:
    """Return, for each part, the time without it over the time with all: median and quartiles of the rounds."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    torch.manual_seed(0)
    model, image = pw.create(name, classes=19, **NETWORKS[name]).eval(), torch.randn(1, 3, size, size)
    ways = {ALL: patch.dict(fuse.FASTER)}
    ways |= {part: off() for part, off in parts_of(model).items() if parts is None or part in parts}
    networks = {}
    for way, off in ways.items():
        with off:
            networks[way] = pw.fuse(model)
            expected = networks[ALL].label_map(image)
            assert (networks[way].label_map(image) != expected).float().mean() < 0.01, way
    rounds, begun = [], time.perf_counter()
    while not rounds or time.perf_counter() - begun < seconds:
        rounds.append({})
        for way in list(ways) if len(rounds) % 2 else list(ways)[::-1]:
            with ways[way]:
                start = clock()
                networks[way].label_map(image)
                rounds[-1][way] = clock() - start
    return [
        record(part, name, threads, size, [each[part] / each[ALL] for each in rounds]) for part in ways if part != ALL
    ]


def record(part: str, network: str, threads: int, size: int, ratios: list[float]) -> dict:
    """Return what is kept of one part of one network."""
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {
        "part": part,
        "network": network,
        "threads": threads,
        "size": size,
        "ratio": round(statistics.median(ratios), 3),
        "middle half": [round(low, 3), round(high, 3)],
        "rounds": len(ratios),
        "noise": len(ratios) < FEWEST_ROUNDS or high - low > NOISE,
    }


def label_map_of(name: str, size: int, threads: int) -> Callable[[], None]:
    """Return what a process of its own measures."""
    torch.set_num_threads(threads)
    model, image = pw.fuse(pw.create(name, classes=19, **NETWORKS[name])), torch.randn(1, 3, size, size)

    def call() -> None:
        model.label_map(image)

    return call


def memory(name: str, *, threads: int, size: int, rounds: int) -> list[dict]:
    """Return the same for what `keep_freed_memory` does."""
    given = (name, size, threads)
    ways = {ALL: Way(with_kept_memory, (label_map_of, *given)), "kept memory": Way(label_map_of, given)}
    turns = take_turns(ways, rounds, clock="process_time" if threads == 1 else "perf_counter")
    return [record("kept memory", name, threads, size, [turns.ratios["kept memory"]]) | {"rounds": rounds}]


def merged(rows: list[dict], new: list[dict]) -> list[dict]:
    """Return the rows with the new ones in the places of older ones of the same kind."""

    def kind(row: dict) -> tuple[object, ...]:
        return row["part"], row["network"], row["threads"], row["size"]

    return [row for row in rows if kind(row) not in set(map(kind, new))] + new


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "memory"], help="only these")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=25.0, help="for each network and number of threads")
    parser.add_argument("--toy", action="store_true", help="every part once on tiny images")
    given = parser.parse_args()
    size, seconds = (64, 0.0) if given.toy else (given.size, given.seconds)
    for threads in given.threads[:1] if given.toy else given.threads:
        for name in TOY if given.toy else given.networks:
            rows = []
            if given.parts != ["memory"]:
                rows += ablation(name, threads=threads, size=size, seconds=seconds, parts=given.parts)
            if name in MEMORY_NETWORKS and (given.parts is None or "memory" in given.parts):
                rows += memory(name, threads=threads, size=size, rounds=1 if given.toy else 15)
            for row in rows:
                print(json.dumps(row), flush=True)
            if not given.toy:
                before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": []}
                kept = {**before, "rows": merged(before["rows"], rows), "machine": machine()}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
