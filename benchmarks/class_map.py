"""Seconds and memory from one image to its class map: ours beside the peers, in one run.

    python benchmarks/class_map.py [--rounds 9] [--only segformer-b0] [--turn 1]

Every tool has a process of its own and takes its turn (`turns.py`). Ours keeps freed memory, as our commands do
(`keep_freed_memory`). The others do not; those of PyTorch are measured with that setting too. All get the same image
and weights, except smp, which has its own weights. ONNX Runtime and OpenVINO run transformers' export with the resize
and the argmax inside.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import KEPT, Way, machine, take_turns, with_kept_memory

import pixelwise as pw
from pixelwise.fast.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "class_map.json"
SIZES = {
    "b0": ([32, 64, 160, 256], [2, 2, 2, 2], 256),
    "b2": ([64, 128, 320, 512], [3, 4, 6, 3], 768),
    "b5": ([64, 128, 320, 512], [3, 6, 40, 3], 768),
}
ClassMapper = Callable[[], np.ndarray]


def transformers_segformer(variant: str, classes: int) -> nn.Module:
    """Return transformers' network with random weights."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    widths, depths, decoder = SIZES[variant]
    config = SegformerConfig(hidden_sizes=widths, depths=depths, decoder_hidden_size=decoder, num_labels=classes)
    torch.manual_seed(0)
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


def image_of(size: int) -> Tensor:
    """Return the image that all get."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def pixelwise_way(variant: str, size: int, classes: int, folder: Path) -> ClassMapper:
    """Ours."""
    keep_freed_memory()
    model = pw.create(f"segformer-{variant}", classes=classes)
    pw.load_weights(model, torch.load(folder / "weights.pt"))
    fast, image = pw.fuse(model), image_of(size)
    del model
    return lambda: fast.label_map(image).numpy()


def transformers_way(variant: str, size: int, classes: int, folder: Path) -> ClassMapper:
    """transformers, as its documentation shows."""
    network, image = ClassMap(transformers_segformer(variant, classes), size), image_of(size)

    @torch.no_grad()
    def call() -> np.ndarray:
        return network(image).numpy()

    return call


def smp_way(variant: str, size: int, classes: int, folder: Path) -> ClassMapper:
    """segmentation_models.pytorch."""
    import segmentation_models_pytorch as smp

    network, image = smp.Segformer(f"mit_{variant}", encoder_weights=None, classes=classes).eval(), image_of(size)

    @torch.no_grad()
    def call() -> np.ndarray:
        return network(image).argmax(1).numpy()

    return call


def onnxruntime_way(variant: str, size: int, classes: int, folder: Path) -> ClassMapper:
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / "peer.onnx"), options, providers=["CPUExecutionProvider"])
    name, image = session.get_inputs()[0].name, image_of(size).numpy()
    return lambda: session.run(None, {name: image})[0]


def openvino_way(variant: str, size: int, classes: int, folder: Path) -> ClassMapper:
    """OpenVINO."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled, image = core.compile_model(core.read_model(folder / "peer.onnx"), "CPU", settings), image_of(size).numpy()
    return lambda: compiled(image)[0]


WAYS = {
    "pixelwise": pixelwise_way,
    "transformers": transformers_way,
    "smp": smp_way,
    "onnxruntime": onnxruntime_way,
    "openvino": openvino_way,
}


def roofline(variant: str, size: int, classes: int) -> dict[str, float]:
    """Return the bounds of the work.

    Its FLOPs over the speed of a large matrix product, and the bytes that it moves if nothing stays in cache over the
    speed of a large copy, both measured here.
    """
    with torch.device("meta"):
        cost = pw.cost(pw.create(f"segformer-{variant}", classes=classes), size=(size, size))
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    source, target = torch.zeros(1 << 25), torch.zeros(1 << 25)
    product = _best(lambda: torch.mm(left, right))
    copy = _best(lambda: target.copy_(source))
    flops, moved = 2 * 2048**3 / product, 2 * source.numel() * 4 / copy
    return {
        "gflop": cost.flops / 1e9,
        "gflop_per_second": flops / 1e9,
        "seconds": cost.flops / flops,
        "megabytes": cost.traffic_bytes / 1e6,
        "gigabytes_per_second": moved / 1e9,
        "seconds_of_traffic": cost.traffic_bytes / moved,
    }


def _best(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(9):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def measure(variant: str, size: int, classes: int, rounds: int, seconds: float, left_out: list[str]) -> dict:
    """Let every way take its turn, and compare their answers."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        theirs = transformers_segformer(variant, classes)
        torch.save(theirs.state_dict(), folder / "weights.pt")
        network, image = ClassMap(theirs, size).eval(), image_of(size)
        if not {"onnxruntime", "openvino"} <= set(left_out):
            torch.onnx.export(network, (image,), folder / "peer.onnx", dynamo=True, external_data=False, verbose=False)
        del theirs, network
        ways = {
            name: Way(make, (variant, size, classes, folder)) for name, make in WAYS.items() if name not in left_out
        }
        for name in ("transformers", "smp"):
            if name in ways:
                ways[name + KEPT] = Way(with_kept_memory, (WAYS[name], variant, size, classes, folder))
        turns = take_turns(ways, rounds, seconds=seconds)
    expected = turns.answers["transformers"]
    bound = roofline(variant, size, classes)
    return {
        "seconds": turns.seconds,
        "times_pixelwise": turns.ratios,
        "peak_mib": turns.peak_mib,
        # smp has weights of its own, so its answer says nothing.
        "agreement": {
            name: float((a == expected).mean())
            for name, a in turns.answers.items()
            if name not in ("smp", "smp" + KEPT)
        },
        "roofline": bound,
        "pixelwise_over_roofline": turns.seconds["pixelwise"] / bound["seconds"],
        "machine": machine(),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="")
    parser.add_argument("--without", nargs="*", default=[], choices=list(WAYS)[2:], help="peers that are not installed")
    parser.add_argument("--turn", type=float, default=0.0, help="seconds of a turn at least; 0: one image")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=150)
    given = parser.parse_args()
    for variant in SIZES:
        name = f"segformer-{variant}"
        if given.only in name:
            row = measure(variant, given.size, given.classes, given.rounds, given.turn, given.without)
            print(name, json.dumps(row, indent=1), flush=True)
            if any(getattr(given, each) != parser.get_default(each) for each in ("size", "classes", "turn")):
                print("Not kept: the table is of the default size and classes, and of turns of one image.")
                continue
            kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
            kept |= {"size": given.size, "classes": given.classes}
            kept.setdefault("networks", {})[name] = row
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
