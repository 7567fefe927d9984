"""PaddleSeg's names, its [in, out] matrices, and its way to pad."""

import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pixelwise as pw
from pixelwise.models.layers import ConvNorm
from pixelwise.models.same_padding import SameConvNorm

SEGFORMER = (
    (r"^encoder\.embeddings\.(\d)\.projection\.", lambda n: f"backbone.patch_embed{int(n[1]) + 1}.proj."),
    (r"^encoder\.embeddings\.(\d)\.norm\.", lambda n: f"backbone.patch_embed{int(n[1]) + 1}.norm."),
    (r"^encoder\.norms\.(\d)\.", lambda n: f"backbone.norm{int(n[1]) + 1}."),
    (r"^encoder\.stages\.(\d)\.(\d+)\.", lambda n: f"backbone.block{int(n[1]) + 1}.{n[2]}."),
    (r"attention\.query\.", "attn.q."),
    (r"attention\.key_value\.", "attn.kv."),
    (r"attention\.out\.", "attn.proj."),
    (r"attention\.reduce\.", "attn.sr."),
    (r"attention\.norm\.", "attn.norm."),
    (r"feed_forward\.expand\.", "mlp.fc1."),
    (r"feed_forward\.depthwise\.", "mlp.dwconv.dwconv."),
    (r"feed_forward\.project\.", "mlp.fc2."),
    (r"^decoder\.projections\.(\d)\.", lambda n: f"linear_c{int(n[1]) + 1}.proj."),
    (r"^decoder\.fuse\.", "linear_fuse._conv."),
    (r"^decoder\.norm\.", "linear_fuse._batch_norm."),
    (r"^decoder\.classifier\.", "linear_pred."),
)
BRICK = ((r"\.convolution\.", "._conv."), (r"\.norm\.(weight|bias|running)", r"._batch_norm.\1"))
HARDNET = (
    *BRICK,
    (r"^encoder\.stem\.", "stem."),
    (r"^encoder\.blocks\.(\d)\.", lambda n: f"encoder.blks.{3 * int(n[1])}."),
    (r"^encoder\.transitions\.(\d)\.", lambda n: f"encoder.blks.{3 * int(n[1]) + 1}."),
    (r"^decoder\.joins\.(\d)\.mix\.", r"decoder.conv1x1_up.\1."),
    (r"^decoder\.blocks\.", "decoder.dense_blocks_up."),
    (r"^decoder\.classifier\.", "cls_head."),
)


def more(*groups):
    return [str(int(group) + 1) for group in groups]


def branch(n):
    m, b, u, k = more(*n.groups()[1:])
    s = int(n[1]) + 2
    return f"backbone.st{s}.stage_st{s}_{m}.branches_func.bb_st{s}_{m}_branch_layer_{b}_{u}.conv{k}."


def path(n):
    m, target, source, *step = more(*(group for group in n.groups()[1:] if group))
    s = int(n[1]) + 2
    return f"backbone.st{s}.stage_st{s}_{m}.fuse_func.residual_st{s}_{m}_layer_{'_'.join([target, source, *step])}._"


