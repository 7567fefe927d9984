"""The names of HRNet with object-contextual representations, in the authors' release, mmsegmentation's and NVIDIA's."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.hrnet import PADDLESEG_BRANCH, encoder_rules, paddleseg, paddleseg_encoder_rules
from pixelwise.weights.layout import Converted, Layout, biases_into_means


def _authors_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    block = rf"{prefix}ocr_distri_head\.object_context_block\."
    rules = [
        (rf"{prefix}conv3x3_ocr\.0\.", "decoder.pixels.convolution."),
        (rf"{prefix}conv3x3_ocr\.1\.(?:0\.)?", "decoder.pixels.norm."),
        (rf"{prefix}aux_head\.0\.", "decoder.regions.0.convolution."),
        (rf"{prefix}aux_head\.1\.(?:0\.)?", "decoder.regions.0.norm."),
        (rf"{prefix}aux_head\.[23]\.", "decoder.regions.1."),
        (rf"{prefix}ocr_distri_head\.conv_bn_dropout\.0\.", "decoder.context.augment.convolution."),
        (rf"{prefix}ocr_distri_head\.conv_bn_dropout\.1\.0\.", "decoder.context.augment.norm."),
        (rf"{prefix}cls_head\.", "decoder.classifier."),
    ]
    for theirs, ours in (("f_pixel", "query"), ("f_object", "key")):
        for i in range(2):
            rules.append((rf"{block}{theirs}\.{2 * i}\.", f"decoder.context.{ours}.{i}.convolution."))
            rules.append((rf"{block}{theirs}\.{2 * i + 1}\.0\.", f"decoder.context.{ours}.{i}.norm."))
    for theirs, ours in (("f_down", "value"), ("f_up", "out")):
        rules.append((rf"{block}{theirs}\.0\.", f"decoder.context.{ours}.convolution."))
        rules.append((rf"{block}{theirs}\.1\.0\.", f"decoder.context.{ours}.norm."))
    return tuple(rules)


def _mmsegmentation_rules() -> tuple[tuple[str, str], ...]:
    block = r"decode_head\.1\.object_context_block\."
    places = [(r"decode_head\.0\.convs\.0", "regions.0"), (r"decode_head\.1\.bottleneck", "pixels")]
    places += [(rf"{block}query_project\.{i}", f"context.query.{i}") for i in range(2)]
    places += [(rf"{block}key_project\.{i}", f"context.key.{i}") for i in range(2)]
    places += [(f"{block}value_project", "context.value"), (f"{block}out_project", "context.out")]
    places += [(f"{block}bottleneck", "context.augment")]
    rules = [
        (rf"decode_head\.{i}\.conv_seg\.", f"decoder.{ours}.") for i, ours in ((0, "regions.1"), (1, "classifier"))
    ]
    for theirs, ours in places:
        rules.append((rf"{theirs}\.conv\.", f"decoder.{ours}.convolution."))
        rules.append((rf"{theirs}\.bn\.", f"decoder.{ours}.norm."))
    return tuple(rules)


def _paddleseg_rules() -> tuple[tuple[str, str], ...]:
    block = r"head\.spatial_ocr\.attention_block\."
    places = [(r"head\.conv3x3_ocr", "pixels"), (r"head\.aux_head\.0", "regions.0")]
    places += [(rf"{block}f_pixel\.{i}", f"context.query.{i}") for i in range(2)]
    places += [(rf"{block}f_object\.{i}", f"context.key.{i}") for i in range(2)]
    places += [(f"{block}f_down", "context.value"), (f"{block}f_up", "context.out")]
    places += [(r"head\.spatial_ocr\.conv1x1\.0", "context.augment")]
    rules = [(r"head\.aux_head\.1\.", "decoder.regions.1."), (r"head\.cls_head\.", "decoder.classifier.")]
    for theirs, ours in places:
        rules.append((rf"{theirs}\._conv\.", f"decoder.{ours}.convolution."))
        rules.append((rf"{theirs}\._batch_norm\.", f"decoder.{ours}.norm."))
    return tuple(rules)


def _context_biases(converted: Converted) -> Converted:
    context = {name: pair for name, pair in converted.items() if name.startswith("decoder.context.")}
    return {name: pair for name, pair in converted.items() if name not in context} | biases_into_means(context)


def _authors(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "bilinear", "align_corners": True, "mix_bias": True}


def _mmsegmentation(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "bilinear", "align_corners": False, "mix_bias": False}


def _nvidia(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "bilinear", "align_corners": False, "mix_bias": True}


def _inside(converted: Converted) -> Converted:
    """Put the network's names inside those of the attention around it."""
    return {
        name if name.startswith("decoder.attention.") else name.replace("coder.", "coder.network.", 1): pair
        for name, pair in converted.items()
    }


LAYOUTS = (
    Layout(
        "HRNet with OCR, PaddleSeg",
        signature=(PADDLESEG_BRANCH, r"head\.spatial_ocr\."),
        rules=(*paddleseg_encoder_rules(r"backbone\."), *_paddleseg_rules()),
        options=paddleseg,
        rearrange=_context_biases,
    ),
    Layout(
        "HRNet with OCR, the authors' release",
        signature=(r"ocr_distri_head\.", r"stage4\.0\.branches\.3\.0\.conv1\."),
        rules=(*encoder_rules(""), *_authors_rules("")),
        options=_authors,
    ),
    Layout(
        "HRNet with OCR, mmsegmentation",
        signature=(r"decode_head\.1\.object_context_block\.", r"backbone\.stage4\.0\.branches\.3\.0\.conv1\."),
        rules=(*encoder_rules(r"backbone\."), *_mmsegmentation_rules()),
        options=_mmsegmentation,
    ),
    Layout(
        "hierarchical multi-scale attention, NVIDIA's release",
        signature=(r"scale_attn\.", r"ocr\.ocr_distri_head\."),
        rules=(
            *encoder_rules(r"backbone\."),
            *_authors_rules(r"ocr\."),
            (r"scale_attn\.conv([01])\.", "decoder.attention.{0}.convolution."),
            (r"scale_attn\.bn([01])\.", "decoder.attention.{0}.norm."),
            (r"scale_attn\.conv2\.", "decoder.attention.2."),
        ),
        options=_nvidia,
        rearrange=_inside,
    ),
)
