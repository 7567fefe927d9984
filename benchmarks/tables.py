"""Write `docs/performance.md` from the results that the other benchmarks kept.

python benchmarks/tables.py
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("transformers", "smp", "onnxruntime", "openvino")
KEPT = " with kept memory"
HEAD = """# Performance

Made by `python benchmarks/tables.py` from `benchmarks/results/`; `benchmarks/README.md` has the command of each table.
Read ratios, not seconds. Every way has a process of its own, as its users run it, and they take turns; 2 cores of a
shared CPU machine, float32. A ratio is the median of the rounds' ratios, and above 1 ours is faster. The load is the
machine's when a row ended: 2 cores are busy at 2. No table was made on a GPU.
"""

TRIED = """## Bounds, and what was tried

SegFormer-B0's class map on one thread is 1,200 calls of torch that take 148 ms (a busy machine, least of 20 runs):
linear layers 44 ms, attention 32, the classifier 17, labels 15, the first layers of stages 7, layer norms 6, sums of
maps of the decoder 5, their resizing 4, depthwise convolutions 4, GELU 4. Freed memory that the system takes back costs
11,400 fresh pages for each map, 150 instead of 104 ms by the clock on two threads. Labels by pooling over the classes
took 19 to 22 instead of 23 to 25 ms, and 33 instead of 54 where logits have full size. Before linear layers had packed
weights and decoder and feed-forward layers worked in bands that stay in cache, encoder and decoder took 120 and 44 ms.
Large tensors that are new each time cost more than arithmetic: a depthwise convolution and GELU over 128 maps of
128x128 took 11 ms, and 2.5 ms in memory that was used before. DEPICT-SA on ViT-small has 70 GFLOP, a third of them in
attention over 1,025 tokens, which runs at 80 GFLOP/s of a thread, linear layers at 107: at the 193 GFLOP/s of two
threads its bound is 0.36 s, and half of its plain form's time 0.30 to 0.35. So neither it nor B5 (147 GFLOP, 0.76 s,
where OpenVINO takes 1.38) can be twice as fast as the other. Tried and dropped for the labels: upsampling only classes
whose four cells' highest logit reaches the least of another's, for each square of cells (57 instead of 43 ms on noise,
34 instead of 58 with smooth logits, 104 instead of 49 with 8 classes) and for whole strips (nearly all classes contend
somewhere); other sizes of strips, and bands of twice the size for two threads. GELU inside oneDNN's depthwise
convolution gained nothing.

Ratios of short runs move with the machine's memory, on which the peers depend more than ours, and with its clock: after
half a second in which another process had both cores, B0's class map took 94 instead of 83 ms, five times in a row.
Runs of 9 to 15 rounds of the first table's first row gave, times transformers and smp: 6.97 and 6.00, 5.75 and 6.37,
6.01 and 5.80, 5.82 and 5.60, 6.50 and 4.82, 5.86 and 6.51, 5.70 and 6.06, 4.91 and 8.09, 7.31 and 8.23, 6.20 and 6.12
with turns that followed each other at once, and with a pause before each turn 6.75 and 6.88, 6.61 and 8.07, 6.11 and
5.80 (0.2 s), 6.24 and 6.80, 7.05 and 7.41, 7.16 and 6.96, and another day 6.01 and 6.05, 5.20 and 5.09, 5.23 and 5.80,
5.27 and 5.26 (0.1 s). The medians of the 20 are 6.1 and 6.1. The first 16 had 6.2 and 6.4: on the last day transformers
took 0.57 to 0.58 s in the three runs whose seconds were kept, and 0.88 in the last run of the day before, but with kept
memory 0.38 to 0.41 and 0.42, so that fresh pages seem to have cost less. The pause is for fairness, not what made the
difference: after an answer our threads wait for more work for 9 ms of processor time, transformers' not at all (medians
of 15), so that without it the peer whose turn came next may have lost about 1 per cent. In the same way the training
step at batch 4, 256x256 gave 2.82 and 2.93, 2.51 and 2.50, 3.02 and 3.16, 2.89 and 2.60, 2.91 and 2.83, 2.38 and 2.29,
2.60 and 2.70, 2.71 and 2.65 before its last change, 2.66 and 2.49, 2.74 and 2.56, 2.77 and 2.69, 3.00 and 2.94 after
it, and with the pause 2.87 and 3.04, 2.76 and 2.77, 3.05 and 2.87, after the changes of the next day 2.51 and 2.44,
2.69 and 2.65, 2.76 and 2.48; that at batch 2, 512x512 with the pause 4.44 and 3.77, 4.84 and 4.46, 4.68 and 4.24, 4.43
and 3.67, after those changes 4.62 and 4.65, 4.11 and 4.00, 3.94 and 4.13. Turns of a second, in calls that follow each
other (`--turn 1`), gave 5.42 and 6.98, 5.76 and 6.78 for the map, more than single calls that day beside smp alone, and
2.59 and 2.48 for the step at 256x256. From one run to the next matrix products were measured at 103 to 193 GFLOP/s. The
last run is in the table. Working on bands of rows or strips of labels in two Python threads, each on one core, took 1.2
to 1.3 times as long.

