import copy

import pytest
import torch

import pixelwise as pw
from pixelwise.models.segformer import EfficientSelfAttention


def test_an_encoder_in_training_has_the_maps_and_gradients_of_its_plain_form():
    torch.manual_seed(0)
    encoder = pw.create("segformer-b0", classes=2, drop_path=0).encoder.train()
    # In evaluation and float64 none of what is for training applies.
    plain = copy.deepcopy(encoder).double().eval()
    image = torch.randn(3, 3, 256, 256)
    maps, expected_maps = encoder(image), plain(image.double())
    weights = [torch.randn_like(one) for one in maps]
    torch.autograd.backward(maps, weights)
    torch.autograd.backward(expected_maps, [weight.double() for weight in weights])
    for found, expected in zip(maps, expected_maps, strict=True):
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    expected_gradients = dict(plain.named_parameters())
    for name, parameter in encoder.named_parameters():
        expected = expected_gradients[name].grad
        # The keys' bias shifts all scores of a token alike, so it has no gradient but rounding.
        scale = max(1.0, float(expected.abs().max()))
        assert (parameter.grad - expected).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("reduction", [1, 2])
def test_one_head_attends_by_its_scores_as_it_does_in_evaluation(reduction):
    torch.manual_seed(0)
    attention = EfficientSelfAttention(8, heads=1, reduction=reduction, epsilon=1e-6).double()
    torch.nn.init.normal_(attention.query.bias)
    torch.nn.init.normal_(attention.out.bias)
    tokens = torch.randn(2, 4, 6, 8, dtype=torch.float64, requires_grad=True)
    wanted = [tokens, *attention.parameters()]
    by_output, seen = torch.randn(2, 4, 6, 8, dtype=torch.float64), []
    for training in (True, False):
        out = attention.train(training)(tokens)
        seen.append((out, *torch.autograd.grad(out, wanted, by_output)))
    for found, expected in zip(*seen, strict=True):
        assert torch.allclose(found, expected, atol=1e-12)
