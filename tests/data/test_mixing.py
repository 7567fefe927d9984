"""Crops that are pasted into others."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import AugmentConfig
from pixelwise.data.mixing import mix
from pixelwise.labels import IGNORE


def crops(seed, count=4, side=12, classes=5):
    """Crops whose first band says class and crop, so that each pixel shows where it is from and what it is."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(IGNORE, classes, (count, side, side), generator=generator)
    images = torch.stack([masks + 100.0 * torch.arange(count)[:, None, None], torch.randn(masks.shape)], dim=1)
    return images.float(), masks


def mixed(seed, **shares):
    images, masks = crops(seed)
    partners = images.roll(-1, 0), masks.roll(-1, 0)
    found = mix(images, masks, partners, AugmentConfig(**shares), [np.random.default_rng(seed)] * 4)
    return images, masks, *found


@given(seed=st.integers(0, 999), classmix=st.sampled_from([0.0, 0.5, 1.0]))
def test_each_pixel_keeps_its_own_label_and_all_its_bands(seed, classmix):
    before, _, images, masks = mixed(seed, classmix=classmix, cutmix=1 - classmix)
    origin = ((images[:, 0] - masks) / 100).round().long()
    assert torch.equal(images[:, 0], masks + 100.0 * origin)
    for i in range(4):
        assert set(origin[i].unique().tolist()) <= {i, (i + 1) % 4}
        source = before[:, 1].gather(0, origin[i][None])[0]
        assert torch.equal(images[i, 1], source)


@given(seed=st.integers(0, 999))
def test_classmix_pastes_half_of_the_classes_whole_and_no_ignored_pixel(seed):
    _, labels, images, masks = mixed(seed, classmix=1.0)
    for i in range(4):
        partner, pasted = labels[(i + 1) % 4], ((images[i, 0] - masks[i]) / 100).round().long() == (i + 1) % 4
        chosen = set(partner[pasted].tolist())
        present = set(partner.unique().tolist()) - {IGNORE}
        assert IGNORE not in chosen
        assert len(chosen) == len(present) // 2
        assert torch.equal(pasted, torch.isin(partner, torch.tensor(sorted(chosen), dtype=torch.long)))


@given(seed=st.integers(0, 999))
def test_cutmix_pastes_one_rectangle(seed):
    _, _, images, masks = mixed(seed, cutmix=1.0)
    for i in range(4):
        pasted = ((images[i, 0] - masks[i]) / 100).round().long() == (i + 1) % 4
        rows, columns = pasted.any(dim=1).nonzero().flatten(), pasted.any(dim=0).nonzero().flatten()
        if len(rows):
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_as_many_crops_are_mixed_as_asked_for():
    changed = [
        (images[i] != before[i]).any().item()
        for seed in range(100)
        for before, _, images, _ in [mixed(seed, classmix=0.3)]
        for i in range(4)
    ]
    assert abs(np.mean(changed) - 0.3) < 0.08, "0.3, three standard deviations of 400 draws"


def test_nothing_is_mixed_in_place():
    images, masks = crops(0)
    kept = images.clone(), masks.clone()
    mix(images, masks, (images, masks), AugmentConfig(cutmix=1.0), [np.random.default_rng(0)] * len(images))
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])
