"""DeepLab's names in torchvision, in VainF's release, in mmsegmentation, and of the cascade."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout
from pixelwise.weights.resnet import deep_stem_rules, resnet_rules, stage_rules


def _aspp_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    rules = []
    for j, kind in enumerate(("convolution", "norm")):
        rules += [
            (rf"{prefix}convs\.4\.{j + 1}\.", f"decoder.aspp.pooled.{kind}."),
            (rf"{prefix}convs\.([0-3])\.{j}\.", f"decoder.aspp.branches.{{0}}.{kind}."),
            (rf"{prefix}project\.{j}\.", f"decoder.aspp.project.{kind}."),
        ]
    return tuple(rules)


def _torchvision(state: Mapping[str, Tensor]) -> dict[str, object]:
    auxiliary = any(name.startswith("aux_classifier.") for name in state)
    return {"stem": "7x7", "dilation": "late", "output_stride": 8, "release": "paper", "auxiliary": auxiliary}


def _vainf(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"stem": "7x7", "dilation": "late", "release": "paper", "auxiliary": False}


def _vainf_plus(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"stem": "7x7", "dilation": "late", "refinements": 1}


def _mmsegmentation(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {
        "stem": "deep-32",
        "dilation": "late",
        "output_stride": 8,
        "release": "mmsegmentation",
        "decoder_channels": len(state["decode_head.bottleneck.conv.weight"]),
        "auxiliary": any(name.startswith("auxiliary_head.") for name in state),
    }


def _cascade(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"stem": "7x7", "multi_grid": [1, 2, 1]}


LAYOUTS = (
    Layout(
        "DeepLabV3, torchvision",
        signature=(r"backbone\.conv1\.", r"classifier\.0\.convs\."),
        rules=(
            *resnet_rules(r"backbone\."),
            *_aspp_rules(r"classifier\.0\."),
            (r"classifier\.1\.", "decoder.mix.convolution."),
            (r"classifier\.2\.", "decoder.mix.norm."),
            (r"classifier\.4\.", "decoder.classifier."),
            (r"aux_classifier\.0\.", "decoder.auxiliary.mix.convolution."),
            (r"aux_classifier\.1\.", "decoder.auxiliary.mix.norm."),
            (r"aux_classifier\.4\.", "decoder.auxiliary.classifier."),
        ),
        options=_torchvision,
    ),
    Layout(
        "DeepLabV3, VainF",
        signature=(r"backbone\.conv1\.", r"classifier\.classifier\.0\.convs\."),
        rules=(
            *resnet_rules(r"backbone\."),
            *_aspp_rules(r"classifier\.classifier\.0\."),
            (r"classifier\.classifier\.1\.", "decoder.mix.convolution."),
            (r"classifier\.classifier\.2\.", "decoder.mix.norm."),
            (r"classifier\.classifier\.4\.", "decoder.classifier."),
        ),
        options=_vainf,
    ),
    Layout(
        "DeepLabV3+, VainF",
        signature=(r"backbone\.conv1\.", r"classifier\.aspp\.convs\."),
        rules=(
            *resnet_rules(r"backbone\."),
            *_aspp_rules(r"classifier\.aspp\."),
            (r"classifier\.project\.0\.", "decoder.project.convolution."),
            (r"classifier\.project\.1\.", "decoder.project.norm."),
            (r"classifier\.classifier\.0\.", "decoder.refine.0.convolution."),
            (r"classifier\.classifier\.1\.", "decoder.refine.0.norm."),
            (r"classifier\.classifier\.3\.", "decoder.classifier."),
        ),
        options=_vainf_plus,
    ),
    Layout(
        "DeepLabV3, mmsegmentation",
        signature=(r"backbone\.stem\.0\.", r"decode_head\.aspp_modules\.0\.conv\.", r"decode_head\.bottleneck\.conv\."),
        absent=(r"decode_head\.c1_bottleneck\.",),
        rules=(
            *deep_stem_rules(r"backbone\.stem\."),
            *stage_rules(r"backbone\."),
            (r"decode_head\.image_pool\.1\.conv\.", "decoder.aspp.pooled.convolution."),
            (r"decode_head\.image_pool\.1\.bn\.", "decoder.aspp.pooled.norm."),
            (r"decode_head\.aspp_modules\.(\d)\.conv\.", "decoder.aspp.branches.{0}.convolution."),
            (r"decode_head\.aspp_modules\.(\d)\.bn\.", "decoder.aspp.branches.{0}.norm."),
            (r"decode_head\.bottleneck\.conv\.", "decoder.aspp.project.convolution."),
            (r"decode_head\.bottleneck\.bn\.", "decoder.aspp.project.norm."),
            (r"decode_head\.conv_seg\.", "decoder.classifier."),
            (r"auxiliary_head\.convs\.0\.conv\.", "decoder.auxiliary.mix.convolution."),
            (r"auxiliary_head\.convs\.0\.bn\.", "decoder.auxiliary.mix.norm."),
            (r"auxiliary_head\.conv_seg\.", "decoder.auxiliary.classifier."),
        ),
        options=_mmsegmentation,
    ),
    Layout(
        "DeepLabV3 in cascade",
        signature=(r"conv1\.weight$", r"layer7\.0\.conv1\."),
        rules=(
            *resnet_rules(""),
            *(
                (rf"layer{i}\.(\d)\.{name}{k + 1}\.", f"decoder.blocks.{i - 5}.{{0}}.layers.{k}.{kind}.")
                for i in (5, 6, 7)
                for k in range(3)
                for name, kind in (("conv", "convolution"), ("bn", "norm"))
            ),
            (r"classifier\.", "decoder.classifier."),
        ),
        options=_cascade,
    ),
)
