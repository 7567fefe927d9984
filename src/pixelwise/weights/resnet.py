"""ResNet's names in torchvision, whose ImageNet weights most networks start from."""

from collections.abc import Mapping

from torch import Tensor

from pixelwise.weights.layout import Layout


def resnet_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of torchvision's names after ``prefix``, a pattern."""
    rules = [(rf"{prefix}conv1\.", "encoder.stem.0.convolution."), (rf"{prefix}bn1\.", "encoder.stem.0.norm.")]
    return (*rules, *stage_rules(prefix))


def deep_stem_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of a stem of three convolutions, which releases keep as a sequence with its rectifiers."""
    rules = []
    for i in range(3):
        rules.append((rf"{prefix}{3 * i}\.", f"encoder.stem.{i}.convolution."))
        rules.append((rf"{prefix}{3 * i + 1}\.", f"encoder.stem.{i}.norm."))
    return tuple(rules)


def stage_rules(prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the rules of the four stages, which the releases name alike."""
    rules = []
    for i in range(4):
        block, ours = rf"{prefix}layer{i + 1}\.(\d+)", f"encoder.stages.{i}.{{0}}"
        for j in range(3):
            rules.append((rf"{block}\.conv{j + 1}\.", f"{ours}.layers.{j}.convolution."))
            rules.append((rf"{block}\.bn{j + 1}\.", f"{ours}.layers.{j}.norm."))
        rules.append((rf"{block}\.downsample\.0\.", f"{ours}.shortcut.convolution."))
        rules.append((rf"{block}\.downsample\.1\.", f"{ours}.shortcut.norm."))
    return tuple(rules)


def _options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {"stem": "7x7"}


LAYOUTS = (
    Layout(
        "ResNet, torchvision",
        signature=(r"conv1\.weight$", r"bn1\.", r"layer1\.0\.conv1\.", r"layer4\.0\.downsample\."),
        absent=(r"layer5\.", r"classifier\."),
        rules=resnet_rules(""),
        unused=(r"fc\.",),
        options=_options,
    ),
)
