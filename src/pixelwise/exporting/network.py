"""The network that is exported: it takes an image in raw units, of any size, and answers as asked."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pixelwise.exported.about import About
from pixelwise.exported.options import DEEPNESS_RANGE
from pixelwise.models import Segmenter
from pixelwise.models.segmenter import answered
from pixelwise.upsampling import upsample


class ExportedNetwork(nn.Module):
    """A network with its normalisation before it and, if asked for, upsampling and the decision behind it.

    Sizes are read from the image at hand, so that what is recorded with one image holds for others.
    """

    def __init__(self, model: Segmenter, about: About) -> None:
        super().__init__()
        inside = hasattr(model.decoder, "within")
        self.network = Inside(model) if inside else None
        self.encoder, self.decoder = (None, None) if inside else (model.encoder, model.decoder)
        self.multiple, self.align_corners, self.stride = about.multiple, about.align_corners, about.stride
        options, card = about.options, about.card
        self.channels_last, self.outputs = options.layout == "nhwc", options.outputs
        self.range = DEEPNESS_RANGE if options.deepness else 1.0
        self.temperature = card.temperature
        # As `pixelwise.geo.raster.normalize` has them.
        self.mean = nn.Buffer(_by_band(card.mean).float())
        self.scale = nn.Buffer((1 / _by_band(card.std)).float())

    def forward(self, image: Shaped[Tensor, "B _ _ _"]) -> tuple[Tensor, ...]:
        """Return the outputs that were asked for, in the order of `pixelwise.exported.options.OUTPUTS`.

        Args:
            image: raw units, [B,C,H,W] or, channels last, [B,H,W,C].
        """
        prepared = self.prepared(image)
        logits = self.decoded(self.padded(prepared))
        found = [logits] if "logits" in self.outputs else []
        if self.outputs != ("logits",):
            found += self.decided(logits, prepared.shape[-2], prepared.shape[-1])
        return tuple(found)

    def stages(self, image: Shaped[Tensor, "B _ _ _"]) -> dict[str, Tensor]:
        """Return what the network computes on the way, in this order, by name."""
        prepared = self.prepared(image)
        if self.encoder is None or self.decoder is None:
            return {"the normalised image": prepared, "the decoder's logits": self.decoded(self.padded(prepared))}
        maps = self.encoder(self.padded(prepared))
        named = {f"map {i + 1} of the encoder's {len(maps)}": one for i, one in enumerate(maps)}
        return {"the normalised image": prepared, **named, "the decoder's logits": self.decoder(maps).logits}

    def decoded(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Return the network's logits of an image that is normalised and padded."""
        if self.network is not None:
            return self.network(image)
        assert self.encoder is not None
        assert self.decoder is not None
        return self.decoder(self.encoder(image)).logits

    def prepared(self, image: Shaped[Tensor, "B _ _ _"]) -> Float[Tensor, "B C H W"]:
        """Return the image as the network was trained on."""
        image = (image.permute(0, 3, 1, 2) if self.channels_last else image).float()
        image = image * self.range if self.range != 1 else image
        return (image - self.mean) * self.scale

    def padded(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C _ _"]:
        """Pad with zeros, right and below, to the multiple that the network needs."""
        if self.multiple == 1:
            return image
        height, width = image.shape[-2:]
        return F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))

    def decided(self, logits: Float[Tensor, "B K h w"], height: int | Tensor, width: int | Tensor) -> list[Tensor]:
        """Return class and confidence of each pixel, or the softmax of all classes, for an image of that size.

        While torch traces, sizes are tensors.
        """
        if self.stride > 1:
            covered = (height + -height % self.multiple, width + -width % self.multiple)
            logits = upsample(logits, covered, align_corners=self.align_corners)  # pyright: ignore[reportArgumentType]
        logits = logits[..., :height, :width]
        found = []
        if "labels" in self.outputs:
            # The tracing exporter does not know 16-bit integers without a sign; it is told of them in the graph.
            wide = torch.int32 if torch.jit.is_tracing() else torch.uint16  # pyright: ignore[reportPrivateImportUsage]
            found.append(logits.argmax(dim=1).to(torch.uint8 if logits.shape[1] <= 256 else wide))
        # No label depends on it.
        logits = logits if self.temperature == 1 else logits / self.temperature
        if "confidence" in self.outputs:
            found.append(logits.softmax(dim=1).amax(dim=1))
        if "probabilities" in self.outputs:
            found.append(logits.softmax(dim=1))
        return found


class Inside(nn.Module):
    """A network whose decoder works inside its encoder, as one module: what is recorded of it then has its name."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Return logits."""
        return answered(self.encoder, self.decoder, image).logits


class Stages(nn.Module):
    """Gives all that a network computes on the way."""

    def __init__(self, network: ExportedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Shaped[Tensor, "B _ _ _"]) -> tuple[Tensor, ...]:
        """Return `ExportedNetwork.stages`, without their names."""
        return tuple(self.network.stages(image).values())


def _by_band(values: tuple[float, ...]) -> Float[Tensor, "1 C 1 1"]:
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None]
