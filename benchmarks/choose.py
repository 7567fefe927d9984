"""What helps to choose a network, from the results that other benchmarks kept and the scores that authors published.

    python benchmarks/choose.py

Writes src/pixelwise/hub/measured.json, which `pixelwise models` reads; docs/choose.svg, published scores against our
time; and the table of docs/choose.md. Times come from results/networks.json and results/class_map.json: measure a
network with `networks.py --only NAME` on a quiet machine, and give this command again.
"""

import argparse
import json
import math
from pathlib import Path

from networks import NETWORKS

import pixelwise.hub
from pixelwise.hub.catalog import Row, catalog

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PLOT, PAGE = ROOT / "docs" / "choose.svg", ROOT / "docs" / "choose.md"
DATA = "ADE20K val"

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 64, 56, 24, 24
FAMILIES = {
    "segformer": "#0072b2",
    "segnext": "#d55e00",
    "hrnet": "#009e73",
    "pspnet": "#cc79a7",
    "setr": "#e69f00",
    "eomt": "#56b4e9",
}
"""Colours that the colour-blind tell apart too (Okabe and Ito, 2008)."""


def measured() -> dict:
    """Return seconds and memory of a label map, 512x512 and 150 classes, by network."""
    found = {}
    for name, row in json.loads((RESULTS / "class_map.json").read_text())["networks"].items():
        found[name] = {"seconds": row["seconds"]["pixelwise"], "source": "class_map.json"}
    for name, row in json.loads((RESULTS / "networks.json").read_text()).items():
        # Others were measured with other options than their own, such as a smaller encoder.
        if NETWORKS.get(name) == {} and (row["size"], row["classes"]) == (512, 150):
            found[name] = {"seconds": row["seconds"]["fused"], "source": "networks.json"}
    return {"about": {"size": 512, "classes": 150, "cores": 2, "folder": "benchmarks/results"}, "networks": found}


def points(rows: list[Row]) -> list[tuple[str, float, float]]:
    """Return (network, milliseconds, mIoU in percent) of those for which both are known, the fastest first."""
    found = [
        (row.name, 1e3 * row.kept_seconds, score.single_scale)
        for row in rows
        for score in row.scores
        if score.data == DATA and row.kept_seconds is not None
    ]
    return sorted(found, key=lambda point: point[1])


def drawing(shown: list[tuple[str, float, float]]) -> str:
    """Return the plot as SVG: time on a logarithmic axis, and the score."""
    times, scores = [each[1] for each in shown], [each[2] for each in shown]
    left, right = math.log10(min(times) / 1.4), math.log10(max(times) * 2.2)
    low, high = 5 * math.floor(min(scores) / 5), 5 * math.ceil((max(scores) + 1) / 5)

    def across(milliseconds: float) -> float:
        return LEFT + (math.log10(milliseconds) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def down(score: float) -> float:
        return TOP + (high - score) / (high - low) * (HEIGHT - TOP - BOTTOM)

    floor = HEIGHT - BOTTOM
    marks = [m * 10**power for power in range(5) for m in (1, 2, 5) if 10**left <= m * 10**power <= 10**right]
    lines = [f'<path class="grid" d="M{across(m):.1f} {TOP}V{floor}"/>' for m in marks]
    lines += [f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>' for y in range(low, high + 1, 5)]
    texts = [f'<text x="{across(m):.1f}" y="{floor + 18}" text-anchor="middle">{m:,}</text>' for m in marks]
    texts += [
        f'<text x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{y}</text>' for y in range(low, high + 1, 5)
    ]
    for name, milliseconds, score in shown:
        colour = next((colour for family, colour in FAMILIES.items() if name.startswith(family)), "#777777")
        x, y = across(milliseconds), down(score)
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        texts.append(f'<text class="name" x="{x + 9:.1f}" y="{y + 4:.1f}">{name}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    texts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 14}" text-anchor="middle">milliseconds of a label map</text>')
    texts.append(
        f'<text transform="translate(18 {TOP + (floor - TOP) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "mIoU on ADE20K, percent</text>"
    )
    style = (
        "text{font:13px system-ui,sans-serif;fill:#333}.name{font-weight:600}.grid{stroke:#ddd;fill:none}"
        "@media(prefers-color-scheme:dark){rect{fill:#16181d}text{fill:#ddd}.grid{stroke:#3a3d45}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>Published score against time</title><style>{style}</style>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join([*lines, *texts]) + "\n</svg>\n"
    )


def table(rows: list[Row]) -> str:
    """Return the networks with a time or a published score, as Markdown."""
    lines = [
        "| network | parameters | predict | train | ms | ADE20K | Cityscapes | weights for any use |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.kept_seconds is None and not row.scores:
            continue
        scores = {score.data: f"{score.single_scale:.1f}" for score in row.scores}
        spent = "" if row.kept_seconds is None else f"{1e3 * row.kept_seconds:.0f}"
        lines.append(
            f"| `{row.name}` | {row.parameters / 1e6:.1f} M | {row.memory / 1e9:.2f} GB "
            f"| {row.training_memory / 1e9:.1f} GB | {spent} | {scores.get(DATA, '')} "
            f"| {scores.get('Cityscapes val', '')} | {'yes' if row.free_weights else 'no'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path(pixelwise.hub.__file__).with_name("measured.json"))
    place = parser.parse_args().measured
    place.write_text(json.dumps(measured(), indent=1) + "\n")
    rows = catalog()
    PLOT.write_text(drawing(points(rows)))
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- benchmarks/choose.py -->\n", "\n<!-- end -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    PAGE.write_text(f"{before}{begin}{table(rows)}{end}{after}", encoding="utf-8")
    print(f"{place}, {PLOT} and the table of {PAGE} are written.")


if __name__ == "__main__":
    main()
