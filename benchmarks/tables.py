"""Write `docs/performance.md` from the results that the other benchmarks kept.

python benchmarks/tables.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("transformers", "smp", "onnxruntime", "openvino")
HEAD = """# Performance

Made by `python benchmarks/tables.py` from `benchmarks/results/`; `benchmarks/README.md` has the command of each table.
Read ratios, not seconds. All ways of a table run in turns in one process, on 2 cores of a shared CPU machine, in
float32; a ratio is the median of the rounds' ratios, and above 1 ours is faster. No table was made on a GPU.
"""


def loaded(name: str) -> dict:
    """Return a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def class_maps() -> list[str]:
    """SegFormer beside all peers."""
    found = loaded("class_map")
    lines = [
        "## From image to class map, SegFormer",
        "",
        f"{found['classes']} classes, {found['size']}x{found['size']}; ONNX Runtime and OpenVINO run transformers' "
        "export with the resize and the argmax inside. The bound is FLOPs over the measured speed of a matrix product.",
        "",
        "| | seconds | transformers | smp | ONNX Runtime | OpenVINO | over the bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["networks"].items():
        ratios, seconds = row["times_pixelwise"], row["seconds"]["pixelwise"]
        peers = " | ".join(f"{ratios[key]:.2f}x" if key in ratios else "" for key in PEERS)
        lines.append(f"| `{name}` | {seconds:.3f} | {peers} | {row['pixelwise_over_roofline']:.2f} |")
    return lines


def networks() -> list[str]:
    """A network of each family beside its unfused form."""
    found = loaded("networks")
    lines = [
        "## From image to class map, every family",
        "",
        "Fused beside plain, which is the network as its paper draws it with full-size logits and torch's argmax, and "
        "beside smp's network on the same encoder where it has one.",
        "",
        "| | size | seconds | plain | smp |",
        "|---|---|---|---|---|",
    ]
    for name, row in found.items():
        if name != "machine":
            smp = row["times_fused"].get("smp")
            lines.append(
                f"| `{name}` | {row['size']} | {row['seconds']['fused']:.3f} | {row['times_fused']['plain']:.2f}x | "
                f"{'' if smp is None else f'{smp:.2f}x'} |"
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
                kept = f"{peer} with kept memory"
                lines.append(
                    f"| {case} | {row['seconds']['pixelwise']:.3f} | {peer} | {row['times_pixelwise'][peer]:.2f}x "
                    f"({row['times_pixelwise'][kept]:.2f}x) | {memory['pixelwise']} | {memory[peer]} ({memory[kept]}) |"
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
        "One process each, tiles of 512 with 128 shared. The share is the time of the network alone on resident tiles "
        "over that of the whole map with reading, blending and writing; above 1 where other work slowed the former.",
        "",
        "| network, side | peak MiB | megapixels per second | share of the network alone | load |",
        "|---|---|---|---|---|",
    ]
    for name, row in loaded("huge").items():
        speed = "| |"
        if "seconds" in row:
            speed = f"{row['megapixels_per_second']:.2f} | {row['share_of_network_alone']:.2f} | {row['load']:.1f}"
        lines.append(f"| {name} | {row['peak_mib']:.0f} | {speed} |")
    return lines


def main() -> None:
    """Write the page."""
    parts = [class_maps(), networks(), training(), evaluation(), scenes()]
    text = HEAD + "\n" + "\n\n".join("\n".join(part) for part in parts) + "\n"
    (ROOT / "docs" / "performance.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
