"""A few fixed crops of the validation part, with their truth and what the network says of them at each evaluation."""

from collections.abc import Sequence

import numpy as np
import torch

from pixelwise.data.scenes import Scene
from pixelwise.evaluation.pictures import Picture
from pixelwise.geo.raster import Window, clip_window, normalize
from pixelwise.labels import IGNORE
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard

COUNT = 4
PLACES = 3
"""Of each scene so many rows and columns of windows are looked at, for the one with most in it."""
SHOWN = 512
"""Longest side of a picture; larger crops keep every n-th pixel."""


def choose_windows(scenes: Sequence[Scene], side: int, count: int = COUNT) -> list[tuple[Scene, Window]]:
    """Choose windows that hold as many classes as evenly as possible, from scenes spread over the list.

    Args:
        side: of a window, in pixels. One of a smaller scene reaches beyond it.
    """
    spread = np.unique(np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int))
    return [(scenes[i], _fullest(scenes[i], side)) for i in spread] if len(scenes) else []


def _fullest(scene: Scene, side: int) -> Window:
    tops, lefts = (
        np.unique(np.linspace(0, max(0, length - side), PLACES).round().astype(int)).tolist()
        for length in (scene.info.height, scene.info.width)
    )
    windows = [Window(top, left, side, side) for top in tops for left in lefts]
    return max(windows, key=lambda window: _entropy(scene.read_padded(window).mask))


def _entropy(mask: np.ndarray) -> float:
    # Pixels without a label add nothing, so a window that is half empty counts half.
    share = np.bincount(mask[mask != IGNORE]) / mask.size
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() + 1e-3 * share.sum())


@torch.no_grad()
def sample_pictures(model: Segmenter, chosen: Sequence[tuple[Scene, Window]], card: ModelCard) -> list[Picture]:
    """Return the crops with their truth and the network's classes, as far as they lie in their scenes.

    Args:
        model: in evaluation mode.
    """
    device = next(model.parameters()).device
    pictures = []
    for scene, window in chosen:
        crop = scene.read_padded(window)
        image = torch.from_numpy(normalize(crop.values, crop.valid, card.mean, card.std))
        labels = model.label_map(image[None].to(device))[0].cpu().numpy()
        inside, (above, _), (before, _) = clip_window(window, scene.info.height, scene.info.width)
        step = -(-max(inside.height, inside.width) // SHOWN)
        shown = np.s_[..., above : above + inside.height : step, before : before + inside.width : step]
        name = f"{scene.name}, row {inside.top}, column {inside.left}"
        pictures.append(Picture(name, crop.values[shown], crop.mask[shown], labels[shown], None))
    return pictures
