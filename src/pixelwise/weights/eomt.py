"""EoMT's names in its own release and in transformers; the encoder's are DINOv2's there."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.models.dinov2 import VARIANTS
from pixelwise.weights.dinov2 import (
    TRANSFORMERS,
    joined_with_class_position,
    scaled_options,
    timm_scaled_options,
    timm_scaled_rules,
    transformers_rules,
    with_class_position,
)
from pixelwise.weights.layout import Layout
from pixelwise.weights.vit import count

_NETWORK = r"(?:network\.)?"
"""The release's files have the names of the whole training module."""


def _encoder(channels: int, depth: int) -> dict[str, object]:
    for name, variant in VARIANTS.items():
        if (channels, depth) == (variant.channels, variant.depth):
            return {"encoder": f"dinov2-{name}"}
    return {"encoder": "dinov2-base", "dim": channels, "depth": depth}


def _release_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    network = "network." if "network.q.weight" in state else ""
    backbone = f"{network}encoder.backbone."
    queries, channels = state[f"{network}q.weight"].shape
    options = {**timm_scaled_options(state, backbone), **_encoder(channels, count(state, f"{backbone}blocks."))}
    return {**options, "queries": queries, "query_blocks": len(state[f"{network}attn_mask_probs"])}


def _transformers_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    names = {
        **TRANSFORMERS,
        "positions": "embeddings.position_embeddings.weight",
        "gated": "layers.0.mlp.weights_in.weight",
    }
    options = scaled_options(state, "", names, "antialias")
    gated = "layers.0.mlp.gate_proj.weight" in state
    queries, channels = state["query.weight"].shape
    options |= {"feed_forward": "swiglu"} if gated else {}
    options |= _encoder(channels, count(state, "layers."))
    return {**options, "queries": queries, "query_blocks": len(state["attn_mask_probs"])}


LAYOUTS = (
    Layout(
        "EoMT, the paper's release",
        signature=(
            _NETWORK + r"encoder\.backbone\.blocks\.0\.ls1\.gamma$",
            _NETWORK + r"q\.weight$",
            _NETWORK + r"attn_mask_probs$",
        ),
        rules=(
            *timm_scaled_rules(_NETWORK + r"encoder\.backbone\."),
            (_NETWORK + r"q\.weight", "decoder.queries"),
            (_NETWORK + r"attn_mask_probs", "decoder.mask_chances"),
            (_NETWORK + r"class_head\.", "decoder.classifier."),
            (_NETWORK + r"mask_head\.(\d)\.", "decoder.mask_embedding.{0}."),
            (_NETWORK + r"upscale\.(\d)\.conv1\.", "decoder.upscale.{0}.expand."),
            (_NETWORK + r"upscale\.(\d)\.conv2\.", "decoder.upscale.{0}.mix."),
            (_NETWORK + r"upscale\.(\d)\.norm\.", "decoder.upscale.{0}.norm."),
        ),
        unused=(_NETWORK + r"encoder\.pixel_(mean|std)$", r"criterion\.", r"metrics\."),
        options=_release_options,
        rearrange=with_class_position,
    ),
    Layout(
        "EoMT, transformers",
        signature=(r"query\.weight$", r"upscale_block\.block\.0\.conv1\.", r"layers\.0\.layer_scale1\."),
        absent=(r"rope_embeddings\.", r"layers\.0\.mlp\.(?!fc|gate|up|down|weights)"),
        rules=(
            *transformers_rules("", "layers"),
            (r"query\.weight", "decoder.queries"),
            (r"attn_mask_probs", "decoder.mask_chances"),
            (r"class_predictor\.", "decoder.classifier."),
            (r"mask_head\.fc1\.", "decoder.mask_embedding.0."),
            (r"mask_head\.fc2\.", "decoder.mask_embedding.2."),
            (r"mask_head\.fc3\.", "decoder.mask_embedding.4."),
            (r"upscale_block\.block\.(\d)\.conv1\.", "decoder.upscale.{0}.expand."),
            (r"upscale_block\.block\.(\d)\.conv2\.", "decoder.upscale.{0}.mix."),
            (r"upscale_block\.block\.(\d)\.layernorm2d\.", "decoder.upscale.{0}.norm."),
        ),
        unused=(r"criterion\.",),
        options=_transformers_options,
        rearrange=joined_with_class_position,
    ),
)
