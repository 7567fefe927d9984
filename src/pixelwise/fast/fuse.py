"""The same function, rearranged for inference."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import PixelwiseError
from pixelwise.fast import segformer as fast_segformer
from pixelwise.fast import segnext as fast_segnext
from pixelwise.fast.convolution import FusedConvolution, folded_brick, with_folded_norm
from pixelwise.fast.linear import PackedLinear
from pixelwise.models import efficientnet, linknet, same_padding, segformer, segnext, setr
from pixelwise.models.layers import ConvNorm
from pixelwise.models.library_encoder import LibraryEncoder
from pixelwise.models.segmenter import Decoded, Segmenter
from pixelwise.upsampling import recorded


def without_auxiliary_heads(head: nn.Module) -> nn.Module:
    """Drop the heads of SETR that only training needs, in place."""
    head.auxiliary = nn.ModuleList()
    return head


FASTER: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    # what a network is made of -> its faster form, made from a module that is the form's own
    nn.Conv2d: FusedConvolution,
    nn.Linear: PackedLinear,
    ConvNorm: folded_brick,
    efficientnet.StridedConvNorm: with_folded_norm,
    linknet.Deconvolution: with_folded_norm,
    same_padding.SameConvNorm: with_folded_norm,
    segformer.AllMLPDecoder: fast_segformer.fused_decoder,
    segnext.Block: fast_segnext.FusedBlock,
    segnext.Downsampling: with_folded_norm,
    segnext.Squeeze: FusedConvolution,
    setr.AggregationHead: without_auxiliary_heads,
    setr.UpsamplingHead: without_auxiliary_heads,
}


class FusedSegmenter(Segmenter):
    """A network for inference alone, as `fuse` makes it."""

    def decode(self, image: Float[Tensor, "B C H W"]) -> Decoded:
        """Return what the network that it was made from does, without auxiliary outputs.

        Raises:
            PixelwiseError: torch is tracing or exporting it.
            DataError: as `Segmenter.decode`.
        """
        if recorded():
            raise PixelwiseError(
                "A fused network has operators of this machine inside and cannot be traced or exported: trace or "
                "export the network that it was made from.",
                code="PW704",
            )
        return super().decode(image)

    def train(self, mode: bool = True) -> "FusedSegmenter":
        """Refuse training: batch norms are gone.

        Raises:
            RuntimeError: training is asked for.
        """
        if mode:
            raise RuntimeError("A fused network is for inference alone. Train the network that it was made from.")
        return super().train(mode)


@torch.inference_mode(False)
@torch.no_grad()
def fuse(model: Segmenter) -> Segmenter:
    """Return a copy for inference: every module that `FASTER` names gives way to its faster form.

    The answers are equal to rounding. The copy is frozen: its parameters take no gradient, it refuses ``train()``, and
    weights that are changed or loaded afterwards are not seen. It refuses to be traced or exported. On a CPU a ReLU
    may turn a NaN of the image into 0. Ask the network that it was made from for gradients by the image: parts of the
    copy work in place.

    A process that calls it for many images is faster after `pixelwise.fast.allocator.keep_freed_memory`.
    """
    model = copy.deepcopy(model)
    fused = FusedSegmenter(model.encoder, model.decoder, model.architecture).eval()
    for module in fused.modules():
        if hasattr(module, "with_aux"):
            setattr(module, "with_aux", False)  # noqa: B010  type checkers see a module's attributes as tensors
    _replace_children(fused)
    return fused.requires_grad_(False).eval()


def _replace_children(module: nn.Module) -> None:
    if isinstance(module, LibraryEncoder):
        return  # another library's code may read the weights of its layers, which faster forms do not have
    for name, child in module.named_children():
        make = FASTER.get(type(child))
        if make is not None:
            child = make(child)
            setattr(module, name, child)
        _replace_children(child)
