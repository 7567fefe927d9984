"""What is computed otherwise than its paper draws it: the same numbers, and with the drawn graph the recorded cost."""

import golden
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import pixelwise as pw
from pixelwise.models.layers import resize

NETWORKS = {
    "segformer_b0_nvlabs": "segformer-b0",
    "segformer_b2_nvlabs": "segformer-b2",
    "segnext_t_official": "segnext-t",
}


def all_mlp(decoder, features):
    """SegFormer's decoder, word by word after section 3.2."""
    size = features[0].shape[-2:]
    projected = [
        F.linear(one.flatten(2).transpose(1, 2), layer.weight, layer.bias).transpose(1, 2).unflatten(2, one.shape[-2:])
        for one, layer in zip(features, decoder.projections, strict=True)
    ]
    joined = torch.cat([resize(one, size) for one in projected[::-1]], dim=1)
    return decoder.classifier(F.relu(decoder.norm(decoder.fuse(joined))))


def hamburger(decoder, features):
    """SegNeXt's decoder, word by word after figure 3."""
    features = features[-len(decoder.inputs) :]
    joined = torch.cat([resize(one, features[0].shape[-2:]) for one in features], dim=1)
    squeezed = F.relu(decoder.squeeze_norm(decoder.squeeze(joined)))
    burger = decoder.bread_norm(decoder.bread_out(decoder.ham(F.relu(decoder.bread_in(squeezed)))))
    return decoder.classifier(F.relu(decoder.align_norm(decoder.align(F.relu(squeezed + burger)))))


@torch.no_grad()
@pytest.mark.parametrize("recording", NETWORKS)
def test_the_drawn_decoder_gives_the_same_logits_and_the_recorded_operations(recording):
    torch.manual_seed(0)
    model = pw.create(NETWORKS[recording], classes=150).eval()
    drawn = hamburger if "segnext" in recording else all_mlp
    image = torch.randn(1, 3, 64, 96)
    expected, found = drawn(model.decoder, model.encoder(image)), model.decode(image).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()

    model = model.to("meta")
    for side, recorded in golden.load(recording)["flops_2mac"].items():
        with FlopCounterMode(display=False) as counter:
            drawn(model.decoder, model.encoder(torch.zeros(1, 3, int(side), int(side), device="meta")))
        assert counter.get_total_flops() == recorded
