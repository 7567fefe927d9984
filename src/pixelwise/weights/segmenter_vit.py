"""Segmenter's names in its own release and in mmsegmentation."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Converted, Layout
from pixelwise.weights.vit import (
    count,
    mmsegmentation_blocks,
    mmsegmentation_rules,
    timm_blocks,
    timm_rules,
    variant_options,
    vit_options,
)


def release_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what the release's encoder, which DEPICT took over, tells: its shapes, and that its epsilon is 1e-5."""
    encoder = {**vit_options(state, "encoder."), **variant_options(state, "encoder.", "blocks")}
    return {**encoder, "epsilon": 1e-5, "class_token": "kept", "position_resize": "bilinear", "final_norm": True}


def _mask_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {**release_options(state), "decoder_depth": count(state, "decoder.blocks.")}


def _mmsegmentation_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    shapes = vit_options(state, "backbone.", patches="patch_embed.projection")
    encoder = {**shapes, **variant_options(state, "backbone.", "layers")}
    return {**encoder, "epsilon": 1e-6, "class_token": "kept", "position_resize": "bicubic", "final_norm": True}


def _mmsegmentation_mask_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {**_mmsegmentation_options(state), "decoder_depth": count(state, "decode_head.layers.")}


def _transposed(converted: Converted) -> Converted:
    """Their projections of patches and classes multiply from the right."""
    return {
        ours: (theirs, tensor.T if ours.startswith("decoder.project_") else tensor)
        for ours, (theirs, tensor) in converted.items()
    }


def _as_convolution(converted: Converted) -> Converted:
    return {
        ours: (theirs, tensor[:, :, None, None] if ours == "decoder.classifier.weight" else tensor)
        for ours, (theirs, tensor) in converted.items()
    }


def _paddleseg_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    encoder = {**vit_options(state, "backbone."), **variant_options(state, "backbone.", "blocks")}
    final = "backbone.norm.weight" in state
    return {**encoder, "epsilon": 1e-6, "class_token": "kept", "position_resize": "bicubic", "final_norm": final}


def _paddleseg_mask_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {**_paddleseg_options(state), "decoder_depth": count(state, "head.blocks.")}


def _with_biases(converted: Converted) -> Converted:
    """Their mask transformer has no bias where queries, keys and values are made; ours is 0 there."""
    for name in [name for name in converted if name.endswith(".attention.qkv.weight")]:
        theirs, weight = converted[name]
        converted.setdefault(name.replace("weight", "bias"), (theirs, weight.new_zeros(len(weight))))
    return converted


RELEASE_UNUSED = (r"encoder\.head\.", r"encoder\.head_dist\.", r"encoder\.pre_logits\.")
"""The classifiers of ImageNet, which the release keeps."""

LAYOUTS = (
    Layout(
        "Segmenter with a mask transformer, the paper's release",
        signature=(r"encoder\.patch_embed\.proj\.", r"decoder\.cls_emb$", r"decoder\.proj_patch$"),
        rules=(
            *timm_rules(r"encoder\."),
            (r"decoder\.cls_emb", "decoder.class_embeddings"),
            (r"decoder\.proj_dec\.", "decoder.embed."),
            *timm_blocks(r"decoder\.blocks\.(\d+)", "decoder.blocks.{0}"),
            (r"decoder\.decoder_norm\.", "decoder.norm."),
            (r"decoder\.proj_patch", "decoder.project_patches.weight"),
            (r"decoder\.proj_classes", "decoder.project_classes.weight"),
        ),
        unused=RELEASE_UNUSED,
        options=_mask_options,
        rearrange=_transposed,
    ),
    Layout(
        "Segmenter with a linear decoder, the paper's release",
        signature=(r"encoder\.patch_embed\.proj\.", r"encoder\.blocks\.0\.attn\.qkv\.", r"decoder\.head\.weight$"),
        absent=(r"decoder\.cls_emb$",),
        rules=(*timm_rules(r"encoder\."), (r"decoder\.head\.", "decoder.classifier.")),
        unused=RELEASE_UNUSED,
        options=release_options,
        rearrange=_as_convolution,
    ),
    Layout(
        "Segmenter with a linear decoder, PaddleSeg",
        signature=(r"backbone\.patch_embed\.proj\.", r"backbone\.blocks\.0\.attn\.qkv\.", r"head\.head\.weight$"),
        rules=(*timm_rules(r"backbone\."), (r"head\.head\.", "decoder.classifier.")),
        options=_paddleseg_options,
        rearrange=_as_convolution,
    ),
    Layout(
        "Segmenter with a mask transformer, PaddleSeg",
        signature=(r"backbone\.patch_embed\.proj\.", r"head\.cls_token$", r"head\.proj_class\."),
        rules=(
            *timm_rules(r"backbone\."),
            (r"head\.cls_token", "decoder.class_embeddings"),
            (r"head\.proj_input\.", "decoder.embed."),
            *timm_blocks(r"head\.blocks\.(\d+)", "decoder.blocks.{0}"),
            (r"head\.decoder_norm\.", "decoder.norm."),
            (r"head\.proj_patch\.", "decoder.project_patches."),
            (r"head\.proj_class\.", "decoder.project_classes."),
            (r"head\.mask_norm\.", "decoder.mask_norm."),
        ),
        options=_paddleseg_mask_options,
        rearrange=_with_biases,
    ),
    Layout(
        "Segmenter with a mask transformer, mmsegmentation",
        signature=(r"backbone\.layers\.0\.ln1\.", r"decode_head\.cls_emb$", r"decode_head\.patch_proj\."),
        rules=(
            *mmsegmentation_rules(r"backbone\."),
            (r"decode_head\.cls_emb", "decoder.class_embeddings"),
            (r"decode_head\.dec_proj\.", "decoder.embed."),
            *mmsegmentation_blocks(r"decode_head\.layers\.(\d+)", "decoder.blocks.{0}"),
            (r"decode_head\.decoder_norm\.", "decoder.norm."),
            (r"decode_head\.patch_proj\.", "decoder.project_patches."),
            (r"decode_head\.classes_proj\.", "decoder.project_classes."),
            (r"decode_head\.mask_norm\.", "decoder.mask_norm."),
        ),
        unused=(r"decode_head\.conv_seg\.",),
        options=_mmsegmentation_mask_options,
    ),
    Layout(
        "Segmenter with a linear decoder, mmsegmentation",
        signature=(r"backbone\.layers\.0\.ln1\.", r"backbone\.ln1\.", r"decode_head\.conv_seg\."),
        absent=(r"decode_head\.(?!conv_seg\.)", r"auxiliary_head\.", r"neck\."),
        rules=(*mmsegmentation_rules(r"backbone\."), (r"decode_head\.conv_seg\.", "decoder.classifier.")),
        options=_mmsegmentation_options,
    ),
)
