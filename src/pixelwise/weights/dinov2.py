"""DINOv2's names in Meta's release, in timm and in transformers."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pixelwise.weights.layout import Converted, Layout
from pixelwise.weights.vit import timm_blocks, timm_rules

Rules = tuple[tuple[str, str], ...]


def scaled_blocks(block: str, ours: str) -> Rules:
    """Return the rules of blocks with layer scales, as Meta and timm name them; ``block`` has the number as group."""
    return (
        (rf"{block}\.ls1\.gamma", f"{ours}.scale1.factor"),
        (rf"{block}\.ls2\.gamma", f"{ours}.scale2.factor"),
        (rf"{block}\.mlp\.w12\.", f"{ours}.feed_forward.expand."),
        (rf"{block}\.mlp\.w3\.", f"{ours}.feed_forward.project."),
        *timm_blocks(block, ours),
    )


def timm_scaled_rules(prefix: str) -> Rules:
    """Return the rules of timm's names of a ViT with layer scales and registers after ``prefix``, a pattern."""
    return (
        (rf"{prefix}(reg_token|register_tokens)", "encoder.registers"),
        *scaled_blocks(rf"{prefix}blocks\.(\d+)", "encoder.blocks.{0}"),
        *timm_rules(prefix),
    )


def transformers_blocks(block: str, ours: str) -> Rules:
    """Return the rules of transformers' blocks with layer scales; queries, keys and values are joined by `joined_qkv`.

    In its files DINOv2's projections are called query, key and value; in a model in memory, and in EoMT, q_proj ...
    """
    attention = rf"{block}\.attention\.(?:attention\.)?"
    return (
        (rf"{attention}(?:query|q_proj)\.", f"{ours}.attention.query."),
        (rf"{attention}(?:key|k_proj)\.", f"{ours}.attention.key."),
        (rf"{attention}(?:value|v_proj)\.", f"{ours}.attention.value."),
        (rf"{block}\.attention\.(?:output\.dense|o_proj|out_proj)\.", f"{ours}.attention.out."),
        (rf"{block}\.layer_scale1\.lambda1", f"{ours}.scale1.factor"),
        (rf"{block}\.layer_scale2\.lambda1", f"{ours}.scale2.factor"),
        (rf"{block}\.norm1\.", f"{ours}.norm1."),
        (rf"{block}\.norm2\.", f"{ours}.norm2."),
        (rf"{block}\.mlp\.gate_proj\.", f"{ours}.feed_forward.gate."),
        (rf"{block}\.mlp\.up_proj\.", f"{ours}.feed_forward.value."),
        (rf"{block}\.mlp\.(?:fc1|weights_in)\.", f"{ours}.feed_forward.expand."),
        (rf"{block}\.mlp\.(?:fc2|weights_out|down_proj)\.", f"{ours}.feed_forward.project."),
    )


def transformers_rules(prefix: str, layers: str) -> Rules:
    """Return the rules of transformers' DINOv2 after ``prefix``; ``layers`` stands before a block's number."""
    return (
        (rf"{prefix}embeddings\.cls_token", "encoder.class_token"),
        (rf"{prefix}embeddings\.register_tokens", "encoder.registers"),
        (rf"{prefix}embeddings\.position_embeddings(?:\.weight)?", "encoder.positions"),
        (rf"{prefix}embeddings\.patch_embeddings\.projection\.", "encoder.patches."),
        *transformers_blocks(rf"{prefix}{layers}\.(\d+)", "encoder.blocks.{0}"),
        (rf"{prefix}layernorm\.", "encoder.norm."),
    )


def joined_qkv(converted: Converted) -> Converted:
    """Join what they keep apart: queries, keys and values, and the two halves of a gated feed-forward network."""
    for parts, whole in ((("query", "key", "value"), "qkv"), (("gate", "value"), "expand")):
        for name in [name for name in converted if f".{parts[0]}." in name]:
            if all(name.replace(f".{parts[0]}.", f".{part}.") in converted for part in parts):
                taken = [converted.pop(name.replace(f".{parts[0]}.", f".{part}.")) for part in parts]
                joined = torch.cat([tensor for _, tensor in taken])
                converted[name.replace(f".{parts[0]}.", f".{whole}.")] = (taken[0][0], joined)
    return converted


