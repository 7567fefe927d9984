"""Seconds and memory from one image to its class map: ours beside the peers, in one run.

    python benchmarks/class_map.py [--repeats 9] [--only segformer-b0]

Every way gets the same weights and image, takes its turn within each round, and the ratio of a round is taken before
the median over rounds, so that a slow moment slows all. ONNX Runtime and OpenVINO run transformers' own export with the
resize and the argmax inside. Peak memory is that of a process which does nothing else, less what it had before.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Where there is no build of torchvision for this torch, its two operators that others import are only named.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
OPERATORS.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")

from transformers import SegformerConfig, SegformerForSemanticSegmentation  # noqa: E402  after the operators

import pixelwise as pw  # noqa: E402  after the operators

RESULTS = Path(__file__).parent / "results" / "class_map.json"
SIZES = {
    "b0": ([32, 64, 160, 256], [2, 2, 2, 2], 256),
    "b2": ([64, 128, 320, 512], [3, 4, 6, 3], 768),
    "b5": ([64, 128, 320, 512], [3, 6, 40, 3], 768),
}


def transformers_segformer(variant: str, classes: int) -> nn.Module:
    """Return transformers' network with random weights."""
    widths, depths, decoder = SIZES[variant]
    config = SegformerConfig(hidden_sizes=widths, depths=depths, decoder_hidden_size=decoder, num_labels=classes)
    return SegformerForSemanticSegmentation(config).eval()


class ClassMap(nn.Module):
    """transformers' network with the resize and the argmax that its users add."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, image: Tensor) -> Tensor:
        """Return the class of every pixel."""
        logits = self.network(image).logits
        return F.interpolate(logits, size=(self.size, self.size), mode="bilinear", align_corners=False).argmax(1)


def ways(variant: str, size: int, classes: int) -> dict[str, Callable[[Tensor], object]]:
    """Return every way from an image to a class map, by name."""
    torch.manual_seed(0)
    theirs = transformers_segformer(variant, classes)
    ours = pw.create(f"segformer-{variant}", classes=classes).eval()
    pw.load_weights(ours, theirs.state_dict())
    fast = pw.fuse(ours)
    peer = ClassMap(theirs, size).eval()
    found = {"pixelwise": fast.label_map, "transformers": torch.no_grad()(peer)}
    try:
        import segmentation_models_pytorch as smp

        plain = smp.Segformer(f"mit_{variant}", encoder_weights=None, classes=classes).eval()
        found["smp"] = torch.no_grad()(lambda image: plain(image).argmax(1))
    except ImportError as missing:
        print(f"without smp ({missing})")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.onnx"
        image = torch.randn(1, 3, size, size)
        try:
            torch.onnx.export(peer, (image,), path, dynamo=True, external_data=False, verbose=False)
        except ImportError as missing:
            print(f"without exports ({missing})")
            return found
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            found["onnxruntime"] = lambda image: session.run(None, {name: image.numpy()})[0]
        except ImportError as missing:
            print(f"without ONNX Runtime ({missing})")
        try:
            import openvino

            core = openvino.Core()
            settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
            found["openvino"] = lambda image: compiled(image.numpy())[0]
        except ImportError as missing:
            print(f"without OpenVINO ({missing})")
    return found


def roofline(variant: str, size: int, classes: int) -> dict[str, float]:
    """Return the bound of the work: its FLOPs over the speed of a large matrix product, measured here."""
    with torch.device("meta"):
        flops = pw.cost(pw.create(f"segformer-{variant}", classes=classes), size=(size, size)).flops
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - start)
    speed = 2 * 2048**3 / statistics.median(taken[2:])
    return {"gflop": flops / 1e9, "gflop_per_second": speed / 1e9, "seconds": flops / speed}


def measure(variant: str, size: int, classes: int, repeats: int) -> dict:
    """Time every way in turn, and compare their answers."""
    each = ways(variant, size, classes)
    image = torch.randn(1, 3, size, size)
    answers = {name: torch.as_tensor(way(image)).long() for name, way in each.items()}
    for way in each.values():
        way(image)
    rounds = []
    for _ in range(repeats):
        taken = {}
        for name, way in each.items():
            start = time.perf_counter()
            way(image)
            taken[name] = time.perf_counter() - start
        rounds.append(taken)
    seconds = {name: statistics.median(r[name] for r in rounds) for name in each}
    ratios = {name: statistics.median(r[name] / r["pixelwise"] for r in rounds) for name in each}
    # smp has weights of its own, so its answer says nothing.
    agree = {
        name: float((answer == answers["transformers"]).double().mean())
        for name, answer in answers.items()
        if name != "smp"
    }
    bound = roofline(variant, size, classes)
    row = {"seconds": seconds, "times_pixelwise": ratios, "agreement": agree, "roofline": bound}
    return row | {"pixelwise_over_roofline": seconds["pixelwise"] / bound["seconds"]}


def main() -> None:
    """Measure, print and keep."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=9)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--size", type=int, default=512)
    arguments.add_argument("--classes", type=int, default=150)
    given = arguments.parse_args()
    found = {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.processor()},
        "size": given.size,
        "classes": given.classes,
        "load_before": os.getloadavg()[0],
        "networks": {},
    }
    for variant in SIZES:
        name = f"segformer-{variant}"
        if given.only in name:
            found["networks"][name] = measure(variant, given.size, given.classes, given.repeats)
            print(name, json.dumps(found["networks"][name], indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