B5's class map on two threads, 1.05 s: linear layers 615 ms, attention 155, depthwise convolutions 48, GELU 29, the
classifier 23, layer norms 18, sums 17, labels 13, the rest and what lies between operations 130. DEPICT-SA's, 0.49 s:
attention 178 ms, linear layers 228, labels 18, layer norms 7.

A step of B0 at batch 2, 512x512, 150 classes has about 51 GFLOP of matrix products, 600 ms on a thread at 85 GFLOP/s,
and about 35 ms of exponentials; at batch 4, 256x256, 19 classes 17 GFLOP, 200 ms. Before the loss used that
exponentials between two cells have equal ratios, it took 518 ms of processor time there, and 229 ms after. Plain
attention was slower than torch's fused one at five of six sizes.
`[train] activation_checkpointing` takes 477 instead of 680 MiB
there at 1.29 times the time. LinkNet, compiled in 110 s, has the plain network's gradients: 4e-14 apart in float64,
2e-2 in float32 at 64x64. `[train] compile` does not pay on a CPU: SegFormer-B0's first step at batch 4, 256x256 took 27
s of processor time on one thread beside the compiler's own (99 s by the clock of a busy machine), and each later one
1.45 times the plain step's (median of 9 turns, 0.334 and 0.485 s at least).

