"""Tiny backbones of transformers in folders, as save_pretrained writes them, and in a hub's cache."""

import shutil
from pathlib import Path

import torch
from transformers import (
    ConvNextV2Config,
    ConvNextV2Model,
    Dinov2Config,
    Dinov2Model,
    HieraConfig,
    HieraModel,
    SwinConfig,
    SwinModel,
)

DEPTHS, HEADS = [1, 1, 1, 1], [1, 1, 2, 2]
KINDS = {
    "dino": (
        Dinov2Model,
        Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14),
    ),
    "convnext": (ConvNextV2Model, ConvNextV2Config(hidden_sizes=[8, 12, 16, 20], depths=DEPTHS)),
    "swin": (SwinModel, SwinConfig(embed_dim=12, depths=DEPTHS, num_heads=HEADS, window_size=4)),
    "hiera": (HieraModel, HieraConfig(embed_dim=8, depths=DEPTHS, num_heads=HEADS, image_size=[64, 64])),
}
CARD = "---\nlicense: apache-2.0\n---\n"


def write_backbone(kind: str, folder: Path, card: str = CARD) -> Path:
    """Save a tiny network with random numbers everywhere, norms and layer scales too."""
    model_class, config = KINDS[kind]
    model = model_class(config)
    generator = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    (folder / "README.md").write_text(card)
    return folder


def fill_cache(cache: Path, name: str, folder: Path) -> None:
    """Lay out a folder as huggingface_hub keeps what it fetched."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123456789abcdef")
    shutil.copytree(folder, place / "snapshots" / "0123456789abcdef")
