"""DINOv2: plain transformers that learned from images without labels, whose features fit many tasks as they are.

Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024 (arXiv 2304.07193); with registers:
Darcet et al., Vision Transformers Need Registers, ICLR 2024 (arXiv 2309.16588). The network is the `vit` of this house
with patches of 14 pixels, layer scales and, for the giant, gated feed-forward networks.
"""

from dataclasses import dataclass

from pixelwise.models import vit
from pixelwise.models.vit import Variant, VisionTransformer, transformer

VARIANTS = {
    "small": Variant(384, 12),
    "base": Variant(768, 12),
    "large": Variant(1024, 24),
    "giant": Variant(1536, 40, "swiglu"),
}
"""The networks that were published (paper, appendix B)."""


@dataclass(frozen=True, kw_only=True)
class Options(vit.Options):
    """What a DINOv2 is made of: the options of `vit.Options`, with DINOv2's values."""

    image_size: int = 518
    patch: int = 14
    drop_path: float = 0.0
    position_resize: str = "offset"
    layer_scale: bool = True


def dinov2(variant: str, bands: int, options: Options = Options()) -> VisionTransformer:
    """Build the encoder DINOv2 with fresh weights.

    Args:
        variant: small, base, large or giant.
        bands: of the image.

    Raises:
        ConfigError: heads that do not divide the channels.
    """
    return transformer(f"dinov2-{variant}", VARIANTS[variant], bands, options)