On one thread the step of B0 at batch 4, 256x256 came from 381 to 344 ms, and that at batch 2, 512x512 from 1157 to 1069
ms (processor time, least of 21 and of 5 turns), by what follows. Pages of 2 MiB: 2 to 4 per cent. Scores and values of
one head that take in the matrices of query and output: a block's attention 11.8 instead of 15.2 ms. oneDNN for linear
maps: 38 instead of 44 ms of the encoder's forward pass. On two threads both steps then came to 0.93 and 0.97 of their
time (medians of 50 and 15 turns) by larger strips of the loss (0.84 of its own time), the first also by a plain
Mix-FFN: image by image, hidden maps computed again, it had saved 10 of 262 ms of the encoder on one thread, and cost 4
to 5 per cent of that step on two (and saved 36 to 62 MB of memory). Tried and dropped: oneDNN for small linear maps too
(a function in Python costs 0.1 ms, and the step took as long); the same scores with two heads (no gain); Mix-FFN by
channels (no gain, or up to a third slower); a depthwise convolution's weight gradient as nine shifted products (120
instead of 1.3 ms); GELU's tanh form (3.5 instead of 1.4 ms); on two threads, the encoder with the half of the images on
a thread each, forward and backward (3 to 7 per cent of a step at first; measured again 1.00 of the step at batch 4,
256x256 and 1.06 at batch 2, 512x512); a whole block forward and backward as one function, without autograd between its
operations and with all its products oneDNN's (1 to 2 per cent of a block of any stage but the first); leaving the
branches of images that drop path leaves out uncomputed (0.99 of the step at both sizes, and 47 MiB more; 0.99 too, by
120 turns, together with a depthwise convolution's gradient by its input as a convolution forward and the classifier's
by oneDNN); at 512x512 the scores of the first stage kept for the backward pass (1.01 of the step); products of a
weight's gradient by oneDNN, or split into two to eight (no gain at most shapes); torch.compile of the whole network for
inference (0.087 instead of 0.084 s of the plain form's logits, and its upsampling with argmax 27 instead of 12 ms).

Of a step at batch 4, 256x256 on two threads, sampled by a profiler, the second thread waits 24 per cent for the first
to come to the next parallel part and 7 at its end, and the first 8 for the second. In that time the first runs Python
(7 per cent of the step), allocates (3), and goes from operation to operation in torch; none of the 8,000 calls of a
step stands out. The same step takes 0.38 s on one thread, 0.25 to 0.30 on two, and 0.20 to 0.26 with the half of the
batch in each of two processes at once, which is what two threads could come to. A linear layer's function in Python
costs 0.13 ms more than torch's own, 2.5 ms of a step. Later the loss came to 0.89 of its time at batch 2, 512x512, 150
classes and 0.96 at batch 4, 256x256, 19 (0.99 on one thread) by products class by class, which two threads share, and
fewer passes; a first layer that gets its image in channels-last order takes 3.4 instead of 4.7 ms and 7.8 instead of
11.0; shortcuts add what drop path leaves in one pass. The steps came to 0.96 and 0.98 of their time at 512x512, and at
256x256 to 0.98 and 1.01, which is noise. Tried and dropped there (ratios of the step, 40 or 50 turns): that function
with fewer checks (1.01), no fast bins in the allocator (1.01), numbers near 0 flushed (1.01); strips of the loss of
half, one and a half or twice the size (1.19, 0.98, 1.02 of the loss); 1x1 convolutions instead of linear functions, and
the wider matrix of a weight's gradient first (no gain at most shapes).
"""


def loaded(name: str) -> dict:
    """Return a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _times(ratios: dict[str, float], way: str) -> str:
    """A ratio and, in brackets, that with kept memory; nothing for a way that was not measured."""
    if way not in ratios:
        return ""
    return f"{ratios[way]:.2f}x" + (f" ({ratios[way + KEPT]:.2f}x)" if way + KEPT in ratios else "")


def class_maps() -> list[str]:
    """SegFormer beside all peers."""
    found = loaded("class_map")
    lines = [
        "## From image to class map, SegFormer",
        "",
        f"{found['classes']} classes, {found['size']}x{found['size']}; ONNX Runtime and OpenVINO run transformers' "
        "export with the resize and the argmax inside. A process that runs a fused network keeps freed memory; in "
        "brackets the peers of PyTorch have that setting too. The bound is FLOPs over the measured speed of a matrix "
        "product. Memory is what the first three images add to the peak of the process, once the network is loaded: "
        "nothing, where loading and fusing took more than they do.",
        "",
        "| | seconds | transformers | smp | ONNX Runtime | OpenVINO | over the bound | MiB | transformers | load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["networks"].items():
        ratios, seconds, memory = row["times_pixelwise"], row["seconds"]["pixelwise"], row["peak_mib"]
        peers = " | ".join(_times(ratios, key) for key in PEERS)
        both = f"{memory['pixelwise']:.0f} | {memory['transformers']:.0f}"
        lines.append(
            f"| `{name}` | {seconds:.3f} | {peers} | {row['pixelwise_over_roofline']:.2f} | {both} | "
            f"{row['machine']['load']} |"
        )
    bound = found["networks"]["segformer-b0"]["roofline"]
    paddle = loaded("paddle_class_map")
    ratios = paddle["cpu, times pixelwise"]
    return [
        *lines,
        "",
        f"B0's bound: {bound['gflop']:.2f} GFLOP at {bound['gflop_per_second']:.0f} GFLOP/s are "
        f"{bound['seconds']:.3f} s; "
        f"{bound['megabytes']:.0f} MB, if nothing stayed in cache, at {bound['gigabytes_per_second']:.1f} GB/s are "
        f"{bound['seconds_of_traffic']:.3f} s.",
        "",
        f"PaddleSeg {paddle['paddle']} on one thread, B0 with the same weights and the same labels, needs "
        f"{ratios['eager']:.1f} times our processor time, and exported to Paddle Inference "
        f"{ratios['inference']:.1f} times.",
    ]


def networks() -> list[str]:
    """A network of each family beside its unfused form."""
    found = loaded("networks")
    lines = [
        "## From image to class map, every family",
        "",
        "150 classes, 512x512. Fused beside plain, which is the network as its paper draws it with full-size logits "
        "and torch's argmax, and beside smp's network on the same encoder where it has one; in brackets with "
        "kept memory too. smp's DeepLabV3+ has separable convolutions, as ours with that option, and 37 billion "
        "multiplications; ours have 38, and 70 with plain ones.",
        "",
        "| | seconds | plain | smp | MiB: fused | plain | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        ratios, memory = row["times_fused"], row["peak_mib"]
        lines.append(
            f"| `{name}` | {row['seconds']['fused']:.3f} | {_times(ratios, 'plain')} | {_times(ratios, 'smp')} | "
            f"{memory['fused']:.0f} | {memory['plain']:.0f} | {row['machine']['load']} |"
        )
    return lines


def training() -> list[str]:
    """Steps of training."""
    lines = [
        "## A step of training",
        "",
        "Each way in a process of its own, as its users run it. `pixelwise.train` sets the system's allocator to keep "
        "freed memory; in brackets the others have that setting too. Memory is what three steps add to a process. "
        "Plain is our network with all maps kept and torch's cross-entropy at full size.",
        "",
        "| network, batch, size, classes | seconds | beside | ratio | MiB: ours | theirs |",
        "|---|---|---|---|---|---|",
    ]
    for row in loaded("training_step"):
        case = f"`{row['network']}`, {row['batch']}, {row['size']}, {row['classes']}"
        memory = row["peak_growth_mib"]
        for peer in ("transformers", "smp", "plain"):
            if peer in row["seconds"]:
                times = _times(row["times_pixelwise"], peer)
                lines.append(
                    f"| {case} | {row['seconds']['pixelwise']:.3f} | {peer} | {times} | {memory['pixelwise']} | "
                    f"{memory[peer]} ({memory[peer + KEPT]}) |"
                )
    return lines


def evaluation() -> list[str]:
    """Logits to scores."""
    row = loaded("evaluation")
    return [
        "## From logits to scores",
        "",
        f"{row['images']} images of {row['size']}x{row['size']}, {row['classes']} classes, logits at a quarter: "
        f"{row['times_pixelwise']:.1f} times the speed of torch's resize and argmax with torchmetrics, the same mean "
        f"IoU (difference {row['miou_difference']:.0e}). After the tenth image the peak grew by "
        f"{row['growth_mib_after_ten']:.0f} MiB.",
    ]


def scenes() -> list[str]:
    """Maps of large scenes."""
    lines = [
        "## Maps of large scenes",
        "",
        "One process each, tiles of 512 with 128 shared. The shares are the time of the network alone, on a tile that "
        "is in memory, over that of the whole map with reading, blending and writing. The network alone works in two "
        "ways: a tile after the other with all threads for each, as one calls it; or a tile for each thread at the "
        "same time, as maps are made, which is the harder comparison. By the clock and, in brackets, by processor "
        "time of all threads.",
        "",
        "| network, size | threads | peak MiB | megapixels per second | share, tiles in turn | tiles at once | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in loaded("huge").items():
        shares = " | ".join(
            f"{row[f'share_{way}_by_seconds']:.2f} ({row[f'share_{way}_by_seconds_of_processors']:.2f})"
            for way in ("in_turn", "at_once")
        )
        lines.append(
            f"| {name} | {row['threads']} | {row['peak_mib']:.0f} | {row['megapixels_per_second']:.2f} | {shares} | "
            f"{row['load']:.1f} |"
        )
    return lines


def scenes_of_peers() -> list[str]:
    """Maps of large scenes beside the peers."""
    found = loaded("large_scene_peers")
    sides = [name for name in found if name.startswith("small ")]
    ways = [name for name in found[sides[0]] if isinstance(found[sides[0]][name], dict) and name != "versions"]
    lines = [
        "## Maps of large scenes, beside the peers",
        "",
        "The same fused small network for all, one thread unless said otherwise, tiles of 512 with 128 shared: peak "
        "MiB, and time over ours by the clock and, in brackets, by processor time. Seams: labels that change when the "
        "grid of tiles is shifted by half a tile, along tile borders and inside (tiles of 256, a network trained on "
        "the example fields). `benchmarks/large_scene_peers.py` says how.",
        "",
        f"| | {' | '.join(name.replace('small ', 'side ') for name in sides)} | seams: borders | inside |",
        f"|---{'|---' * len(sides)}|---|---|",
    ]
    for way in ways:
        cells = []
        for side in sides:
            row = found[side][way]
            slow = f"{row['seconds_ratio']:.1f}x ({row['cpu_ratio']:.1f}x)" if "cpu" in row else "out of memory"
            cells.append(f"{row['peak_mib']:.0f}, {slow}")
        seams = found["seams"].get(way)
        changed = ["", ""] if seams is None else [f"{seams[key]:.1%}" for key in ("along borders", "inside")]
        lines.append(f"| {way} | {' | '.join([*cells, *changed])} |")
    return lines


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    parts = [class_maps(), networks(), training(), evaluation(), scenes(), scenes_of_peers()]
    text = HEAD + "\n" + "\n\n".join("\n".join(part) for part in parts) + "\n\n" + TRIED
    (ROOT / "docs" / "performance.md").write_text(text, encoding="utf-8")
    print("docs/performance.md is written.")


if __name__ == "__main__":
    main()
