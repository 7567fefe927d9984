"""Seconds and memory from one image to its class map, a network of each family: fused, plain, and smp's if it has one.

    python benchmarks/networks.py [--rounds 5] [--only unet3p] [--size 512] [--classes 150]

Every form has a process of its own and takes its turn (`turns.py`). A fused network's process keeps freed memory, as
our commands do (`keep_freed_memory`). The others are measured without that setting, as their users run them, and with
it. "plain" is the network as its paper draws it, with full-size logits and torch's argmax. smp's networks have random
weights of their own. Results are merged into `results/networks.json`.
"""

import argparse
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from turns import KEPT, Way, machine, take_turns, with_kept_memory

import pixelwise as pw
from pixelwise.fast.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "networks.json"
NETWORKS: dict[str, dict[str, object]] = {
    "segnext-t": {},
    "segnext-s": {},
    "segnext-b": {},
    "segnext-l": {},
    "segformer-b4": {},
    "setr-naive": {},
    "eomt-l": {},
    "hrnet-w48": {},
    "hrnet-w48-ocr": {},
    "deeplabv3": {},
    "deeplabv3plus": {},
    "deeplabv3plus separable": {"separable": True},
    "pspnet": {},
    "unet": {},
    "unetpp": {},
    "unet3p": {},
    "linknet": {},
    "fchardnet-70": {},
    "depict-sa": {"encoder": "vit-small"},
}


def smp_network(name: str, classes: int) -> nn.Module | None:
    """Return the peer's network with the same encoder, or None."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        return None
    given = {"encoder_name": "resnet50", "encoder_weights": None, "classes": classes}
    if name == "linknet":
        return smp.Linknet("resnet18", encoder_weights=None, classes=classes)
    known = {"deeplabv3": smp.DeepLabV3, "deeplabv3plus": smp.DeepLabV3Plus}
    return known[name.split()[0]](**given, encoder_output_stride=16) if name.split()[0] in known else None


def way(kind: str, name: str, size: int, classes: int) -> Callable[[], None]:
    """Return a function that makes one class map."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, size, size)
    if kind == "smp":
        network = smp_network(name, classes)
        assert network is not None
        network.eval()
    else:
        network = pw.create(name.split()[0], classes=classes, **NETWORKS[name]).eval()

    def labels() -> Callable[[Tensor], Tensor]:
        if kind == "fused":
            keep_freed_memory()
            return pw.fuse(network).label_map
        return lambda image: network(image).argmax(1)

    decide = labels()
    # What a fused network was made from is not needed any more.
    network = network if kind != "fused" else nn.Identity()

    @torch.no_grad()
    def call() -> None:
        decide(image)

    return call


def measure(name: str, size: int, classes: int, rounds: int) -> dict:
    """Let every way take its turn."""
    kinds = ["fused", "plain"]
    if importlib.util.find_spec("segmentation_models_pytorch"):
        with torch.device("meta"):
            kinds += ["smp"] if smp_network(name, classes) is not None else []
    ways = {kind: Way(way, (kind, name, size, classes)) for kind in kinds}
    ways |= {kind + KEPT: Way(with_kept_memory, (way, kind, name, size, classes)) for kind in kinds[1:]}
    turns = take_turns(ways, rounds)
    row = {"size": size, "classes": classes, "seconds": turns.seconds, "times_fused": turns.ratios}
    return row | {"peak_mib": turns.peak_mib, "machine": machine()}


def main() -> None:
    """Measure each network, print a line and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for name in NETWORKS:
        if given.only not in name:
            continue
        row = measure(name, given.size, given.classes, given.rounds)
        others = ", ".join(f"{kind} {ratio:.2f}x" for kind, ratio in row["times_fused"].items() if kind != "fused")
        print(f"{name:24} {row['seconds']['fused']:.3f} s; {others}; {row['peak_mib']}", flush=True)
        if (given.size, given.classes) != (parser.get_default("size"), parser.get_default("classes")):
            print("Not kept: the table is of the default size and classes.")
            continue
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept[name] = row
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