def with_class_position(converted: Converted) -> Converted:
    """Give the class token a position of 0 where only patches have one; they are [N,D] in transformers' EoMT."""
    if "encoder.positions" in converted:
        theirs, positions = converted["encoder.positions"]
        positions = positions[None] if positions.ndim == 2 else positions
        if positions.ndim == 3 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
            positions = torch.cat([positions.new_zeros(1, 1, positions.shape[2]), positions], dim=1)
        converted["encoder.positions"] = (theirs, positions)
    return converted


def joined_with_class_position(converted: Converted) -> Converted:
    """Do what `joined_qkv` and `with_class_position` do."""
    return with_class_position(joined_qkv(converted))


def scaled_options(
    state: Mapping[str, Tensor], prefix: str, names: Mapping[str, str], position_resize: str
) -> dict[str, object]:
    """Return the options of a ViT with layer scales that shapes behind ``prefix`` tell.

    Args:
        names: of the positions, the patch embedding, the registers and the first block's gated layer.
    """
    positions, weight = state[f"{prefix}{names['positions']}"], state[f"{prefix}{names['patches']}.weight"]
    registers, gated = state.get(f"{prefix}{names['registers']}"), state.get(f"{prefix}{names['gated']}")
    # With or without a class token's, their number is a square.
    side = math.isqrt(positions.shape[-2])
    options: dict[str, object] = {
        "image_size": side * weight.shape[-1],
        "patch": weight.shape[-1],
        "patch_bias": f"{prefix}{names['patches']}.bias" in state,
        "registers": 0 if registers is None else registers.shape[1],
        "layer_scale": True,
        "epsilon": 1e-6,
        "class_token": "kept",
        "distilled": False,
        "position_resize": position_resize,
    }
    return options | ({"feed_forward": "swiglu"} if gated is not None else {})


META = {
    "positions": "pos_embed",
    "patches": "patch_embed.proj",
    "registers": "register_tokens",
    "gated": "blocks.0.mlp.w12.weight",
}
TIMM = {"positions": "pos_embed", "patches": "patch_embed.proj", "registers": "reg_token", "gated": ""}
TRANSFORMERS = {
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "registers": "embeddings.register_tokens",
    "gated": "encoder.layer.0.mlp.weights_in.weight",
}


def _meta_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    # With registers the release smooths, without it resizes by an offset factor.
    return scaled_options(state, "", META, "antialias" if "register_tokens" in state else "offset")


def timm_scaled_options(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, object]:
    """Return the options of timm's ViT with layer scales behind ``prefix``; a gate shows in the shapes."""
    options = scaled_options(state, prefix, TIMM, "antialias")
    inner, outer = (state[f"{prefix}blocks.0.mlp.{name}.weight"].shape for name in ("fc1", "fc2"))
    return options | ({"feed_forward": "swiglu"} if inner[0] == 2 * outer[1] else {})


def _transformers_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    with_registers = "embeddings.register_tokens" in state
    options = scaled_options(state, "", TRANSFORMERS, "antialias" if with_registers else "bicubic")
    gated = "encoder.layer.0.mlp.gate_proj.weight" in state
    return options | ({"feed_forward": "swiglu"} if gated else {})


_BLOCK = r"blocks\.0\.ls1\.gamma$"

LAYOUTS = (
    Layout(
        "DINOv2, Meta's release",
        signature=(r"cls_token$", r"mask_token$", r"patch_embed\.proj\.", _BLOCK),
        rules=timm_scaled_rules(""),
        unused=(r"mask_token$",),
        options=_meta_options,
    ),
    Layout(
        "ViT with layer scales (DINOv2), timm",
        signature=(r"cls_token$", r"pos_embed$", r"patch_embed\.proj\.", _BLOCK),
        absent=(r"mask_token$", r"norm_pre\.", r"blocks\.0\.attn\.(q_norm|rope)"),
        rules=timm_scaled_rules(""),
        unused=(r"head\.", r"fc_norm\."),
        options=timm_scaled_options,
        rearrange=with_class_position,
    ),
    Layout(
        "DINOv2, transformers",
        signature=(r"embeddings\.cls_token$", r"encoder\.layer\.0\.layer_scale1\.", r"layernorm\."),
        rules=transformers_rules("", r"encoder\.layer"),
        unused=(r"embeddings\.mask_token$",),
        options=_transformers_options,
        rearrange=joined_qkv,
    ),
)
