"""HarDNet's names in its authors' releases: FC-HarDNet, and the encoders trained on ImageNet."""

import re
from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Converted, Layout


def _fc_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"align_corners": True}


def _named_parts(converted: Converted) -> Converted:
    """Replace the running number of each part by what it is.

    The release numbers stem, blocks, 1x1 convolutions and pooling in one row, so the numbers depend on the variant and
    only their order is told here.
    """
    kinds: dict[int, str] = {}
    for name, (theirs, _) in converted.items():
        found = re.match(r"base\.(\d+)\.(layers\.)?", name)
        if found:
            number = int(found[1])
            kind = "block" if found[2] else "halving" if ".dwconv." in theirs else kinds.get(number, "convolution")
            kinds[number] = kind
    parts: dict[int, str] = {}
    stem, blocks = 0, 0
    for number in sorted(kinds):
        if kinds[number] == "block":
            parts[number] = f"encoder.blocks.{blocks}."
            blocks += 1
        elif kinds[number] == "halving":
            parts[number] = f"encoder.halvings.{blocks}."
        elif blocks:
            parts[number] = f"encoder.transitions.{blocks - 1}."
        else:
            parts[number] = f"encoder.stem.{stem}."
            stem += 1
    return {
        re.sub(r"^base\.(\d+)\.", lambda found: parts[int(found[1])], name): pair for name, pair in converted.items()
    }


def _paddleseg_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"encoder": "fchardnet-70-paddleseg", "finest": 2, "align_corners": False}


def _paddleseg_parts(converted: Converted) -> Converted:
    """Replace the running number of each part of the encoder: block, 1x1 convolution and pooling in turn."""

    def part(found: re.Match) -> str:
        number = int(found[1])
        return f"encoder.{('blocks', 'transitions')[number % 3]}.{number // 3}."

    return {re.sub(r"^parts\.(\d+)\.", part, name): pair for name, pair in converted.items()}


_BRICK = (("_conv", "convolution"), ("_batch_norm", "norm"))


def _paddleseg_rules() -> tuple[tuple[str, str], ...]:
    rules = [(r"cls_head\.", "decoder.classifier.")]
    for theirs, ours in _BRICK:
        rules += [
            (rf"stem\.(\d)\.{theirs}\.", f"encoder.stem.{{0}}.{ours}."),
            (rf"encoder\.blks\.(\d+)\.layers\.(\d+)\.{theirs}\.", f"parts.{{0}}.layers.{{1}}.{ours}."),
            (rf"encoder\.blks\.(\d+)\.{theirs}\.", f"parts.{{0}}.{ours}."),
            (rf"decoder\.conv1x1_up\.(\d+)\.{theirs}\.", f"decoder.joins.{{0}}.mix.{ours}."),
            (
                rf"decoder\.dense_blocks_up\.(\d+)\.layers\.(\d+)\.{theirs}\.",
                f"decoder.blocks.{{0}}.layers.{{1}}.{ours}.",
            ),
        ]
    return tuple(rules)


BASE_RULES = (
    (r"base\.(\d+)\.(?:dw)?conv\.", "base.{0}.convolution."),
    (r"base\.(\d+)\.layers\.(\d+)\.conv\.", "base.{0}.layers.{1}.convolution."),
    (r"base\.(\d+)\.layers\.(\d+)\.layer1\.conv\.", "base.{0}.layers.{1}.0.convolution."),
    (r"base\.(\d+)\.layers\.(\d+)\.layer1\.norm\.", "base.{0}.layers.{1}.0.norm."),
    (r"base\.(\d+)\.layers\.(\d+)\.layer2\.dwconv\.", "base.{0}.layers.{1}.1.convolution."),
    (r"base\.(\d+)\.layers\.(\d+)\.layer2\.norm\.", "base.{0}.layers.{1}.1.norm."),
)

LAYOUTS = (
    Layout(
        "FC-HarDNet",
        signature=(r"base\.\d+\.layers\.0\.conv\.", r"conv1x1_up\.0\.conv\.", r"denseBlocksUp\.0\.layers\.0\.conv\."),
        rules=(
            *BASE_RULES,
            (r"denseBlocksUp\.(\d+)\.layers\.(\d+)\.conv\.", "decoder.blocks.{0}.layers.{1}.convolution."),
            (r"denseBlocksUp\.(\d+)\.", "decoder.blocks.{0}."),
            (r"conv1x1_up\.(\d+)\.conv\.", "decoder.joins.{0}.mix.convolution."),
            (r"conv1x1_up\.(\d+)\.", "decoder.joins.{0}.mix."),
            (r"finalConv\.", "decoder.classifier."),
        ),
        options=_fc_options,
        rearrange=_named_parts,
    ),
    Layout(
        "FC-HarDNet, PaddleSeg",
        signature=(r"encoder\.blks\.0\.layers\.0\._conv\.", r"decoder\.conv1x1_up\.0\._conv\.", r"cls_head\."),
        rules=_paddleseg_rules(),
        options=_paddleseg_options,
        rearrange=_paddleseg_parts,
    ),
    Layout(
        "HarDNet, ImageNet",
        signature=(r"base\.0\.conv\.", r"base\.\d+\.layers\.0\.(conv|layer1)\."),
        absent=(r"conv1x1_up\.",),
        rules=BASE_RULES,
        unused=(r"base\.\d+\.\d+\.",),  # of image classification
        rearrange=_named_parts,
    ),
)