HRNET = (
    *BRICK,
    (r"^encoder\.stem\.(\d)\.", lambda n: f"backbone.conv_layer1_{int(n[1]) + 1}."),
    (
        r"^encoder\.first\.(\d)\.layers\.(\d)\.",
        lambda n: "backbone.la1.bb_layer2_{}.conv{}.".format(*more(*n.groups())),
    ),
    (r"^encoder\.first\.(\d)\.shortcut\.", lambda n: f"backbone.la1.bb_layer2_{int(n[1]) + 1}.conv_down."),
    (r"^encoder\.transitions\.0\.(\d)\.", lambda n: f"backbone.tr1.transition_tr1_layer_{int(n[1]) + 1}."),
    (
        r"^encoder\.transitions\.(\d)\.0\.",
        lambda n: f"backbone.tr{int(n[1]) + 1}.transition_tr{int(n[1]) + 1}_layer_{int(n[1]) + 2}.",
    ),
    (r"^encoder\.stages\.(\d)\.(\d)\.branches\.(\d)\.(\d)\.layers\.(\d)\.", branch),
    (r"^encoder\.stages\.(\d)\.(\d)\.paths\.(\d)\.(\d)\.(?:(\d)\.)?_", path),
    (r"^decoder\.mix\.", "head.conv_1."),
    (r"^decoder\.regions\.0\.", "head.aux_head.0."),
    (r"^decoder\.regions\.1\.", "head.aux_head.1."),
    (r"^decoder\.pixels\.", "head.conv3x3_ocr."),
    (r"^decoder\.context\.query\.", "head.spatial_ocr.attention_block.f_pixel."),
    (r"^decoder\.context\.key\.", "head.spatial_ocr.attention_block.f_object."),
    (r"^decoder\.context\.value\.", "head.spatial_ocr.attention_block.f_down."),
    (r"^decoder\.context\.out\.", "head.spatial_ocr.attention_block.f_up."),
    (r"^decoder\.context\.augment\.", "head.spatial_ocr.conv1x1.0."),
)
OCR = (*HRNET, (r"^decoder\.classifier\.", "head.cls_head."))
FCN = (*HRNET, (r"^decoder\.classifier\.", "head.cls."))

VIT = (
    (r"^encoder\.class_token", "backbone.cls_token"),
    (r"^encoder\.positions", "backbone.pos_embed"),
    (r"^encoder\.patches\.", "backbone.patch_embed.proj."),
    (r"^encoder\.", "backbone."),
    (r"attention\.qkv\.", "attn.qkv."),
    (r"attention\.out\.", "attn.proj."),
    (r"feed_forward\.expand\.", "mlp.fc1."),
    (r"feed_forward\.project\.", "mlp.fc2."),
    (r"^decoder\.class_embeddings", "head.cls_token"),
    (r"^decoder\.embed\.", "head.proj_input."),
    (r"^decoder\.norm\.", "head.decoder_norm."),
    (r"^decoder\.project_patches\.", "head.proj_patch."),
    (r"^decoder\.project_classes\.", "head.proj_class."),
    (r"^decoder\.classifier\.", "head.head."),
    (r"^decoder\.", "head."),
)
TINY = {"encoder": "vit-tiny", "image_size": 64, "epsilon": 1e-6, "position_resize": "bicubic"}

NETWORKS = {
    "SegFormer, PaddleSeg": ("segformer-b0", {}, SEGFORMER),
    "FC-HarDNet, PaddleSeg": (
        "fchardnet-70",
        {"encoder": "fchardnet-70-paddleseg", "finest": 2, "align_corners": False},
        HARDNET,
    ),
    "HRNetV2 (FCN), PaddleSeg": ("hrnet-w18", {"padding": "same"}, FCN),
    "Segmenter with a linear decoder, PaddleSeg": ("segmenter-linear", TINY, VIT),
    "Segmenter with a mask transformer, PaddleSeg": ("segmenter-mask", TINY, VIT),
    "HRNet with OCR, PaddleSeg": ("hrnet-w18-ocr", {"padding": "same", "align_corners": False}, OCR),
}


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point() and value.ndim < 2:
                value.add_(torch.rand(value.shape, generator=generator) * 0.1)  # hides nothing behind zeros and ones
    return model.eval()


def saved(model, rules):
    """The arrays that PaddlePaddle would save."""
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        name = name.replace(".running_mean", "._mean").replace(".running_var", "._variance")
        if name == "head.head.weight":
            value = value[:, :, 0, 0]
        state[name] = value.numpy().T.copy() if value.ndim == 2 else value.numpy().copy()
    return state


