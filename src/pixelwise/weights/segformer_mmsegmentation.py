"""The names that mmsegmentation 1.x gives SegFormer, and its ImageNet encoders (mit_b0.pth and so on)."""

import re

from torch import Tensor

LAYOUT = "SegFormer, mmsegmentation"
RELEASE = "mmsegmentation"

RULES = (
    (r"layers\.(\d)\.0\.projection\.", "encoder.embeddings.{0}.projection."),
    (r"layers\.(\d)\.0\.norm\.", "encoder.embeddings.{0}.norm."),
    (r"layers\.(\d)\.1\.(\d+)\.norm([12])\.", "encoder.stages.{0}.{1}.norm{2}."),
    (r"layers\.(\d)\.1\.(\d+)\.attn\.attn\.out_proj\.", "encoder.stages.{0}.{1}.attention.out."),
    (r"layers\.(\d)\.1\.(\d+)\.attn\.sr\.", "encoder.stages.{0}.{1}.attention.reduce."),
    (r"layers\.(\d)\.1\.(\d+)\.attn\.norm\.", "encoder.stages.{0}.{1}.attention.norm."),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0\.", "encoder.stages.{0}.{1}.feed_forward.expand."),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1\.", "encoder.stages.{0}.{1}.feed_forward.depthwise."),
    (r"layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4\.", "encoder.stages.{0}.{1}.feed_forward.project."),
    (r"layers\.(\d)\.2\.", "encoder.norms.{0}."),
    (r"decode_head\.convs\.(\d)\.conv\.", "decoder.projections.{0}.0."),
    (r"decode_head\.convs\.(\d)\.bn\.", "decoder.projections.{0}.1."),
    (r"decode_head\.fusion_conv\.conv\.", "decoder.fuse."),
    (r"decode_head\.fusion_conv\.bn\.", "decoder.norm."),
    (r"decode_head\.conv_seg\.", "decoder.classifier."),
)
PACKED = r"(?:backbone\.)?layers\.(\d)\.1\.(\d+)\.attn\.attn\.in_proj_(weight|bias)$"
"""Query, key and value in one tensor."""


def recognises(names: set[str]) -> bool:
    """True if the names are this layout's."""
    return any(re.match(r"(backbone\.)?layers\.0\.0\.projection\.", name) for name in names)


def convert(state: dict[str, Tensor]) -> tuple[dict[str, tuple[str, Tensor]], tuple[str, ...]]:
    """Return our name -> (their name, tensor), and their names that are left out on purpose (none)."""
    converted: dict[str, tuple[str, Tensor]] = {}
    for name, tensor in state.items():
        packed = re.match(PACKED, name)
        if packed:
            stage, block, kind = packed.groups()
            attention = f"encoder.stages.{stage}.{block}.attention"
            channels = len(tensor) // 3
            converted[f"{attention}.query.{kind}"] = (name, tensor[:channels])
            converted[f"{attention}.key_value.{kind}"] = (name, tensor[channels:])
            continue
        ours = _ours(name)
        if re.search(r"feed_forward\.(expand|project)\.weight$", ours) and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        if ours == "decoder.fuse.weight":
            # They concatenate the finest map first, the paper the coarsest.
            tensor = tensor.unflatten(1, (4, -1)).flip(1).flatten(1, 2)
        converted[ours] = (name, tensor)
    return converted, ()


def _ours(name: str) -> str:
    for pattern, ours in RULES:
        found = re.match(r"(?:backbone\.)?" + pattern, name)
        if found:
            return ours.format(*found.groups()) + name[found.end() :]
    return name
