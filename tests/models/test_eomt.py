"""EoMT beside transformers' own class, with the same random weights: answers, loss and gradients of a step."""

import copy

import pytest
import torch
from transformers import EomtConfig, EomtForUniversalSegmentation

import pixelwise as pw
from pixelwise.inference.augmented import averaged_logits, output_stride
from pixelwise.losses import MaskLoss, mask_loss, total_loss
from pixelwise.models import eomt
from pixelwise.models.eomt import class_logits

CLASSES = 5
POINTS = 400


def shaken(network, seed=0):
    """Give norms, layer scales, tokens and all else weights of some size, so that nothing is hidden by a 0 or a 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_factor = ("norm" in name and name.endswith("weight")) or "lambda1" in name
        parameter.data.copy_(1 + 0.3 * noise if is_factor else noise * (0.2 if parameter.ndim < 2 else 0.1))
    return network


def reference(side=64, gated=False, **options):
    given = {"num_blocks": 2, "num_queries": 7, "train_num_points": POINTS, **options}
    config = EomtConfig(
        hidden_size=48, num_hidden_layers=6, num_attention_heads=3, image_size=side, patch_size=16,
        num_labels=CLASSES, use_swiglu_ffn=gated, **given,
    )  # fmt: skip
    network = EomtForUniversalSegmentation(config)
    network.attn_mask_probs.zero_()
    return shaken(network)


def ours_of(network):
    # Heads do not show in the shapes; the released networks have 64 channels in each.
    model = pw.create("eomt-s", classes=CLASSES, heads=3)
    report = pw.load_weights(model, network.state_dict())
    assert (report.layout, report.missing, report.unexpected) == ("EoMT, transformers", (), ())
    return model


def close(one, other, tolerance=5e-6, least=1.0):
    return (one - other).abs().max() <= tolerance * max(least, other.abs().max())


def close_gradients(one, other):
    return close(one.grad, other.grad, 1e-5, least=0.0)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("side", [64, 128])
@torch.no_grad()
def test_answers_are_those_of_transformers(side, gated):
    theirs = reference(side, gated).eval()
    model = ours_of(theirs).eval()
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected, found = theirs(image), model.decode(image).answers
    assert len(found) == 1
    assert close(found[0].masks, expected.masks_queries_logits)
    assert close(found[0].classes, expected.class_queries_logits)


@torch.no_grad()
def test_an_oblong_image_has_the_answer_of_transformers_with_the_resized_positions():
    square = reference().eval()
    model = ours_of(square).eval()
    oblong = copy.deepcopy(square)
    oblong.grid_size = (4, 6)
    oblong.embeddings.position_embeddings = torch.nn.Embedding.from_pretrained(model.encoder.positions_for(4, 6)[0, 1:])
    oblong.embeddings.position_ids = torch.arange(24)[None]
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(6))
    expected, found = oblong(image), model.decode(image).answers[0]
    assert found.masks.shape == (2, 7, 16, 24)
    assert close(found.masks, expected.masks_queries_logits)
    assert close(found.classes, expected.class_queries_logits)


@torch.no_grad()
def test_masked_attention_is_that_of_transformers():
    theirs = reference().eval()
    theirs.attn_mask_probs.fill_(1.0)
    model = ours_of(theirs).eval()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected, found = theirs(image), model.decode(image).answers
    assert len(found) == 3
    assert close(found[-1].masks, expected.masks_queries_logits)
    model.decoder.mask_chances.zero_()
    assert not close(model.decode(image).answers[-1].masks, expected.masks_queries_logits, 1e-3)


@torch.no_grad()
def test_the_map_is_that_of_transformers_post_processing():
    theirs = reference().eval()
    model = ours_of(theirs).eval()
    image = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    out = theirs(image)
    # As its processor does for a map of classes: upsample, sigmoid, sum over masks.
    masks = torch.nn.functional.interpolate(out.masks_queries_logits, (64, 64), mode="bilinear").sigmoid()
    scores = torch.einsum("bqc,bqhw->bchw", out.class_queries_logits.softmax(-1)[..., :-1], masks)
    labels, logits = model.label_map(image).long(), model(image)
    assert (scores.amax(1) - scores.gather(1, labels[:, None])[:, 0]).max() <= 1e-6
    assert (labels == scores.argmax(1)).float().mean() > 0.999
    assert torch.allclose(logits.softmax(1), scores / scores.sum(1, keepdim=True), atol=1e-5)


def targets_of(mask):
    classes = [one.unique() for one in mask]
    return [(one[None] == k[:, None, None]).float() for one, k in zip(mask, classes, strict=True)], classes


@pytest.mark.parametrize("chance", [1.0, 0.6])
def test_a_step_of_training_has_the_loss_and_gradients_of_transformers(chance):
    theirs = reference().train()
    theirs.attn_mask_probs.fill_(chance)
    model = ours_of(theirs).train()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    mask = torch.randint(0, CLASSES, (2, 4, 4), generator=torch.Generator().manual_seed(4))
    mask[1] %= 2
    mask = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)
    masks, classes = targets_of(mask)
    torch.manual_seed(5)
    expected = theirs(image, mask_labels=masks, class_labels=classes).loss
    expected.backward()
    torch.manual_seed(5)
    found = mask_loss(model.decode(image).answers, mask, MaskLoss(points=POINTS))
    found.backward()
    assert abs(found - expected) <= 1e-5 * expected
    assert close_gradients(model.decoder.queries, theirs.query.weight)
    assert close_gradients(model.encoder.patches.weight, theirs.embeddings.patch_embeddings.projection.weight)
    assert close_gradients(model.decoder.upscale[1].mix.weight, theirs.upscale_block.block[1].conv2.weight)
    assert close_gradients(model.decoder.classifier.bias, theirs.class_predictor.bias)
    for ours, other in zip(model.encoder.blocks, theirs.layers, strict=True):
        assert close_gradients(ours.scale1.factor, other.layer_scale1.lambda1)
        assert close_gradients(ours.feed_forward.expand.weight, other.mlp.fc1.weight)
        assert close(ours.attention.qkv.weight.grad[96:], other.attention.v_proj.weight.grad, 1e-5, least=0.0)


def small(**options):
    torch.manual_seed(0)
    given = {"dim": 48, "depth": 6, "heads": 3, "image_size": 64, "queries": 6, **options}
    return pw.create("eomt-s", classes=3, **given)


@pytest.mark.parametrize(("blocks", "steps", "starts"), [(4, 39153, [6520, 13040, 19560, 26080])])
def test_annealing_follows_the_authors_configuration_for_ade20k(blocks, steps, starts):
    model = small(query_blocks=blocks)
    for i, start in enumerate(starts):
        for step, expected in ((start, 1.0), (start + 3260, 0.5**0.9), (start + 6530, 0.0)):
            model.anneal(step / steps)
            assert model.decoder.mask_chances[i].item() == pytest.approx(expected, abs=0.02)


def test_what_is_recorded_is_what_evaluation_does_with_masks_half_annealed_away(monkeypatch):
    model = shaken(small()).train()
    model.anneal(0.5)
    model.eval()
    chances, image = model.decoder.mask_chances.tolist(), torch.randn(2, 3, 80, 1040)
    assert min(chances) < 0.5 < max(chances)
    with torch.no_grad():
        wanted = model.decode(image).logits
        # While torch exports, tensors have no values.
        model.decoder.mask_chances.fill_(float("nan"))
        monkeypatch.setattr(eomt, "recorded", lambda: True)
        torch.testing.assert_close(model.decode(image).logits, wanted)


def test_a_step_draws_the_same_from_the_same_seed_and_the_state_keeps_the_chances():
    model, image = small().train(), torch.randn(2, 3, 64, 64)
    model.anneal(0.3)
    mask = torch.randint(-1, 3, (2, 64, 64))
    losses = []
    for _ in range(2):
        torch.manual_seed(7)
        losses.append(total_loss(model.decode(image), mask, aux_weights=model.aux_weights))
    assert torch.equal(*losses)
    again = small().train()
    again.load_state_dict(model.state_dict())
    torch.manual_seed(7)
    assert torch.equal(total_loss(again.decode(image), mask, aux_weights={}), losses[0])


def test_four_images_are_learned_by_heart_while_masks_are_annealed_away():
    model, generator, steps = small(), torch.Generator().manual_seed(0), 24
    mask = torch.randint(0, 3, (4, 4, 4), generator=generator).repeat_interleave(16, 1).repeat_interleave(16, 2)
    image = torch.nn.functional.one_hot(mask, 3).permute(0, 3, 1, 2) + torch.randn(4, 3, 64, 64, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        model.train().anneal(step / steps)
        loss = mask_loss(model.decode(image).answers, mask, MaskLoss(points=1000))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert (model.eval().label_map(image).long() == mask).double().mean() > 0.97
    assert len(model.decode(image).answers) == 1


@torch.no_grad()
def test_evaluation_is_not_random_and_leaves_masks_where_they_are_mostly_annealed_away():
    model, image = small().eval(), torch.randn(1, 3, 64, 64)
    plain = model(image)
    model.decoder.mask_chances.fill_(0.4)
    assert torch.equal(model(image), plain)
    model.decoder.mask_chances.fill_(0.6)
    assert torch.equal(model(image), model(image))
    assert len(model.decode(image).answers) == 4
    assert not torch.equal(model(image), plain)


def test_without_masked_attention_there_is_one_answer_and_nothing_to_anneal():
    model = small(masked_attention=False).train()
    model.anneal(0.0)
    assert model.decoder.mask_chances.sum() == 0
    assert len(model.decode(torch.randn(1, 3, 64, 64)).answers) == 1


@torch.no_grad()
def test_logits_at_the_masks_size_are_of_the_same_masks():
    coarse, fine = small(full_size=False).eval(), small().eval()
    image = torch.randn(1, 3, 64, 96)
    decoded = coarse.decode(image)
    assert decoded.logits.shape == (1, 3, 16, 24)
    assert torch.equal(decoded.logits, class_logits(fine.decode(image).answers[-1]))
    assert fine.decode(image).logits.shape == (1, 3, 64, 96)
    agree = (coarse.label_map(image) == fine.label_map(image)).float().mean()
    assert agree > 0.7


@torch.no_grad()
def test_patches_that_do_not_divide_tiles_are_answered_for_each_pixel():
    model, image = small(patch=14, image_size=70).eval(), torch.randn(2, 3, 64, 96)
    assert output_stride(model) == 1
    logits = averaged_logits(model, image.numpy(), stride=1, flips=False, scales=(1.0,))
    torch.testing.assert_close(logits, model(image))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "mit-b0"}, "plain transformer"),
        ({"query_blocks": 13}, "has 12 blocks"),
        ({"queries": 0}, "from 1 on"),
        ({"full_size": "yes"}, "true or false"),
    ],
)
def test_what_cannot_be_built_says_what_can(options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create("eomt-s", classes=3, **options)
