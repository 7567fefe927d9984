"""The network that is exported: it takes an image in raw units, of any size, and answers as asked."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pixelwise.export.options import ExportOptions
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard
from pixelwise.upsampling import upsample


class ExportedNetwork(nn.Module):
    """A network with its normalisation before it and, if asked for, upsampling and the decision behind it.

    Sizes are read from the image as it is at hand, so that what is recorded of one image holds for others.
    """

    def __init__(self, model: Segmenter, card: ModelCard, options: ExportOptions, *, stride: int) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.multiple, self.align_corners, self.stride = model.multiple, model.align_corners, stride
        self.channels_last, self.outputs, self.scaled = options.layout == "nhwc", options.outputs, options.deepness
        # As `pixelwise.geo.raster.normalize` has them.
        self.mean, self.scale = nn.Buffer(_by_band(card.mean)), nn.Buffer(1 / _by_band(card.std, torch.float64).float())
        for module in self.modules():
            if hasattr(module, "with_aux"):
                setattr(module, "with_aux", False)  # noqa: B010  type checkers see a module's attributes as tensors

    def forward(self, image: Shaped[Tensor, "B _ _ _"]) -> tuple[Tensor, ...]:
        """Return the outputs that were asked for, in the order of `OUTPUTS`.

        Args:
            image: raw units, [B,C,H,W] or, channels last, [B,H,W,C].
        """
        prepared = self.prepared(image)
        height, width = prepared.shape[-2:]
        logits = self.decoder(self.encoder(self.padded(prepared))).logits
        found = [logits] if "logits" in self.outputs else []
        if self.outputs != ("logits",):
            found += self.decided(logits, (height, width))
        return tuple(found)

    def prepared(self, image: Shaped[Tensor, "B _ _ _"]) -> Float[Tensor, "B C H W"]:
        """Return the image as the network was trained on."""
        image = (image.permute(0, 3, 1, 2) if self.channels_last else image).float()
        return (image - self.mean) * self.scale

    def padded(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C _ _"]:
        """Pad with zeros, right and below, to the multiple that the network needs."""
        if self.multiple == 1:
            return image
        height, width = image.shape[-2:]
        return F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))

    def decided(self, logits: Float[Tensor, "B K h w"], size: tuple[int, int]) -> list[Tensor]:
        """Return class and confidence of each pixel, or the softmax of all classes, for an image of ``size``."""
        height, width = size
        if self.stride > 1:
            covered = (height + -height % self.multiple, width + -width % self.multiple)
            logits = upsample(logits, covered, align_corners=self.align_corners)
        logits = logits[..., :height, :width]
        found = []
        if "labels" in self.outputs:
            found.append(logits.argmax(dim=1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int32))
        if "confidence" in self.outputs:
            found.append(logits.softmax(dim=1).amax(dim=1))
        if "probabilities" in self.outputs:
            found.append(logits.softmax(dim=1))
        return found


def _by_band(values: tuple[float, ...], dtype: torch.dtype = torch.float32) -> Float[Tensor, "1 C 1 1"]:
    return torch.tensor(values, dtype=dtype)[None, :, None, None]
