"""HRNet's names in the authors' releases (segmentation, pose, classification), in mmsegmentation and in mmdetection."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout


def encoder_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of the encoder's names after ``prefix``, a pattern; all releases name it alike."""
    rules = [
        (rf"{prefix}conv1\.", "encoder.stem.0.convolution."),
        (rf"{prefix}bn1\.", "encoder.stem.0.norm."),
        (rf"{prefix}conv2\.", "encoder.stem.1.convolution."),
        (rf"{prefix}bn2\.", "encoder.stem.1.norm."),
    ]
    for j in range(3):
        rules.append((rf"{prefix}layer1\.(\d+)\.conv{j + 1}\.", f"encoder.first.{{0}}.layers.{j}.convolution."))
        rules.append((rf"{prefix}layer1\.(\d+)\.bn{j + 1}\.", f"encoder.first.{{0}}.layers.{j}.norm."))
    for j, kind in enumerate(("convolution", "norm")):
        rules += [
            (rf"{prefix}layer1\.(\d+)\.downsample\.{j}\.", f"encoder.first.{{0}}.shortcut.{kind}."),
            # The first transition has one layer for the branch that stays, a nested one for the new branch.
            (rf"{prefix}transition1\.0\.{j}\.", f"encoder.transitions.0.0.{kind}."),
            (rf"{prefix}transition1\.1\.0\.{j}\.", f"encoder.transitions.0.1.{kind}."),
            (rf"{prefix}transition2\.2\.0\.{j}\.", f"encoder.transitions.1.0.{kind}."),
            (rf"{prefix}transition3\.3\.0\.{j}\.", f"encoder.transitions.2.0.{kind}."),
        ]
    for i in range(3):
        module, ours = rf"{prefix}stage{i + 2}\.(\d+)", f"encoder.stages.{i}.{{0}}"
        for j, kind in enumerate(("convolution", "norm")):
            name = ("conv", "bn")[j]
            for k in range(2):
                rules.append(
                    (
                        rf"{module}\.branches\.(\d)\.(\d+)\.{name}{k + 1}\.",
                        f"{ours}.branches.{{1}}.{{2}}.layers.{k}.{kind}.",
                    )
                )
        # Downwards a chain of convolutions, upwards one; a chain's names begin like those of a single one.
        for j, kind in enumerate(("convolution", "norm")):
            chain = rf"{module}\.fuse_layers\.(\d)\.(\d)\.(\d)\.{j}\."
            rules.append((chain, f"{ours}.paths.{{1}}.{{2}}.{{3}}.{kind}."))
        for j, kind in enumerate(("convolution", "norm")):
            rules.append((rf"{module}\.fuse_layers\.(\d)\.(\d)\.{j}\.", f"{ours}.paths.{{1}}.{{2}}.{kind}."))
    return tuple(rules)


def paddleseg_encoder_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of PaddleSeg's encoder after ``prefix``, a pattern; it counts everything from 1."""
    rules: list[tuple[str, str]] = []
    for theirs, ours in (("_conv", "convolution"), ("_batch_norm", "norm")):
        module, here = rf"{prefix}st(\d)\.stage_st\d_(\d)\.", "encoder.stages.{0.less.less}.{1.less}"
        path = rf"{module}fuse_func\.residual_st\d_\d_layer_(\d)_(\d)"
        rules += [
            (rf"{prefix}conv_layer1_(\d)\.{theirs}\.", f"encoder.stem.{{0.less}}.{ours}."),
            (
                rf"{prefix}la1\.bb_layer2_(\d)\.conv(\d)\.{theirs}\.",
                f"encoder.first.{{0.less}}.layers.{{1.less}}.{ours}.",
            ),
            (rf"{prefix}la1\.bb_layer2_(\d)\.conv_down\.{theirs}\.", f"encoder.first.{{0.less}}.shortcut.{ours}."),
            (rf"{prefix}tr1\.transition_tr1_layer_(\d)\.{theirs}\.", f"encoder.transitions.0.{{0.less}}.{ours}."),
            (rf"{prefix}tr(\d)\.transition_tr\d_layer_\d\.{theirs}\.", f"encoder.transitions.{{0.less}}.0.{ours}."),
            (
                rf"{module}branches_func\.bb_st\d_\d_branch_layer_(\d)_(\d)\.conv(\d)\.{theirs}\.",
                f"{here}.branches.{{2.less}}.{{3.less}}.layers.{{4.less}}.{ours}.",
            ),
            (rf"{path}\.{theirs}\.", f"{here}.paths.{{2.less}}.{{3.less}}.{ours}."),
            (rf"{path}_(\d)\.{theirs}\.", f"{here}.paths.{{2.less}}.{{3.less}}.{{4.less}}.{ours}."),
        ]
    return tuple(rules)


