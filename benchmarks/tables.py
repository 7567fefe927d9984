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

`python benchmarks/tables.py` makes this page from `benchmarks/results/`. The [benchmarks](../benchmarks/README.md) page
has the command of each table.

- Read ratios, not seconds. A ratio is the median of the rounds' ratios. Above 1, ours is faster.
- Every tool has a process of its own, as its users run it. They take turns.
- The machine: 2 cores of a shared CPU machine, float32. No table was made on a GPU.

The tables of class maps, networks, training and large scenes were measured before parts of the engine were deleted (the
section on the engine says which). Since then, quiet, beside transformers on two threads: B0's class map 5.3x (3.5x with
kept memory; before, 5.3x and 3.9x), its training step at batch 4, 256x256 2.5x (1.9x; before, 2.8x and 2.3x).

- *Load* is the machine's load when a row ended. At 2, both cores are busy.
- *Kept memory*: the process keeps freed memory, as our commands do. Figures in brackets are those of the others with
  that setting.
"""

TRIED = (Path(__file__).parent / "tried.md").read_text(encoding="utf-8")
"""What bounds the speed, how far figures move, what was tried and dropped; written by hand."""


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
        f"{found['classes']} classes, {found['size']}x{found['size']}. ONNX Runtime and OpenVINO run transformers' "
        "export with the resize and the argmax inside.",
        "",
        "- *Over the bound*: our time over FLOPs at the measured speed of a matrix product.",
        "- *MiB*: what the first three images add to the peak of the process, once the network is loaded. It is 0 "
        "where loading and fusing took more than that.",
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
        "150 classes, 512x512. *Plain* is the network as its paper draws it, with full-size logits and torch's argmax. "
        "*smp* is its network on the same encoder, where it has one. smp's DeepLabV3+ has separable convolutions and "
        "37 billion multiplications. Ours has 38 billion with that option, and 70 billion without.",
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
        "*MiB* is what three steps add to a process. *Plain* is our network with all maps kept and torch's "
        "cross-entropy at full size.",
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
        "Tiles of 512 with 128 shared. A share is the time of the network alone, on a tile that is in memory, over "
        "that of the whole map with reading, blending and writing; by the clock and, in brackets, by processor time of "
        "all threads. The network alone works in two ways:",
        "",
        "- *tiles in turn*: one tile after the other, with all threads for each, as one calls it;",
        "- *tiles at once*: a tile for each thread at the same time, as maps are made. This is the harder comparison.",
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
        "The same fused small network for all, tiles of 512 with 128 shared, one thread unless the column says two. A "
        "cell has the peak in MiB, and the time over ours by the clock and, in brackets, by processor time. *Seams* "
        "are labels that change when the grid of tiles is shifted by half a tile (tiles of 256, a network trained on "
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


def engine() -> list[str]:
    """What each part of the engine gives."""
    found = loaded("engine")
    columns = sorted({(row["threads"], row["size"]) for row in found["rows"]})
    lines = [
        "## The engine, part by part",
        "",
        "Time of a class map (19 classes) without a part of `pixelwise.fast` over the time with all parts. Above 1, "
        "the part helps. `benchmarks/engine.py` lets the two take turns in one process. On one thread it takes the "
        "processor's time.",
        "",
        "- ~ marks noise: the middle half of the rounds is wider than 0.1, or there are fewer than 4 rounds.",
        "- A part that gives less than 10 % everywhere goes, unless all its figures are noise.",
        "",
        f"| part | {' | '.join(f'{size}x{size}, threads: {threads}' for threads, size in columns)} | |",
        f"|---{'|---' * len(columns)}|---|",
    ]
    for part in dict.fromkeys(row["part"] for row in found["rows"]):
        cells = [
            ", ".join(
                f"`{row['network']}` {'~' if row['noise'] else ''}{row['ratio']:.2f}"
                for row in found["rows"]
                if (row["part"], row["threads"], row["size"]) == (part, *column)
            )
            for column in columns
        ]
        lines.append(f"| {part} | {' | '.join(cells)} | {found['decided'].get(part, 'stays')} |")
    return [*lines, "", *(f"- {note}" for note in found["note"].splitlines())]


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    parts = [class_maps(), networks(), engine(), training(), evaluation(), scenes(), scenes_of_peers()]
    text = HEAD + "\n" + "\n\n".join("\n".join(part) for part in parts) + "\n\n" + TRIED
    (ROOT / "docs" / "performance.md").write_text(text, encoding="utf-8")
    print("docs/performance.md is written.")


if __name__ == "__main__":
    main()
