"""SegFormer's names in its own release, in transformers and in mmsegmentation, with their ImageNet encoders."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pixelwise.weights.layout import Converted, Layout


def _paper_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"release": "paper"}


def _transformers_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"release": "transformers"}


def _mmsegmentation_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"release": "mmsegmentation"}


def _merge_keys_and_values(converted: Converted) -> Converted:
    for key in [name for name in converted if re.search(r"\.attention\.k\.(weight|bias)$", name)]:
        value = key.replace(".attention.k.", ".attention.v.")
        if value in converted:
            (theirs, key_tensor), (_, value_tensor) = converted.pop(key), converted.pop(value)
            merged = torch.cat([key_tensor, value_tensor])
            converted[key.replace(".attention.k.", ".attention.key_value.")] = (theirs, merged)
    return converted


def _unpack_mmsegmentation(converted: Converted) -> Converted:
    unpacked: Converted = {}
    for ours, (theirs, tensor) in converted.items():
        packed = re.match(r"(.*\.attention)\.packed_(weight|bias)$", ours)
        if packed:
            attention, kind = packed.groups()
            channels = len(tensor) // 3
            unpacked[f"{attention}.query.{kind}"] = (theirs, tensor[:channels])
            unpacked[f"{attention}.key_value.{kind}"] = (theirs, tensor[channels:])
        elif re.search(r"feed_forward\.(expand|project)\.weight$", ours) and tensor.ndim == 4:
            unpacked[ours] = (theirs, tensor.flatten(1))
        elif ours == "decoder.fuse.weight":
            # They concatenate the finest map first, the paper the coarsest.
            unpacked[ours] = (theirs, tensor.unflatten(1, (4, -1)).flip(1).flatten(1, 2))
        else:
            unpacked[ours] = (theirs, tensor)
    return unpacked


def _paper_rules() -> tuple[tuple[str, str], ...]:
    # They count stages and patch embeddings from 1, blocks from 0.
    rules = []
    for i in range(4):
        block, ours = rf"(?:backbone\.)?block{i + 1}\.(\d+)", f"encoder.stages.{i}.{{0}}"
        rules += [
            (rf"(?:backbone\.)?patch_embed{i + 1}\.proj\.", f"encoder.embeddings.{i}.projection."),
            (rf"(?:backbone\.)?patch_embed{i + 1}\.norm\.", f"encoder.embeddings.{i}.norm."),
            (rf"{block}\.norm1\.", f"{ours}.norm1."),
            (rf"{block}\.norm2\.", f"{ours}.norm2."),
            (rf"{block}\.attn\.q\.", f"{ours}.attention.query."),
            (rf"{block}\.attn\.kv\.", f"{ours}.attention.key_value."),
            (rf"{block}\.attn\.proj\.", f"{ours}.attention.out."),
            (rf"{block}\.attn\.sr\.", f"{ours}.attention.reduce."),
            (rf"{block}\.attn\.norm\.", f"{ours}.attention.norm."),
            (rf"{block}\.mlp\.fc1\.", f"{ours}.feed_forward.expand."),
            (rf"{block}\.mlp\.dwconv\.dwconv\.", f"{ours}.feed_forward.depthwise."),
            (rf"{block}\.mlp\.fc2\.", f"{ours}.feed_forward.project."),
            (rf"(?:backbone\.)?norm{i + 1}\.", f"encoder.norms.{i}."),
            (rf"decode_head\.linear_c{i + 1}\.proj\.", f"decoder.projections.{i}."),
        ]
    return (
        *rules,
        (r"decode_head\.linear_fuse\.conv\.", "decoder.fuse."),
        (r"decode_head\.linear_fuse\.bn\.", "decoder.norm."),
        (r"decode_head\.linear_pred\.", "decoder.classifier."),
    )


PAPER = Layout(
    "SegFormer, the paper's release",
    signature=(r"(backbone\.)?patch_embed1\.proj\.", r"(backbone\.)?block1\.0\.attn\.kv\."),
    rules=_paper_rules(),
    # The release carries a classifier that it never calls; ImageNet checkpoints carry theirs.
    unused=(r"decode_head\.conv_seg\.", r"head\."),
    options=_paper_options,
)

PADDLESEG = Layout(
    "SegFormer, PaddleSeg",
    signature=(r"backbone\.patch_embed1\.proj\.", r"linear_c1\.proj\.", r"linear_pred\."),
    rules=(
        *_paper_rules(),
        *((rf"linear_c{i + 1}\.proj\.", f"decoder.projections.{i}.") for i in range(4)),
        (r"linear_fuse\._conv\.", "decoder.fuse."),
        (r"linear_fuse\._batch_norm\.", "decoder.norm."),
        (r"linear_pred\.", "decoder.classifier."),
    ),
    unused=(r"backbone\.head\.",),
    options=_paper_options,
)

TRANSFORMERS = Layout(
    "SegFormer, transformers",
    signature=(r"(segformer\.)?(stages\.0\.patch_embeddings|encoder\.patch_embeddings\.0)\.proj\.",),
    rules=(
        # 5.x
        (r"(?:segformer\.)?stages\.(\d)\.patch_embeddings\.proj\.", "encoder.embeddings.{0}.projection."),
        (r"(?:segformer\.)?stages\.(\d)\.patch_embeddings\.layer_norm\.", "encoder.embeddings.{0}.norm."),
        (r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.layernorm_before\.", "encoder.stages.{0}.{1}.norm1."),
        (r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.layernorm_after\.", "encoder.stages.{0}.{1}.norm2."),
        (
            r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.attention\.q_proj\.",
            "encoder.stages.{0}.{1}.attention.query.",
        ),
        (
            r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.attention\.([kv])_proj\.",
            "encoder.stages.{0}.{1}.attention.{2}.",
        ),
        (r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.attention\.o_proj\.", "encoder.stages.{0}.{1}.attention.out."),
        (
            r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.attention\.sequence_reduction\.sequence_reduction\.",
            "encoder.stages.{0}.{1}.attention.reduce.",
        ),
        (
            r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.attention\.sequence_reduction\.layer_norm\.",
            "encoder.stages.{0}.{1}.attention.norm.",
        ),
        (r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.mlp\.fc1\.", "encoder.stages.{0}.{1}.feed_forward.expand."),
        (
            r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.mlp\.dwconv\.dwconv\.",
            "encoder.stages.{0}.{1}.feed_forward.depthwise.",
        ),
        (r"(?:segformer\.)?stages\.(\d)\.blocks\.(\d+)\.mlp\.fc2\.", "encoder.stages.{0}.{1}.feed_forward.project."),
        (r"(?:segformer\.)?stages\.(\d)\.layer_norm\.", "encoder.norms.{0}."),
        # 4.x
        (r"(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.proj\.", "encoder.embeddings.{0}.projection."),
        (r"(?:segformer\.)?encoder\.patch_embeddings\.(\d)\.layer_norm\.", "encoder.embeddings.{0}.norm."),
        (r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.layer_norm_([12])\.", "encoder.stages.{0}.{1}.norm{2}."),
        (
            r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.attention\.self\.query\.",
            "encoder.stages.{0}.{1}.attention.query.",
        ),
        (
            r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.attention\.self\.(key|value)\.",
            "encoder.stages.{0}.{1}.attention.{2[0]}.",
        ),
        (
            r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.attention\.output\.dense\.",
            "encoder.stages.{0}.{1}.attention.out.",
        ),
        (
            r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.attention\.self\.sr\.",
            "encoder.stages.{0}.{1}.attention.reduce.",
        ),
        (
            r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.attention\.self\.layer_norm\.",
            "encoder.stages.{0}.{1}.attention.norm.",
        ),
        (r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.mlp\.dense1\.", "encoder.stages.{0}.{1}.feed_forward.expand."),
        (
            r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.",
            "encoder.stages.{0}.{1}.feed_forward.depthwise.",
        ),
        (r"(?:segformer\.)?encoder\.block\.(\d)\.(\d+)\.mlp\.dense2\.", "encoder.stages.{0}.{1}.feed_forward.project."),
        (r"(?:segformer\.)?encoder\.layer_norm\.(\d)\.", "encoder.norms.{0}."),
        # both
        (r"decode_head\.(?:linear_projections|linear_c)\.(\d)\.proj\.", "decoder.projections.{0}."),
        (r"decode_head\.linear_fuse\.", "decoder.fuse."),
        (r"decode_head\.batch_norm\.", "decoder.norm."),
        (r"decode_head\.classifier\.", "decoder.classifier."),
    ),
    unused=(r"classifier\.",),  # of image classification
    options=_transformers_options,
    rearrange=_merge_keys_and_values,
)

MMSEGMENTATION = Layout(
    "SegFormer, mmsegmentation",
    signature=(r"(backbone\.)?layers\.0\.0\.projection\.",),
    rules=(
        (r"(?:backbone\.)?layers\.(\d)\.0\.projection\.", "encoder.embeddings.{0}.projection."),
        (r"(?:backbone\.)?layers\.(\d)\.0\.norm\.", "encoder.embeddings.{0}.norm."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.norm([12])\.", "encoder.stages.{0}.{1}.norm{2}."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.attn\.attn\.in_proj_", "encoder.stages.{0}.{1}.attention.packed_"),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.attn\.attn\.out_proj\.", "encoder.stages.{0}.{1}.attention.out."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.attn\.sr\.", "encoder.stages.{0}.{1}.attention.reduce."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.attn\.norm\.", "encoder.stages.{0}.{1}.attention.norm."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0\.", "encoder.stages.{0}.{1}.feed_forward.expand."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1\.", "encoder.stages.{0}.{1}.feed_forward.depthwise."),
        (r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4\.", "encoder.stages.{0}.{1}.feed_forward.project."),
        (r"(?:backbone\.)?layers\.(\d)\.2\.", "encoder.norms.{0}."),
        (r"decode_head\.convs\.(\d)\.conv\.", "decoder.projections.{0}.0."),
        (r"decode_head\.convs\.(\d)\.bn\.", "decoder.projections.{0}.1."),
        (r"decode_head\.fusion_conv\.conv\.", "decoder.fuse."),
        (r"decode_head\.fusion_conv\.bn\.", "decoder.norm."),
        (r"decode_head\.conv_seg\.", "decoder.classifier."),
    ),
    options=_mmsegmentation_options,
    rearrange=_unpack_mmsegmentation,
)

LAYOUTS = (PADDLESEG, PAPER, TRANSFORMERS, MMSEGMENTATION)
