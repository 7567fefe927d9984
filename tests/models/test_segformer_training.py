import copy

import pytest
import torch

import pixelwise as pw
from pixelwise.models.segformer import EfficientSelfAttention, MixFFN
from pixelwise.models.segformer_training import pays_by_image


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


def test_mix_ffn_image_by_image_has_the_plain_gradients_and_keeps_no_hidden_map():
    torch.manual_seed(0)
    layer = MixFFN(32, 4)
    plain = copy.deepcopy(layer).double()
    tokens = torch.randn(3, 64, 64, 32)
    assert pays_by_image(tokens, layer.expand.weight)
    by_output, sizes, results = torch.randn_like(tokens), [], []
    for module, given in ((layer, tokens.clone()), (plain, tokens.double())):
        given.requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t
        ):
            out = module.train()(given)
        results.append(torch.autograd.grad(out, [given, *module.parameters()], by_output.to(out.dtype)))
        if module is layer:
            assert max(sizes) == tokens.numel()
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("shape", [(1, 64, 64, 32), (3, 128, 128, 32), (3, 16, 16, 32)], ids=["one", "large", "small"])
def test_mix_ffn_goes_by_image_only_where_one_stays_in_cache_and_all_do_not(shape):
    assert not pays_by_image(torch.empty(shape), torch.empty(128, 32))


def test_under_autocast_a_backward_pass_has_the_precision_of_the_forward_pass():
    torch.manual_seed(0)
    layer, tokens = MixFFN(32, 4).train(), torch.randn(3, 64, 64, 32)
    expected = torch.autograd.grad(layer(tokens).sum(), layer.parameters())
    total = layer(tokens).sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(total, layer.parameters())
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_mix_ffn_by_image_says_that_it_has_no_second_derivative():
    tokens = torch.randn(3, 64, 64, 32, requires_grad=True)
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.grad(MixFFN(32, 4).train()(tokens).sum(), tokens, create_graph=True)


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
