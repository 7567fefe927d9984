"""Draw the maps that each family makes of an image, docs/models/*.svg; they are asked for their sizes, not typed.

    python benchmarks/network_drawings.py

A bar is a map: as high as the map's side, on a logarithmic scale, as wide as it has channels. It takes about a minute.
"""

import argparse
import html
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from pixelwise.models import create

PAGES = Path(__file__).parents[1] / "docs" / "models"
SIDE, CLASSES = 512, 19
UNIT, FLOOR, GAP, LEFT = 15, 190, 26, 24
"""Pixels of the drawing: of a doubling of the map's side; the foot of all bars; between bars; the first one."""
COLOURS = {"image": "#8d99ae", "encoder": "#3a86c8", "decoder": "#e9c46a", "logits": "#d1495b"}
DRAWN = {
    "deeplab": "deeplabv3plus",
    "depict": "depict-sa",
    "eomt": "eomt-s",
    "hardnet": "fchardnet-70",
    "hmsa": "hmsa",
    "hrnet": "hrnet-w48",
    "linknet": "linknet",
    "pspnet": "pspnet",
    "segformer": "segformer-b0",
    "segmenter": "segmenter-mask",
    "segnext": "segnext-b",
    "setr": "setr-pup",
    "unet": "unet",
}
"""Page -> the network that is drawn there."""
ENCODERS = {"dinov2": "dinov2-small", "efficientnet": "efficientnet-lite0", "vit": "vit-small"}
"""The same for pages of encoders."""


@dataclass(frozen=True)
class Bar:
    """A map in the drawing."""

    kind: str
    stride: float
    channels: int
    text: str


def bars_of(network: str, encoder: str | None = None) -> list[Bar]:
    """Return the maps from the image to the logits; of an encoder alone, without what comes behind it."""
    with torch.device("meta"):
        options = {} if encoder is None else {"encoder": encoder}
        model = create(network, classes=CLASSES, bands=3, **options).eval()
        image = torch.zeros(1, 3, SIDE, SIDE)
    with torch.no_grad():
        logits = model.decode(image).logits
    found = [Bar("image", 1, 3, "image")]
    strides, channels = getattr(model.encoder, "strides", ()), getattr(model.encoder, "channels", ())
    found += [Bar("encoder", stride, width, f"1/{stride:g}") for stride, width in zip(strides, channels, strict=True)]
    if encoder is None:
        stride = SIDE / logits.shape[-1]
        found.append(Bar("logits", stride, CLASSES, "full size" if stride == 1 else f"1/{stride:g}"))
    return found


def drawing(title: str, bars: list[Bar]) -> str:
    """Return the SVG. Its ground is light in dark pages too, so that its colours can be read."""
    x, parts = float(LEFT), []
    for bar in bars:
        if bar.kind == "logits":
            parts.append(_decoder(x))
            x += 84
        height, width = UNIT * (math.log2(SIDE / bar.stride) + 1), 4 * math.log2(bar.channels) + 4
        parts.append(
            f'<rect x="{x:.0f}" y="{FLOOR - height:.0f}" width="{width:.0f}" height="{height:.0f}" rx="3" '
            f'fill="{COLOURS[bar.kind]}"/>'
        )
        middle = x + width / 2
        parts.append(f'<text x="{middle:.0f}" y="{FLOOR + 18}">{bar.text}</text>')
        count = f"{bar.channels} classes" if bar.kind == "logits" else f"{bar.channels}"
        parts.append(f'<text x="{middle:.0f}" y="{FLOOR + 34}" class="small">{count}</text>')
        x += width + GAP
    size = f'width="{x:.0f}" height="{FLOOR + 48}" viewBox="0 0 {x:.0f} {FLOOR + 48}"'
    style = "text{font:13px sans-serif;text-anchor:middle;fill:#22313f}.small{font-size:11px;fill:#5c6b77}"
    ground = f'<rect width="100%" height="100%" rx="8" fill="#f6f7f8"/><style>{style}</style>'
    name = f"<title>{html.escape(title)}</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{name}{ground}{"".join(parts)}</svg>\n'


def _decoder(x: float) -> str:
    top = FLOOR - 3.5 * UNIT
    return (
        f'<rect x="{x - 6:.0f}" y="{top:.0f}" width="72" height="{2 * UNIT}" rx="6" fill="{COLOURS["decoder"]}"/>'
        f'<text x="{x + 30:.0f}" y="{top + 20:.0f}">decoder</text>'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[*DRAWN, *ENCODERS], metavar="PAGE")
    for page in parser.parse_args().only:
        name = DRAWN.get(page) or ENCODERS[page]
        bars = bars_of(name) if page in DRAWN else bars_of("segmenter-linear", name)
        (PAGES / f"{page}.svg").write_text(drawing(f"The maps of {name}", bars), encoding="utf-8")
        print(f"{page}.svg is written.")


if __name__ == "__main__":
    main()
