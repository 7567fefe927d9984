"""The names of U-Net, UNet++ and UNet 3+ in their releases."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout, biases_into_means

Rules = tuple[tuple[str, str], ...]


def _double(theirs: str, ours: str, names: tuple[str, str, str, str]) -> list[tuple[str, str]]:
    places = ("first.convolution", "first.norm", "second.convolution", "second.norm")
    return [(rf"{theirs}{name}\.", f"{ours}.{place}.") for name, place in zip(names, places, strict=True)]


def _milesial() -> Rules:
    names = ("double_conv.0", "double_conv.1", "double_conv.3", "double_conv.4")
    rules = _double(r"inc\.", "encoder.stages.0", names)
    for i in range(1, 5):
        rules += _double(rf"down{i}\.maxpool_conv\.1\.", f"encoder.stages.{i}", names)
        rules += _double(rf"up{i}\.conv\.", f"decoder.stages.{i - 1}", names)
        rules.append((rf"up{i}\.up\.", f"decoder.upsamplings.{i - 1}.enlarge."))
    return (*rules, (r"outc\.conv\.", "decoder.classifier."))


def _nested(decoder: str) -> Rules:
    names = ("conv1", "bn1", "conv2", "bn2")
    rules: list[tuple[str, str]] = []
    for i in range(5):
        rules += _double(rf"conv{i}_0\.", f"encoder.stages.{i}", names)
        for j in range(1, 5 - i):
            ours = f"decoder.nodes.{i}_{j}" if decoder == "unetpp" else f"decoder.stages.{3 - i}"
            rules += _double(rf"conv{i}_{j}\.", ours, names)
    if decoder == "unet":
        return (*rules, (r"final\.", "decoder.classifier."))
    return (*rules, (r"final([1-4])\.", "decoder.heads.{0}."), (r"final\.", "decoder.heads.4."))


def _keras(decoder: str) -> Rules:
    rules: list[tuple[str, str]] = []
    for i in range(5):
        for j in range(5 - i):
            node = f"decoder.nodes.{i}_{j}" if decoder == "unetpp" else f"decoder.stages.{3 - i}"
            up = f"decoder.upsamplings.{i}_{j}" if decoder == "unetpp" else f"decoder.upsamplings.{3 - i}"
            ours = f"encoder.stages.{i}" if j == 0 else node
            for k, name in ((1, "first"), (2, "second")):
                rules.append((rf"conv{i + 1}{j + 1}_{k}\.", f"{ours}.{name}.convolution."))
            rules.append((rf"up{i + 1}{j + 1}\.", f"{up}.enlarge."))
    if decoder == "unet":
        return (*rules, (r"output(?:_1)?\.", "decoder.classifier."))
    return (*rules, (r"output_([1-4])\.", "decoder.heads.{0}."), (r"output\.", "decoder.heads.4."))


def _unet3p() -> Rules:
    names = ("conv1.0", "conv1.1", "conv2.0", "conv2.1")
    rules: list[tuple[str, str]] = []
    for i in range(5):
        rules += _double(rf"conv{i + 1}\.", f"encoder.stages.{i}", names)
        rules.append((rf"outconv{i + 1}\.", f"decoder.heads.{i}."))
    for i in range(4):
        level = i + 1
        for j, kind in enumerate(("convolution", "norm")):
            what = ("conv", "bn")[j]
            sources = {k: f"h{k + 1}_PT_hd{level}" for k in range(i)}
            sources[i] = f"h{level}_Cat_hd{level}"
            sources |= {k: f"hd{k + 1}_UT_hd{level}" for k in range(i + 1, 5)}
            rules += [(rf"{name}_{what}\.", f"decoder.joins.{i}.{k}.{kind}.") for k, name in sources.items()]
            rules.append((rf"{what}{level}d_1\.", f"decoder.mixes.{i}.{kind}."))
    return (*rules, (r"cls\.1\.", "decoder.guide.1."))


def _filters(state: Mapping[str, Tensor], names: Iterable[str]) -> list[int]:
    """Return the channels of the encoder's levels, by the names of their last convolutions."""
    return [len(state[name]) for name in names if name in state]


def _milesial_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    names = ("inc.", *(f"down{i}.maxpool_conv.1." for i in range(1, 5)))
    filters = _filters(state, (f"{name}double_conv.3.weight" for name in names))
    upsampling = "transposed" if "up1.up.weight" in state else "bilinear"
    return {"release": "milesial", "upsampling": upsampling, "batch_norm": True, "filters": filters, "level": 4}


def _nested_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    filters = _filters(state, (f"conv{i}_0.conv2.weight" for i in range(5)))
    return {"release": "nested", "upsampling": "bilinear", "batch_norm": True, "filters": filters, "level": 4}


def _nested_deep_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {**_nested_options(state), "deep_supervision": "final1.weight" in state}


def _keras_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    filters = _filters(state, (f"conv{i}1_2.weight" for i in range(1, 6)))
    return {"release": "keras2018", "upsampling": "transposed", "batch_norm": False, "filters": filters, "level": 4}


def _keras_deep_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {**_keras_options(state), "deep_supervision": "output_1.weight" in state}


def _unet3p_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    join = state.get("h1_PT_hd4_conv.weight")
    return {
        "release": "unet3p",
        "batch_norm": "conv1.conv1.1.weight" in state,
        "filters": _filters(state, (f"conv{i}.conv2.0.weight" for i in range(1, 6))),
        "level": 4,
        "decoder_channels": 64 if join is None else len(join),
        "deep_supervision": "outconv2.weight" in state,
        "guided": "cls.1.weight" in state,
    }


LAYOUTS = (
    Layout(
        "U-Net, milesial",
        signature=(r"inc\.double_conv\.", r"up1\.conv\.double_conv\."),
        rules=_milesial(),
        options=_milesial_options,
        rearrange=biases_into_means,
    ),
    Layout(
        "UNet++, 4uiiurz1",
        signature=(r"conv0_0\.conv1\.", r"conv2_1\.conv1\."),
        rules=_nested("unetpp"),
        options=_nested_deep_options,
    ),
    Layout(
        "U-Net, 4uiiurz1",
        signature=(r"conv0_0\.conv1\.", r"conv0_4\.conv1\."),
        absent=(r"conv2_1\.",),
        rules=_nested("unet"),
        options=_nested_options,
    ),
    Layout(
        "UNet++, the authors' Keras release",
        signature=(r"conv11_1\.", r"up12\."),
        rules=_keras("unetpp"),
        options=_keras_deep_options,
    ),
    Layout(
        "U-Net, the UNet++ authors' Keras release",
        signature=(r"conv11_1\.", r"up15\."),
        absent=(r"up12\.",),
        rules=_keras("unet"),
        options=_keras_options,
    ),
    Layout(
        "UNet 3+, ZJUGiveLab",
        signature=(r"conv1\.conv1\.0\.", r"h1_PT_hd4_conv\."),
        rules=_unet3p(),
        options=_unet3p_options,
    ),
)
