"""DEPICT's names in its own release; its encoder is Segmenter's."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.models.depict import SELF_CHANNELS
from pixelwise.weights.layout import Layout
from pixelwise.weights.segmenter_vit import RELEASE_UNUSED, release_options
from pixelwise.weights.vit import count, timm_rules


def _options(state: Mapping[str, Tensor]) -> dict[str, object]:
    net = "decoder.net.layers." if "decoder.net.layers.0.fn.proj" in state else "decoder.snet.layers."
    heads = len(state[f"{net}0.fn.proj"]) // SELF_CHANNELS
    return {**release_options(state), "decoder_depth": count(state, net), "decoder_heads": heads}


def _block_rules(net: str, ours: str) -> tuple[tuple[str, str], ...]:
    block = rf"decoder\.{net}\.layers\.(\d+)"
    return (
        (rf"{block}\.norm\.", f"decoder.{ours}.{{0}}.norm."),
        (rf"{block}\.fn\.proj", f"decoder.{ours}.{{0}}.subspaces.weight"),
        (rf"{block}\.fn\.step_size", f"decoder.{ours}.{{0}}.step"),
    )


LAYOUTS = (
    Layout(
        "DEPICT-SA, the paper's release",
        signature=(r"encoder\.patch_embed\.proj\.", r"decoder\.cls_emb$", r"decoder\.net\.layers\.0\.fn\.proj$"),
        rules=(
            *timm_rules(r"encoder\."),
            (r"decoder\.cls_emb", "decoder.class_embeddings"),
            *_block_rules("net", "blocks"),
            (r"decoder\.decoder_norm\.", "decoder.norm."),
        ),
        unused=RELEASE_UNUSED,
        options=_options,
    ),
    Layout(
        "DEPICT-CA, the paper's release",
        signature=(r"encoder\.patch_embed\.proj\.", r"decoder\.cls_emb$", r"decoder\.snet\.layers\.0\.fn\.proj$"),
        rules=(
            *timm_rules(r"encoder\."),
            (r"decoder\.cls_emb", "decoder.class_embeddings"),
            *_block_rules("snet", "blocks"),
            *_block_rules("cnet", "cross_blocks"),
            (r"decoder\.snorm\.", "decoder.norm."),
            (r"decoder\.cnorm\.", "decoder.class_norm."),
        ),
        unused=RELEASE_UNUSED,
        options=_options,
    ),
)
