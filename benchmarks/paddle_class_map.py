"""Seconds from one image to its class map, SegFormer-B0 beside PaddleSeg's, which has an environment of its own.

    python -m venv paddle && paddle/bin/pip install paddlepaddle==3.3.1 paddleseg==2.8.0 "setuptools<81"
    paddle/bin/pip uninstall -y opencv-python && paddle/bin/pip install --no-deps opencv-python-headless
    python benchmarks/paddle_class_map.py paddle/bin/python [--rounds 9] [--size 512] [--classes 150]

Paddle runs in a process of its own that answers one request at a time, so both take turns on one thread. The ratio of a
round is taken before the median over rounds. Our network gets their weights.

* "eager": PaddleSeg's network as its own `predict.py` runs it, with argmax;
* "inference": the same, exported to Paddle Inference without oneDNN, which does not take this graph in 3.3.1
  (ConvertPirAttribute2RuntimeAttribute);
* "cpu": ratios of processor time, which other work on the machine changes less;
* "agreement": the share of equal classes, on noise.

The result is `results/paddle_class_map.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "paddle_class_map.json"


def timed(way: Callable[[], np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """Return what a way answers, and the seconds that it took by the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    answer = way()
    return answer, {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - cpu}


def serve(folder: Path, classes: int) -> None:
    """Answer requests for a class map by PaddleSeg: each line names a way, each answer is a line of JSON."""
    import paddle
    from paddle import inference
    from paddleseg.models import SegFormer
    from paddleseg.models.backbones import MixVisionTransformer_B0

    # Paddle writes to the standard output while it exports.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    paddle.set_device("cpu")
    paddle.seed(0)
    network = SegFormer(num_classes=classes, backbone=MixVisionTransformer_B0(), embedding_dim=256)
    network.eval()
    linear = {name for name, layer in network.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    weights = {}
    for name, tensor in network.state_dict().items():
        # Paddle's linear layers hold [in, out].
        turned = name.rpartition(".")[0] in linear and name.endswith(".weight")
        weights[name] = tensor.numpy().T if turned else tensor.numpy()
    np.savez(folder / "weights.npz", **weights)

    class ClassMap(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image):
            return paddle.argmax(self.network(image)[0], axis=1, dtype="int32")

    plain, image = ClassMap(), np.load(folder / "image.npy")
    plain.eval()
    graph = paddle.jit.to_static(plain, [paddle.static.InputSpec(image.shape, "float32")], full_graph=True)
    paddle.jit.save(graph, str(folder / "graph"))
    config = inference.Config(str(folder / "graph.json"), str(folder / "graph.pdiparams"))
    config.disable_gpu()
    config.disable_mkldnn()
    config.set_cpu_math_library_num_threads(1)
    config.disable_glog_info()
    predictor = inference.create_predictor(config)

    def eager() -> np.ndarray:
        with paddle.no_grad():
            return plain(paddle.to_tensor(image)).numpy()

    def exported() -> np.ndarray:
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(image)
        predictor.run()
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    ways = {"eager": eager, "inference": exported}
    print(json.dumps({"paddle": paddle.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        answer, took = timed(ways[line.strip()])
        np.save(folder / f"{line.strip()}.npy", answer)
        print(json.dumps(took), file=answers, flush=True)


def measure(python: Path, size: int, classes: int, rounds: int) -> dict:
    """Time ours and theirs in turn."""
    import torch

    import pixelwise as pw
    from pixelwise.fast.allocator import keep_freed_memory

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
        np.save(folder / "image.npy", image)
        command = [str(python), __file__, str(folder), "--serve", "--classes", str(classes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, env=environment, **pipes) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            version = json.loads(server.stdout.readline())
            ours = pw.create("segformer-b0", classes=classes)
            pw.load_weights(ours, in_the_papers_names(folder / "weights.npz"))
            keep_freed_memory()
            fast, pixels = pw.fuse(ours.eval()), torch.from_numpy(image)
            labels = fast.label_map(pixels).numpy()
            turns = []
            for _ in range(rounds + 2):
                turn = {"pixelwise": timed(lambda: fast.label_map(pixels).numpy())[1]}
                for way in ("eager", "inference"):
                    server.stdin.write(way + "\n")
                    server.stdin.flush()
                    turn[way] = json.loads(server.stdout.readline())
                turns.append(turn)
            server.stdin.close()
            agreement = {
                way: float((np.load(folder / f"{way}.npy") == labels).mean()) for way in ("eager", "inference")
            }
    # The first two rounds warm up.
    turns = turns[2:]
    found: dict = {"size": size, "classes": classes, "rounds": rounds, **version, "agreement": agreement}
    for kind in ("seconds", "cpu"):
        found[kind] = {way: statistics.median(turn[way][kind] for turn in turns) for way in turns[0]}
        ratios = {way: [turn[way][kind] / turn["pixelwise"][kind] for turn in turns] for way in agreement}
        found[f"{kind}, times pixelwise"] = {way: round(statistics.median(each), 2) for way, each in ratios.items()}
        found[f"{kind}, lowest and highest"] = {way: [round(min(e), 2), round(max(e), 2)] for way, e in ratios.items()}
    return found | {"load": os.getloadavg()[0]}


def in_the_papers_names(path: Path) -> dict:
    """Return PaddleSeg's weights under the names of SegFormer's own release."""
    import torch

    named = {}
    with np.load(path) as file:
        for name in file.files:
            key = name if name.startswith("backbone.") else f"decode_head.{name}"
            key = key.replace("._conv.", ".conv.").replace("._batch_norm.", ".bn.")
            key = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
            named[key] = torch.from_numpy(np.ascontiguousarray(file[name]))
    return named


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="the interpreter of the environment with PaddleSeg")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.python, given.classes)
        return
    found = measure(given.python, given.size, given.classes, given.rounds)
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
