"""ViT's names in timm, whose ImageNet weights most plain transformers start from, and what shapes tell of a ViT."""

import math
from collections.abc import Mapping

from torch import Tensor

from pixelwise.models.vit import VARIANTS
from pixelwise.weights.layout import Layout


def timm_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of timm's names after ``prefix``, a pattern."""
    return (
        (rf"{prefix}cls_token", "encoder.class_token"),
        (rf"{prefix}dist_token", "encoder.distillation_token"),
        (rf"{prefix}pos_embed", "encoder.positions"),
        (rf"{prefix}patch_embed\.proj\.", "encoder.patches."),
        *timm_blocks(rf"{prefix}blocks\.(\d+)", "encoder.blocks.{0}"),
        (rf"{prefix}norm\.", "encoder.norm."),
    )


def timm_blocks(block: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of timm's transformer blocks; ``block`` is a pattern with the number as its group."""
    return (
        (rf"{block}\.norm1\.", f"{ours}.norm1."),
        (rf"{block}\.attn\.qkv\.", f"{ours}.attention.qkv."),
        (rf"{block}\.attn\.proj\.", f"{ours}.attention.out."),
        (rf"{block}\.norm2\.", f"{ours}.norm2."),
        (rf"{block}\.mlp\.fc1\.", f"{ours}.feed_forward.expand."),
        (rf"{block}\.mlp\.fc2\.", f"{ours}.feed_forward.project."),
    )


def mmsegmentation_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of mmsegmentation's ViT after ``prefix``, a pattern."""
    return (
        (rf"{prefix}cls_token", "encoder.class_token"),
        (rf"{prefix}pos_embed", "encoder.positions"),
        (rf"{prefix}patch_embed\.projection\.", "encoder.patches."),
        *mmsegmentation_blocks(rf"{prefix}layers\.(\d+)", "encoder.blocks.{0}"),
        (rf"{prefix}ln1\.", "encoder.norm."),
    )


def mmsegmentation_blocks(block: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of mmsegmentation's transformer blocks; ``block`` is a pattern with the number as its group."""
    return (
        (rf"{block}\.ln1\.", f"{ours}.norm1."),
        (rf"{block}\.attn\.attn\.in_proj_", f"{ours}.attention.qkv."),
        (rf"{block}\.attn\.attn\.out_proj\.", f"{ours}.attention.out."),
        (rf"{block}\.ln2\.", f"{ours}.norm2."),
        (rf"{block}\.ffn\.layers\.0\.0\.", f"{ours}.feed_forward.expand."),
        (rf"{block}\.ffn\.layers\.1\.", f"{ours}.feed_forward.project."),
    )


def vit_options(state: Mapping[str, Tensor], prefix: str, *, patches: str = "patch_embed.proj") -> dict[str, object]:
    """Return the options of a ViT that the shapes behind ``prefix`` tell; heads have 64 channels.

    Args:
        patches: name of the patch embedding behind the prefix.
    """
    positions, weight = state.get(f"{prefix}pos_embed"), state.get(f"{prefix}{patches}.weight")
    if positions is None or weight is None or positions.ndim != 3 or weight.ndim != 4:
        return {}
    distilled = f"{prefix}dist_token" in state
    patch = weight.shape[-1]
    side = math.isqrt(positions.shape[1] - (2 if distilled else 1))
    return {
        "image_size": side * patch,
        "patch": patch,
        "patch_bias": f"{prefix}{patches}.bias" in state,
        "distilled": distilled,
    }


def variant_options(state: Mapping[str, Tensor], prefix: str, block: str) -> dict[str, object]:
    """Return the encoder that has as many channels and blocks as those behind ``prefix``.

    Args:
        block: what stands before the number of a block, such as ``blocks``.
    """
    channels = state[f"{prefix}pos_embed"].shape[-1]
    numbers = [name.removeprefix(f"{prefix}{block}.").split(".")[0] for name in state if f"{prefix}{block}." in name]
    depth = len({number for number in numbers if number.isdigit()})
    for name, variant in VARIANTS.items():
        if (channels, depth) == (variant.channels, variant.depth):
            return {"encoder": f"vit-{name}"}
    return {"encoder": "vit-base", "dim": channels, "depth": depth}


def count(state: Mapping[str, Tensor], stem: str) -> int:
    """Return how many numbers follow ``stem`` in the names, such as ``decoder.blocks.``."""
    return len({name.removeprefix(stem).split(".")[0] for name in state if name.startswith(stem)})


def _timm_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {**vit_options(state, ""), "epsilon": 1e-6}


LAYOUTS = (
    Layout(
        "ViT, timm",
        signature=(r"cls_token$", r"pos_embed$", r"patch_embed\.proj\.", r"blocks\.0\.attn\.qkv\."),
        absent=(r"blocks\.0\.ls1\.", r"norm_pre\."),
        rules=timm_rules(""),
        unused=(r"head\.", r"head_dist\.", r"fc_norm\.", r"pre_logits\."),
        options=_timm_options,
    ),
)
