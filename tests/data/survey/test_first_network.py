"""Which network `pixelwise init` proposes."""

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import load_config
from pixelwise.data.survey.proposal import Machine, propose
from pixelwise.data.survey.toml import to_toml


def proposed(folder, mode, machine):
    """Draw four images with masks, and return what is proposed for them."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), np.int64)).astype(np.uint8)
        values = (90 * mask + rng.integers(0, 90, mask.shape)).astype(np.uint8)
        Image.fromarray(values).convert(mode).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    found = propose(folder, machine=machine, ask=lambda question, answers: 0)
    path = folder / "mine.toml"
    path.write_text(to_toml(found, path), encoding="utf-8")
    return load_config(path), " ".join(found.guessed)


def test_images_in_colour_start_from_imagenet_where_its_weights_are_installed(tmp_path):
    config, guessed = proposed(tmp_path, "RGB", Machine(pretrained=True))
    assert (config.model.name, config.model.weights) == ("segformer-b0", "imagenet")
    assert config.model.options == {"encoder": "efficientnet-lite0"}
    assert "ImageNet" in guessed


@pytest.mark.parametrize(("mode", "installed"), [("RGB", False), ("L", True), ("L", False)])
def test_others_start_from_scratch_and_only_those_in_colour_hear_of_imagenet(tmp_path, mode, installed):
    config, guessed = proposed(tmp_path, mode, Machine(pretrained=installed))
    assert (config.model.name, config.model.weights, config.model.options) == ("segformer-b0", None, {})
    assert ("pip install 'pixelwise[pretrained]'" in guessed) == (mode == "RGB")
