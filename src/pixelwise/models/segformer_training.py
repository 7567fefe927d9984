"""Parts of SegFormer for training on a CPU: the same functions of the same parameters, in an order that is faster."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.onednn import onednn_fits
from pixelwise.models.trained_linear import product

CACHED = 1 << 20
"""Hidden values of an image that stay in cache: 4 MB in float32."""


def attention_of_one_head(
    tokens: Float[Tensor, "B h w D"],
    context: Float[Tensor, "B n D"],
    query: nn.Linear,
    key_value: nn.Linear,
    out: nn.Linear,
) -> Float[Tensor, "B h w D"]:
    """Return attention of one head: its matrices for query and output meet the keys and values, which are few."""
    key, value = key_value(context).chunk(2, dim=-1)
    key = key / math.sqrt(key.shape[-1])
    bias = (key @ query.bias)[:, None]
    scores = torch.baddbmm(bias, tokens.flatten(1, 2), (key @ query.weight).transpose(1, 2))
    # A token's shares add up to 1, so the output's bias goes through them.
    return torch.bmm(scores.softmax(dim=-1), out(value)).view_as(tokens)


def pays_by_image(tokens: Tensor, expand: Tensor) -> bool:
    """Return True where the hidden maps of tokens [B,h,w,C] do not stay in cache, but those of one image do."""
    image = tokens[0, ..., 0].numel() * len(expand)
    return image <= CACHED < len(tokens) * image and onednn_fits(tokens, expand)


class MixFFNByImage(torch.autograd.Function):
    """Mix-FFN of tokens [B,h,w,C], image by image; the other arguments are weight and bias of its three layers.

    A depthwise convolution is slow where it reads or writes memory that no cache holds. The hidden maps of a batch are
    larger than that. Those of one image are still there from the step before if none is kept, so they are computed
    again in the backward pass.
    """

    @staticmethod
    def forward(ctx, tokens: Tensor, *parameters: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        ctx.save_for_backward(tokens, *parameters[:-1])
        expand, expand_bias, depthwise, depthwise_bias, project, project_bias = parameters
        outputs = []
        for image in tokens.split(1):
            mixed = _neighbours(product(image, expand, expand_bias), depthwise, depthwise_bias)
            outputs.append(product(F.gelu(mixed), project, project_bias))
        return torch.cat(outputs)

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients by all arguments."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "SegFormer's Mix-FFN in training has no second derivative on a CPU. Call backward without "
                "create_graph=True, or train in float64."
            )
        tokens, expand, expand_bias, depthwise, depthwise_bias, project = ctx.saved_tensors
        (by_outputs,) = grad_outputs
        sums = [torch.zeros_like(each) for each in (expand, expand_bias, depthwise, depthwise_bias, project)]
        by_expand, by_expand_bias, by_depthwise, by_depthwise_bias, by_project = sums
        by_tokens, channels, mirrored = [], len(expand), depthwise.flip(2, 3)
        for image, by_output in zip(tokens.split(1), by_outputs.split(1), strict=True):
            hidden = product(image, expand, expand_bias)
            mixed = _neighbours(hidden, depthwise, depthwise_bias)
            by_project.addmm_(by_output.flatten(0, 2).T, F.gelu(mixed).flatten(0, 2))
            by_mixed = torch.ops.aten.gelu_backward(product(by_output, project.T, None), mixed)
            _, by_weight, by_bias = torch.ops.aten.convolution_backward(
                by_mixed.permute(0, 3, 1, 2), hidden.permute(0, 3, 1, 2), depthwise,
                [channels], [1, 1], [1, 1], [1, 1], False, [0, 0], channels, [False, True, True],
            )  # fmt: skip
            by_depthwise += by_weight
            by_depthwise_bias += by_bias
            # The gradient by the input is a convolution too, and faster when it is called as one.
            by_hidden = _neighbours(by_mixed, mirrored, None)
            by_expand.addmm_(by_hidden.flatten(0, 2).T, image.flatten(0, 2))
            by_expand_bias += by_hidden.sum(dim=(0, 1, 2))
            by_tokens.append(product(by_hidden, expand.T, None))
        return torch.cat(by_tokens), *sums, by_outputs.sum(dim=(0, 1, 2))


def _neighbours(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    image = tokens.permute(0, 3, 1, 2)
    return F.conv2d(image, weight, bias, padding=1, groups=len(weight)).permute(0, 2, 3, 1)
