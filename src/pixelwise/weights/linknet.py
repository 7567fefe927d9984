"""LinkNet's names in its authors' PyTorch release, with torchvision's blocks or its own."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout


def _options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"port": "pytorch", "stem": "7x7"}


def _rules() -> tuple[tuple[str, str], ...]:
    rules = [
        (r"(?:in_block\.0|conv1)\.", "encoder.stem.0.convolution."),
        (r"(?:in_block\.1|bn1)\.", "encoder.stem.0.norm."),
        (r"tp_conv1\.0\.", "decoder.deconvolution.convolution."),
        (r"tp_conv1\.1\.", "decoder.deconvolution.norm."),
        (r"conv2\.0\.", "decoder.convolution.convolution."),
        (r"conv2\.1\.", "decoder.convolution.norm."),
        (r"tp_conv2\.", "decoder.classifier."),
    ]
    for i in range(4):
        for place, index in ((r"(\d+)", "{0}"), ("block1", "0"), ("block2", "1")):
            block, ours = rf"encoder{i + 1}\.{place}", f"encoder.stages.{i}.{index}"
            for k in range(2):
                rules.append((rf"{block}\.conv{k + 1}\.", f"{ours}.layers.{k}.convolution."))
                rules.append((rf"{block}\.bn{k + 1}\.", f"{ours}.layers.{k}.norm."))
            rules.append((rf"{block}\.downsample\.0\.", f"{ours}.shortcut.convolution."))
            rules.append((rf"{block}\.downsample\.1\.", f"{ours}.shortcut.norm."))
        # Theirs are numbered from the finest, ours from the coarsest.
        for theirs, part in (("conv1", "reduce"), ("tp_conv", "deconvolution"), ("conv2", "expand")):
            rules.append((rf"decoder{i + 1}\.{theirs}\.0\.", f"decoder.blocks.{3 - i}.{part}.convolution."))
            rules.append((rf"decoder{i + 1}\.{theirs}\.1\.", f"decoder.blocks.{3 - i}.{part}.norm."))
    return tuple(rules)


LAYOUTS = (
    Layout(
        "LinkNet, authors' PyTorch release",
        signature=(r"encoder1\.(0|block1)\.conv1\.", r"decoder1\.tp_conv\.0\.", r"tp_conv2\."),
        rules=_rules(),
        options=_options,
    ),
)