def with_biases(state):
    """PaddleSeg's OCR has biases before its batch norms, which take them away again."""
    for name in [name for name in state if "spatial_ocr" in name and name.endswith("._conv.weight")]:
        bias = np.linspace(-1, 1, len(state[name]), dtype=np.float32)
        state[name.replace("weight", "bias")] = bias
        state[name.replace("_conv.weight", "_batch_norm._mean")] += bias
    return state


CASES = [(layout, "file") for layout in NETWORKS]
CASES += [("SegFormer, PaddleSeg", kind) for kind in ("pairs", "arrays", "partial")]


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_paddlesegs_weights_give_the_answers_of_their_network(tmp_path, layout, kind):
    name, options, rules = NETWORKS[layout]
    source = randomised(pw.create(name, classes=3, **options))
    state = saved(source, rules)
    state = with_biases(state) if "OCR" in layout else state
    if "mask transformer" in layout:  # where theirs has none
        with torch.no_grad():
            for block in source.decoder.blocks:
                block.attention.qkv.bias.zero_()
        state = {key: value for key, value in state.items() if not re.match(r"head\.blocks\.\d\.attn\.qkv\.bias", key)}
    path = tmp_path / "model.pdparams"
    if kind == "pairs":
        state = {key: (f"param_{i}", value) for i, (key, value) in enumerate(state.items())}
    path.write_bytes(pickle.dumps({**state, "StructuredToParameterName@@": {key: key for key in state}}, protocol=4))
    model = pw.create(name, classes=3, **({"encoder": "vit-tiny"} if options is TINY else {})).eval()
    given = state if kind in ("arrays", "partial") else path
    report = pw.load_weights(model, given, partial=kind == "partial")
    assert report.layout == layout
    assert report.missing == report.unexpected == ()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = source(image)
        assert expected.abs().max() > 0
        assert (model(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (pw.fuse(model)(image) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_square_matrices_of_an_encoder_alone_are_turned_too():
    source = randomised(pw.create("segformer-b0", classes=3))
    state = {
        key.removeprefix("backbone."): value
        for key, value in saved(source, SEGFORMER).items()
        if key.startswith("backbone.")
    }
    model = pw.create("segformer-b0", classes=3)
    report = pw.load_weights(model, state)
    assert "PaddlePaddle" in report.layout
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, source.encoder.state_dict()[key])


@pytest.mark.parametrize("side", [8, 9, 10, 13])
@pytest.mark.parametrize("kernel", [1, 3])
def test_padding_as_same_is_that_of_torch_at_stride_1_and_defined_by_sums_at_stride_2(side, kernel):
    brick = ConvNorm(1, 1, kernel, stride=2, activation=None).eval()
    nn.init.ones_(brick.convolution.weight)
    image = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
    # By the definition: windows that cover the image, the odd pixel of padding last.
    out = -(-side // 2)
    total = max(0, (out - 1) * 2 + kernel - side)
    padded = F.pad(image, (total // 2, total - total // 2) * 2)
    windows = padded.unfold(2, kernel, 2).unfold(3, kernel, 2).sum((-1, -2))
    with torch.no_grad():
        expected = brick.norm(windows)
        assert torch.allclose(SameConvNorm(brick)(image), expected)


FOREIGN = {
    "ResNet_vd": ("backbone.conv1_1._conv.weight", "backbone.bb_0_0.conv0._conv.weight"),
    "U-Net": ("encode.double_conv.0._conv.weight", "decode.up_sample_list.0.double_conv.0._conv.weight"),
    "SegNeXt": ("backbone.block1.0.attn.spatial_gating_unit.dwconvs.0.conv1_1.weight",),
    "SETR": ("backbone.patch_embed.proj.weight", "head.cls_head_norm.weight"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_read_is_called_by_its_name(name):
    with pytest.raises(pw.WeightsError, match=f"{name}, PaddleSeg"):
        pw.load_weights(
            pw.create("unet", classes=2, filters=[2, 2, 2, 2, 2]), {key: np.zeros((3, 3)) for key in FOREIGN[name]}
        )
