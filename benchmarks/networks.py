"""Seconds from one image to its class map for a network of each family: fused, plain, and the peers that have it.

    python benchmarks/networks.py [--repeats 5] [--only unet3p] [--size 512] [--classes 150]

All ways take their turn in each round, and the ratio of a round is taken before the median over rounds, so that a
slow moment slows all. "plain" is the network as its paper draws it, with full-size logits and torch's argmax; peers
have random weights of their own. Results are merged into `results/networks.json`.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

# Where there is no build of torchvision for this torch, its two operators that others import are only named.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
OPERATORS.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import pixelwise as pw  # noqa: E402  after the operators

RESULTS = Path(__file__).parent / "results" / "networks.json"
NETWORKS: dict[str, dict[str, object]] = {
    "segformer-b0": {},
    "segformer-b2": {},
    "segformer-b5": {},
    "segnext-b": {},
    "hrnet-w48": {},
    "hrnet-w48-ocr": {},
    "deeplabv3": {},
    "deeplabv3plus": {},
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
    if name.startswith("segformer"):
        return smp.Segformer(f"mit_{name[-2:]}", encoder_weights=None, classes=classes)
    if name == "linknet":
        return smp.Linknet("resnet18", encoder_weights=None, classes=classes)
    known = {"deeplabv3": smp.DeepLabV3, "deeplabv3plus": smp.DeepLabV3Plus}
    return known[name](**given, encoder_output_stride=16) if name in known else None


def ways(name: str, options: dict[str, object], classes: int) -> dict[str, Callable[[Tensor], object]]:
    """Return every way from an image to a class map, by name."""
    torch.manual_seed(0)
    model = pw.create(name, classes=classes, **options).eval()
    found: dict[str, Callable[[Tensor], object]] = {
        "fused": pw.fuse(model).label_map,
        "plain": torch.no_grad()(lambda image: model(image).argmax(1)),
    }
    peer = smp_network(name, classes)
    if peer is not None:
        peer = peer.eval()
        found["smp"] = torch.no_grad()(lambda image: peer(image).argmax(1))
    return found


def measure(name: str, options: dict[str, object], size: int, classes: int, repeats: int) -> dict:
    """Time every way in turn."""
    each = ways(name, options, classes)
    image = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        for way in each.values():
            way(image)
        rounds = []
        for _ in range(repeats):
            taken = {}
            for key, way in each.items():
                start = time.perf_counter()
                way(image)
                taken[key] = time.perf_counter() - start
            rounds.append(taken)
    seconds = {key: round(statistics.median(r[key] for r in rounds), 4) for key in each}
    ratios = {key: round(statistics.median(r[key] / r["fused"] for r in rounds), 2) for key in each}
    return {"size": size, "classes": classes, "seconds": seconds, "times_fused": ratios}


def main() -> None:
    """Measure each network, print a line and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for name, options in NETWORKS.items():
        if given.only not in name:
            continue
        row = measure(name, options, given.size, given.classes, given.repeats)
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept[name] = row
        kept["machine"] = {"cores": os.cpu_count(), "processor": platform.machine(), "threads": torch.get_num_threads()}
        kept["machine"]["load"] = round(os.getloadavg()[0], 1)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        others = ", ".join(f"{key} {ratio:.2f}x" for key, ratio in row["times_fused"].items() if key != "fused")
        print(f"{name:16} {row['seconds']['fused']:.3f} s; {others}", flush=True)


if __name__ == "__main__":
    main()
