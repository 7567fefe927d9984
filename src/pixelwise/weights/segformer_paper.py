"""The names of SegFormer's own release, and of its ImageNet encoders."""

import re

from torch import Tensor

LAYOUT = "SegFormer, the paper's release"
RELEASE = "paper"

RULES = (
    (r"patch_embed(\d)\.proj\.", r"encoder.embeddings.{0}.projection."),
    (r"patch_embed(\d)\.norm\.", r"encoder.embeddings.{0}.norm."),
    (r"block(\d)\.(\d+)\.norm([12])\.", r"encoder.stages.{0}.{1}.norm{2}."),
    (r"block(\d)\.(\d+)\.attn\.q\.", r"encoder.stages.{0}.{1}.attention.query."),
    (r"block(\d)\.(\d+)\.attn\.kv\.", r"encoder.stages.{0}.{1}.attention.key_value."),
    (r"block(\d)\.(\d+)\.attn\.proj\.", r"encoder.stages.{0}.{1}.attention.out."),
    (r"block(\d)\.(\d+)\.attn\.sr\.", r"encoder.stages.{0}.{1}.attention.reduce."),
    (r"block(\d)\.(\d+)\.attn\.norm\.", r"encoder.stages.{0}.{1}.attention.norm."),
    (r"block(\d)\.(\d+)\.mlp\.fc1\.", r"encoder.stages.{0}.{1}.feed_forward.expand."),
    (r"block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.", r"encoder.stages.{0}.{1}.feed_forward.depthwise."),
    (r"block(\d)\.(\d+)\.mlp\.fc2\.", r"encoder.stages.{0}.{1}.feed_forward.project."),
    (r"norm(\d)\.", r"encoder.norms.{0}."),
)
HEAD_RULES = (
    (r"decode_head\.linear_c(\d)\.proj\.", r"decoder.projections.{0}."),
    (r"decode_head\.linear_fuse\.conv\.", r"decoder.fuse."),
    (r"decode_head\.linear_fuse\.bn\.", r"decoder.norm."),
    (r"decode_head\.linear_pred\.", r"decoder.classifier."),
)
UNUSED = ("decode_head.conv_seg.", "head.")
"""The release carries a classifier that it never calls; ImageNet checkpoints carry theirs."""


def recognises(names: set[str]) -> bool:
    """True if the names are this layout's."""
    return any(re.match(r"(backbone\.)?patch_embed1\.proj\.", name) for name in names)


def convert(state: dict[str, Tensor]) -> tuple[dict[str, tuple[str, Tensor]], tuple[str, ...]]:
    """Return our name -> (their name, tensor), and their names that are left out on purpose."""
    converted, unused = {}, []
    for name, tensor in state.items():
        if name.startswith(UNUSED):
            unused.append(name)
            continue
        converted[_ours(name)] = (name, tensor)
    return converted, tuple(unused)


def _ours(name: str) -> str:
    for pattern, ours in RULES:
        found = re.match(r"(?:backbone\.)?" + pattern, name)
        if found:
            # They count stages and patch embeddings from 1, blocks from 0.
            first, *others = found.groups()
            return ours.format(int(first) - 1, *others) + name[found.end() :]
    for pattern, ours in HEAD_RULES:
        found = re.match(pattern, name)
        if found:
            return ours.format(*(int(group) - 1 for group in found.groups())) + name[found.end() :]
    return name
