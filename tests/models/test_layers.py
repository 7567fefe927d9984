import torch
from torch import nn

from pixelwise.models.layers import PlanesOfTokens


def parts(dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 6, 4), (2, 3, 4), (3,)
    return [torch.randn(size, generator=generator, dtype=dtype, requires_grad=True) for size in sizes]


def test_planes_of_tokens_are_the_plain_product_and_so_are_their_gradients():
    tokens, weight, bias = parts(torch.float64)
    planes = PlanesOfTokens.apply(tokens, weight, bias)
    torch.testing.assert_close(planes, torch.einsum("bnd,bcd->bcn", tokens, weight) + bias[:, None])
    assert torch.autograd.gradcheck(PlanesOfTokens.apply, (tokens, weight, bias))


def test_planes_of_tokens_have_gradients_of_the_parameters_type_under_autocast():
    tokens, weight, bias = parts(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        planes = PlanesOfTokens.apply(nn.functional.relu(tokens), weight, bias)
    planes.square().sum().backward()
    assert planes.dtype == torch.bfloat16
    assert {tokens.grad.dtype, weight.grad.dtype, bias.grad.dtype} == {torch.float32}
    expected = torch.einsum("bnd,bcd->bcn", tokens.relu(), weight) + bias[:, None]
    slope = torch.autograd.grad(expected.square().sum(), weight)[0]
    assert (weight.grad - slope).abs().max() < 0.05 * slope.abs().max()
