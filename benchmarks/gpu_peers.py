"""Other libraries' networks for `gpu.py`, with random weights."""

import importlib.util
from collections.abc import Callable, Iterator

from torch import Tensor, nn

import pixelwise as pw


def others(classes: int) -> dict[str, Callable[[], nn.Module]]:
    """Return what makes each other library's network, where it is installed; each gives logits [B,K,h,w]."""

    class Logits(nn.Module):
        def __init__(self, network: nn.Module, key: str | None) -> None:
            super().__init__()
            self.network, self.key = network, key

        def forward(self, image: Tensor) -> Tensor:
            found = self.network(image)
            return found if self.key is None else found[self.key]

    def transformers() -> nn.Module:
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        return Logits(SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes)), "logits")

    def smp() -> nn.Module:
        import segmentation_models_pytorch

        return Logits(segmentation_models_pytorch.Segformer("mit_b0", encoder_weights=None, classes=classes), None)

    def torchvision() -> nn.Module:
        from torchvision.models.segmentation import deeplabv3_resnet50

        return Logits(deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes), "out")

    made = {"transformers": transformers, "segmentation_models_pytorch": smp, "torchvision": torchvision}
    return {name: make for name, make in made.items() if importlib.util.find_spec(name) is not None}


def ways(classes: int, *, tiny: bool) -> Iterator[tuple[str, str, Callable[[], nn.Module]]]:
    """Yield the tool, what network its row compares with, and what makes it."""
    yield "pixelwise", "segformer-b0", lambda: pw.create("segformer-b0", classes=classes)
    there = others(classes)
    if not tiny and "torchvision" in there:
        yield "pixelwise", "deeplabv3", lambda: pw.create("deeplabv3", classes=classes, encoder="resnet50")
    for name, make in there.items():
        if not tiny or name == "transformers":
            yield name, "deeplabv3" if name == "torchvision" else "segformer-b0", make
