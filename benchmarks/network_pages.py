"""Write the sections *Time and memory* and *Weights* of docs/models/*.md from what was counted and measured.

    python benchmarks/network_pages.py
    python benchmarks/network_pages.py --check     # writes nothing; fails if a page is out of date

Sizes are those of src/pixelwise/hub/costs.json, times and memory those of benchmarks/results/, weights and licences
those of src/pixelwise/hub/ledger.toml. A figure that is in none of them is left empty.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pixelwise.hub
from pixelwise.hub.ledger import Row, licence_of, rows

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "models"
RESULTS = ROOT / "benchmarks" / "results"
COSTS = Path(pixelwise.hub.__file__).with_name("costs.json")
BEGIN, END = "<!-- benchmarks/network_pages.py writes from here -->", "<!-- to here -->"

ABOUT_COSTS = """\
Parameters and GFLOP are counted, for a network of 19 classes and 512x512 pixels; a multiplication with its addition
counts as two. Seconds and MiB were measured for a class map of 150 classes and 512x512 pixels, on two cores of a CPU in
float32 ([performance](../performance.md)). MiB are what the first images add to the process once the network is loaded.
An empty cell was not measured; `pixelwise models --time` measures seconds on your machine.""".splitlines()
ABOUT_WEIGHTS = """\
Those that `[model] weights` takes by name. *Commercial use* speaks of the licence of the file alone
([weights](../weights.md#licences)).""".splitlines()


@dataclass(frozen=True)
class Family:
    """What a page is about: the first words of its networks' names, and of its encoders'."""

    networks: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()


FAMILIES = {
    "deeplab": Family(("deeplabv3",), ("resnet",)),
    "depict": Family(("depict-",)),
    "dinov2": Family((), ("dinov2-",)),
    "efficientnet": Family((), ("efficientnet-",)),
    "eomt": Family(("eomt-",)),
    "hardnet": Family(("fchardnet-",), ("hardnet-",)),
    "hmsa": Family(("hmsa",)),
    "hrnet": Family(("hrnet",), ("hrnet-",)),
    "linknet": Family(("linknet",), ("resnet",)),
    "pspnet": Family(("pspnet",), ("resnet",)),
    "segformer": Family(("segformer-",), ("mit-",)),
    "segmenter": Family(("segmenter-",)),
    "segnext": Family(("segnext-",), ("mscan-",)),
    "setr": Family(("setr-",)),
    "unet": Family(("unet",)),
    "vit": Family((), ("vit-",)),
}


@dataclass(frozen=True)
class Measured:
    """A class map of 150 classes, 512x512, on two threads of a CPU."""

    seconds: float
    mebibytes: float


def measured() -> dict[str, Measured]:
    """Return what was measured of each network."""
    networks, maps = (json.loads((RESULTS / name).read_text()) for name in ("networks.json", "class_map.json"))
    found = {name: Measured(each["seconds"]["fused"], each["peak_mib"]["fused"]) for name, each in networks.items()}
    for name, each in maps["networks"].items():
        found[name] = Measured(each["seconds"]["pixelwise"], each["peak_mib"]["pixelwise"])
    return found


def cost_lines(family: Family) -> list[str]:
    """Return the section with a row for each network; nothing where the page has no network of its own."""
    costs, times = json.loads(COSTS.read_text()), measured()
    names = [name for name in costs if name.startswith(family.networks)] if family.networks else []
    if not names:
        return []
    lines = [
        "## Time and memory",
        "",
        *ABOUT_COSTS,
        "",
        "| network | parameters | GFLOP | seconds | MiB |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        time = times.get(name)
        cells = ("", "") if time is None else (f"{time.seconds:.2f}", f"{time.mebibytes:.0f}")
        million, giga = costs[name]["parameters"] / 1e6, costs[name]["flops"] / 1e9
        lines.append(f"| `{name}` | {million:.1f} M | {giga:.1f} | {cells[0]} | {cells[1]} |")
    return lines


def weight_lines(family: Family) -> list[str]:
    """Return the section with a row for each licence and data set of weights that are known by name."""
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows():
        ours = row.network.startswith(family.networks) if row.network and family.networks else False
        if ours or (not row.network and family.encoders and row.encoder.startswith(family.encoders)):
            grouped[row.licence, row.data].append(row)
    if not grouped:
        return ["## Weights", "", "None are known by name."]
    lines = [
        "## Weights",
        "",
        *ABOUT_WEIGHTS,
        "",
        "| licence | commercial use | learned from | names |",
        "|---|---|---|---|",
    ]
    for (licence, data), found in sorted(grouped.items()):
        names = ", ".join(f"`{row.name}`" for row in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        lines.append(f"| {licence} | {licence_of(licence).commercial} | {data or 'not read'} | {names}{more} |")
    return lines


def made(page: str) -> str:
    """Return what stands between the two marks of a page."""
    family = FAMILIES[page]
    sections = [section for section in (cost_lines(family), weight_lines(family)) if section]
    return "\n\n".join("\n".join(section) for section in sections)


def with_sections(text: str, sections: str) -> str:
    """Put the sections between the marks of a page.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"The page lacks the line {BEGIN!r} or {END!r}.")
    return f"{before}{BEGIN}\n\n{sections}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    late = []
    for page in FAMILIES:
        path = PAGES / f"{page}.md"
        text = path.read_text(encoding="utf-8")
        if (new := with_sections(text, made(page))) != text:
            late.append(path.name)
            if not arguments.check:
                path.write_text(new, encoding="utf-8")
    print(f"{'Out of date' if arguments.check else 'Written'}: {', '.join(late) or 'none'}")
    sys.exit(bool(late and arguments.check))


if __name__ == "__main__":
    main()
