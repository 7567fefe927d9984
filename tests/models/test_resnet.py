"""ResNet's sizes, beside those that torchvision publishes for its definitions, less their classifiers."""

import pytest
import torch

from pixelwise.models import ENCODERS

PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_it_has_as_many_parameters_as_published(depth):
    with torch.device("meta"):
        encoder = ENCODERS[f"resnet{depth}"](3)
    classifier = 1000 * encoder.channels[-1] + 1000
    assert sum(p.numel() for p in encoder.parameters()) == PUBLISHED[depth] - classifier
