"""SETR's names in its own release, for each of its three decoders."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout
from pixelwise.weights.vit import timm_rules, variant_options, vit_options

UNUSED = (r"decode_head\.conv_seg\.", r"auxiliary_head\.\d\.conv_seg\.", r"backbone\.head\.")
"""Classifiers that every head owns by inheritance and never calls."""


def _encoder_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    encoder = {**vit_options(state, "backbone."), **variant_options(state, "backbone.", "blocks")}
    return {**encoder, "epsilon": 1e-6, "position_resize": "bilinear", "final_norm": False}


def _upsampling_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    options = {**_encoder_options(state), "taps": "late", "class_token": "kept"}
    options["kernel"] = state["decode_head.conv_0.weight"].shape[-1]
    options["decoder_channels"] = state["decode_head.conv_0.weight"].shape[0]
    if "auxiliary_head.0.conv_0.weight" in state:
        options["aux_kernel"] = state["auxiliary_head.0.conv_0.weight"].shape[-1]
    return options


def _aggregation_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    widths = {
        "decoder_channels": state["backbone.mla.mla_p2.0.weight"].shape[0],
        "stream_channels": state["decode_head.mlahead.head2.0.weight"].shape[0],
    }
    return {**_encoder_options(state), "taps": "even", "class_token": "dropped", **widths}


def _upsampling_rules(convolutions: int) -> tuple[tuple[str, str], ...]:
    """Return the rules of a head with so many convolutions before the classifier, and of its auxiliary heads."""
    rules = [(rf"decode_head\.conv_{convolutions}\.", "decoder.classifier."), (r"decode_head\.norm\.", "decoder.norm.")]
    for i in range(convolutions):
        rules.append((rf"decode_head\.conv_{i}\.", f"decoder.layers.{i}.convolution."))
        rules.append((rf"decode_head\.syncbn_fc_{i}\.", f"decoder.layers.{i}.norm."))
    return (
        *rules,
        (r"auxiliary_head\.(\d)\.norm\.", "decoder.auxiliary.{0}.norm."),
        (r"auxiliary_head\.(\d)\.conv_0\.", "decoder.auxiliary.{0}.layers.0.convolution."),
        (r"auxiliary_head\.(\d)\.syncbn_fc_0\.", "decoder.auxiliary.{0}.layers.0.norm."),
        (r"auxiliary_head\.(\d)\.conv_1\.", "decoder.auxiliary.{0}.classifier."),
    )


def _aggregation_rules() -> tuple[tuple[str, str], ...]:
    # They count the levels from 2 to 5.
    rules = [(r"decode_head\.cls\.", "decoder.classifier.")]
    for i in range(4):
        level, stream = i + 2, rf"decode_head\.mlahead\.head{i + 2}"
        rules += [
            (rf"backbone\.norm_{i}\.", f"decoder.norms.{i}."),
            (rf"backbone\.mla\.mla_p{level}_1x1\.0\.", f"decoder.projections.{i}.convolution."),
            (rf"backbone\.mla\.mla_p{level}_1x1\.1\.", f"decoder.projections.{i}.norm."),
            (rf"backbone\.mla\.mla_p{level}\.0\.", f"decoder.smoothings.{i}.convolution."),
            (rf"backbone\.mla\.mla_p{level}\.1\.", f"decoder.smoothings.{i}.norm."),
            (rf"{stream}\.0\.", f"decoder.streams.{i}.0.convolution."),
            (rf"{stream}\.1\.", f"decoder.streams.{i}.0.norm."),
            (rf"{stream}\.3\.", f"decoder.streams.{i}.1.convolution."),
            (rf"{stream}\.4\.", f"decoder.streams.{i}.1.norm."),
            (rf"auxiliary_head\.{i}\.aux\.", f"decoder.auxiliary.{i}."),
        ]
    return tuple(rules)


_ENCODER = (r"backbone\.patch_embed\.proj\.", r"backbone\.blocks\.0\.attn\.qkv\.")

LAYOUTS = (
    Layout(
        "SETR-Naive, the paper's release",
        signature=(*_ENCODER, r"decode_head\.conv_1\.", r"decode_head\.syncbn_fc_0\."),
        absent=(r"decode_head\.conv_2\.",),
        rules=(*timm_rules(r"backbone\."), *_upsampling_rules(1)),
        unused=UNUSED,
        options=_upsampling_options,
    ),
    Layout(
        "SETR-PUP, the paper's release",
        signature=(*_ENCODER, r"decode_head\.conv_4\.", r"decode_head\.syncbn_fc_3\."),
        rules=(*timm_rules(r"backbone\."), *_upsampling_rules(4)),
        unused=UNUSED,
        options=_upsampling_options,
    ),
    Layout(
        "SETR-MLA, the paper's release",
        signature=(*_ENCODER, r"backbone\.mla\.mla_p2\.", r"decode_head\.mlahead\.head2\."),
        rules=(*timm_rules(r"backbone\."), *_aggregation_rules()),
        unused=UNUSED,
        options=_aggregation_options,
    ),
)