def paddleseg(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the options of PaddleSeg's networks on HRNet."""
    return {"fuse_upsampling": "bilinear", "align_corners": False, "mix_bias": True, "padding": "same"}


def _authors(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "bilinear", "mix_bias": True}


def _mmsegmentation(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "bilinear", "align_corners": False, "mix_bias": False}


def _pose(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "nearest", "finest_only": True}


def _nearest(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"fuse_upsampling": "nearest"}


BRANCH = r"stage4\.0\.branches\.3\.0\.conv1\."
OTHER_HEADS = (
    r"aux_head\.",
    r"ocr\.",
    r"scale_attn\.",
    r"decode_head\.0\.",
    r"ocr_distri_head\.",
    r"backbone\.conv1_1",
)

PADDLESEG_BRANCH = r"backbone\.st4\.stage_st4_1\.branches_func\."

LAYOUTS = (
    Layout(
        "HRNetV2 (FCN), PaddleSeg",
        signature=(PADDLESEG_BRANCH, r"head\.conv_1\._conv\."),
        rules=(
            *paddleseg_encoder_rules(r"backbone\."),
            (r"head\.conv_1\._conv\.", "decoder.mix.convolution."),
            (r"head\.conv_1\._batch_norm\.", "decoder.mix.norm."),
            (r"head\.cls\.", "decoder.classifier."),
        ),
        options=paddleseg,
    ),
    Layout(
        "HRNet, PaddleSeg",
        signature=(r"(backbone\.)?st4\.stage_st4_1\.branches_func\.",),
        absent=(r"head\.",),
        rules=paddleseg_encoder_rules(r"(?:backbone\.)?"),
        options=lambda _: {"fuse_upsampling": "bilinear", "padding": "same"},
    ),
    Layout(
        "HRNetV2, the authors' release for segmentation",
        signature=(BRANCH, r"last_layer\.0\."),
        absent=OTHER_HEADS,
        rules=(
            *encoder_rules(""),
            (r"last_layer\.0\.", "decoder.mix.convolution."),
            (r"last_layer\.1\.", "decoder.mix.norm."),
            (r"last_layer\.3\.", "decoder.classifier."),
        ),
        options=_authors,
    ),
    Layout(
        "HRNetV2, mmsegmentation",
        signature=(rf"backbone\.{BRANCH}", r"decode_head\.convs\.0\.conv\."),
        absent=OTHER_HEADS,
        rules=(
            *encoder_rules(r"backbone\."),
            (r"decode_head\.convs\.0\.conv\.", "decoder.mix.convolution."),
            (r"decode_head\.convs\.0\.bn\.", "decoder.mix.norm."),
            (r"decode_head\.conv_seg\.", "decoder.classifier."),
        ),
        options=_mmsegmentation,
    ),
    Layout(
        "HRNetV1, the authors' release for pose",
        signature=(BRANCH, r"final_layer\.(weight|bias)$"),
        absent=(*OTHER_HEADS, r"incre_modules\."),
        rules=(*encoder_rules(""), (r"final_layer\.", "decoder.classifier.")),
        options=_pose,
    ),
    Layout(
        "HRNetV2p, mmdetection",
        signature=(rf"(backbone\.)?{BRANCH}", r"neck\.reduction_conv\."),
        rules=(
            *encoder_rules(r"backbone\."),
            (r"neck\.reduction_conv\.(?:0\.)?(?:conv\.)?", "decoder.reduce."),
            (r"neck\.fpn_conv[s]?\.(\d)\.(?:conv\.)?", "decoder.levels.{0}."),
        ),
        unused=(r"rpn_head\.", r"roi_head\.", r"bbox_head\.", r"mask_head\."),
        options=_nearest,
    ),
    Layout(
        "HRNet, the authors' release for classification",
        signature=(rf"(backbone\.)?{BRANCH}",),
        absent=(*OTHER_HEADS, r"last_layer\.", r"decode_head\.", r"neck\."),
        rules=encoder_rules(r"(?:backbone\.)?"),
        unused=(r"incre_modules\.", r"downsamp_modules\.", r"final_layer\.", r"classifier\.", r"head\."),
    ),
)
