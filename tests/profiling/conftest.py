"""A tiny U-Net as a model folder."""

import pytest
import torch
from small_network import card_of

import pixelwise as pw
from pixelwise.runs.model_folder import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = pw.create("unet", classes=3, bands=3, filters=[4, 8]).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("profiling") / "model"
    save_model(folder, network, card_of(network))
    return folder
