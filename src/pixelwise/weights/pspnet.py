"""PSPNet's names in the authors' PyTorch release and in mmsegmentation."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout
from pixelwise.weights.resnet import deep_stem_rules, stage_rules


def _authors(state: Mapping[str, Tensor]) -> dict[str, object]:
    auxiliary = any(name.startswith("aux.") for name in state)
    return {"stem": "deep-64", "dilation": "whole", "align_corners": True, "auxiliary": auxiliary}


def _mmsegmentation(state: Mapping[str, Tensor]) -> dict[str, object]:
    auxiliary = any(name.startswith("auxiliary_head.") for name in state)
    return {"stem": "deep-32", "dilation": "late", "align_corners": False, "auxiliary": auxiliary}


LAYOUTS = (
    Layout(
        "PSPNet, the authors' release",
        signature=(r"layer0\.0\.", r"ppm\.features\."),
        rules=(
            *deep_stem_rules(r"layer0\."),
            *stage_rules(""),
            (r"ppm\.features\.(\d)\.1\.", "decoder.bins.{0}.convolution."),
            (r"ppm\.features\.(\d)\.2\.", "decoder.bins.{0}.norm."),
            (r"cls\.0\.", "decoder.mix.convolution."),
            (r"cls\.1\.", "decoder.mix.norm."),
            (r"cls\.4\.", "decoder.classifier."),
            (r"aux\.0\.", "decoder.auxiliary.mix.convolution."),
            (r"aux\.1\.", "decoder.auxiliary.mix.norm."),
            (r"aux\.4\.", "decoder.auxiliary.classifier."),
        ),
        options=_authors,
    ),
    Layout(
        "PSPNet, mmsegmentation",
        signature=(r"backbone\.stem\.0\.", r"decode_head\.psp_modules\."),
        rules=(
            *deep_stem_rules(r"backbone\.stem\."),
            *stage_rules(r"backbone\."),
            (r"decode_head\.psp_modules\.(\d)\.1\.conv\.", "decoder.bins.{0}.convolution."),
            (r"decode_head\.psp_modules\.(\d)\.1\.bn\.", "decoder.bins.{0}.norm."),
            (r"decode_head\.bottleneck\.conv\.", "decoder.mix.convolution."),
            (r"decode_head\.bottleneck\.bn\.", "decoder.mix.norm."),
            (r"decode_head\.conv_seg\.", "decoder.classifier."),
            (r"auxiliary_head\.convs\.0\.conv\.", "decoder.auxiliary.mix.convolution."),
            (r"auxiliary_head\.convs\.0\.bn\.", "decoder.auxiliary.mix.norm."),
            (r"auxiliary_head\.conv_seg\.", "decoder.auxiliary.classifier."),
        ),
        options=_mmsegmentation,
    ),
)
