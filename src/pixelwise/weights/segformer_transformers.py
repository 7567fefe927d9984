"""The names that transformers gives SegFormer: those of 5.x, and those of the hub, which 4.x wrote."""

import re

import torch
from torch import Tensor

LAYOUT = "SegFormer, transformers"
RELEASE = "transformers"

RULES = (
    # 5.x
    (r"stages\.(\d)\.patch_embeddings\.proj\.", "encoder.embeddings.{0}.projection."),
    (r"stages\.(\d)\.patch_embeddings\.layer_norm\.", "encoder.embeddings.{0}.norm."),
    (r"stages\.(\d)\.blocks\.(\d+)\.layernorm_before\.", "encoder.stages.{0}.{1}.norm1."),
    (r"stages\.(\d)\.blocks\.(\d+)\.layernorm_after\.", "encoder.stages.{0}.{1}.norm2."),
    (r"stages\.(\d)\.blocks\.(\d+)\.attention\.([qkv])_proj\.", "encoder.stages.{0}.{1}.attention.{2}."),
    (r"stages\.(\d)\.blocks\.(\d+)\.attention\.o_proj\.", "encoder.stages.{0}.{1}.attention.out."),
    (
        r"stages\.(\d)\.blocks\.(\d+)\.attention\.sequence_reduction\.sequence_reduction\.",
        "encoder.stages.{0}.{1}.attention.reduce.",
    ),
    (
        r"stages\.(\d)\.blocks\.(\d+)\.attention\.sequence_reduction\.layer_norm\.",
        "encoder.stages.{0}.{1}.attention.norm.",
    ),
    (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.fc1\.", "encoder.stages.{0}.{1}.feed_forward.expand."),
    (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.dwconv\.dwconv\.", "encoder.stages.{0}.{1}.feed_forward.depthwise."),
    (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.fc2\.", "encoder.stages.{0}.{1}.feed_forward.project."),
    (r"stages\.(\d)\.layer_norm\.", "encoder.norms.{0}."),
    # 4.x
    (r"encoder\.patch_embeddings\.(\d)\.proj\.", "encoder.embeddings.{0}.projection."),
    (r"encoder\.patch_embeddings\.(\d)\.layer_norm\.", "encoder.embeddings.{0}.norm."),
    (r"encoder\.block\.(\d)\.(\d+)\.layer_norm_([12])\.", "encoder.stages.{0}.{1}.norm{2}."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.(query|key|value)\.", "encoder.stages.{0}.{1}.attention.{2[0]}."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.output\.dense\.", "encoder.stages.{0}.{1}.attention.out."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.sr\.", "encoder.stages.{0}.{1}.attention.reduce."),
    (r"encoder\.block\.(\d)\.(\d+)\.attention\.self\.layer_norm\.", "encoder.stages.{0}.{1}.attention.norm."),
    (r"encoder\.block\.(\d)\.(\d+)\.mlp\.dense1\.", "encoder.stages.{0}.{1}.feed_forward.expand."),
    (r"encoder\.block\.(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.", "encoder.stages.{0}.{1}.feed_forward.depthwise."),
    (r"encoder\.block\.(\d)\.(\d+)\.mlp\.dense2\.", "encoder.stages.{0}.{1}.feed_forward.project."),
    (r"encoder\.layer_norm\.(\d)\.", "encoder.norms.{0}."),
    # both
    (r"decode_head\.(?:linear_projections|linear_c)\.(\d)\.proj\.", "decoder.projections.{0}."),
    (r"decode_head\.linear_fuse\.", "decoder.fuse."),
    (r"decode_head\.batch_norm\.", "decoder.norm."),
    (r"decode_head\.classifier\.", "decoder.classifier."),
)
UNUSED = ("classifier.",)
"""Of image classification."""


def recognises(names: set[str]) -> bool:
    """True if the names are this layout's."""
    pattern = r"(segformer\.)?(stages\.0\.patch_embeddings|encoder\.patch_embeddings\.0)\.proj\."
    return any(re.match(pattern, name) for name in names)


def convert(state: dict[str, Tensor]) -> tuple[dict[str, tuple[str, Tensor]], tuple[str, ...]]:
    """Return our name -> (their name, tensor), and their names that are left out on purpose."""
    converted, unused = {}, []
    for name, tensor in state.items():
        if name.startswith(UNUSED):
            unused.append(name)
        else:
            converted[_ours(name)] = (name, tensor)
    for ours in [name for name in converted if re.search(r"\.attention\.k\.(weight|bias)$", name)]:
        value = ours.replace(".attention.k.", ".attention.v.")
        if value in converted:
            (name, key), (_, value_tensor) = converted.pop(ours), converted.pop(value)
            converted[ours.replace(".attention.k.", ".attention.key_value.")] = (name, torch.cat([key, value_tensor]))
    return converted, tuple(unused)


def _ours(name: str) -> str:
    for pattern, ours in RULES:
        found = re.match(r"(?:segformer\.)?" + pattern, name)
        if found:
            return ours.format(*found.groups()).replace(".attention.q.", ".attention.query.") + name[found.end() :]
    return name
