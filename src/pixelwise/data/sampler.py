"""Random crops. Each depends only on (seed, epoch, position), and not on what a worker or process did before."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int16
from torch import Tensor

from pixelwise.config import AugmentConfig
from pixelwise.data.augment import Geometry, augment, draw_geometry, resample
from pixelwise.data.scenes import Scene
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE

TRIES = 8
"""How many windows are drawn before one without labelled pixels is taken."""


class Sampler:
    """Draws crops from scenes, each scene as often as it has room for crops."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        config: AugmentConfig,
        *,
        crop: int,
        seed: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.scenes = list(scenes)
        self.config = config
        self.crop = crop
        self.seed = seed
        self.mean, self.std = mean, std
        self._epoch = np.repeat(
            np.arange(len(scenes)), [max(1, round(s.info.height * s.info.width / crop**2)) for s in scenes]
        )

    @property
    def samples_per_epoch(self) -> int:
        """Crops in one pass over all scenes."""
        return len(self._epoch)

    def sample(self, number: int) -> tuple[Float32[np.ndarray, "C h w"], Int16[np.ndarray, "h w"]]:
        """Return the crop of a number: a normalised image and its mask, both of side ``crop``."""
        epoch, position = divmod(number, len(self._epoch))
        order = np.random.default_rng([self.seed, epoch]).permutation(self._epoch)
        scene = self.scenes[order[position]]
        rng = np.random.default_rng([self.seed, epoch, position])
        geometry = draw_geometry(self.config, rng)
        crop = scene.read_padded(_random_window(scene, geometry, self.crop, rng))
        for _ in range(TRIES - 1):
            if (crop.mask != IGNORE).any():
                break
            crop = scene.read_padded(_random_window(scene, geometry, self.crop, rng))
        rotate90 = self.config.rotate90 if self.config.rotate90 is not None else scene.info.crs is not None
        crop = resample(crop, geometry, self.crop)
        return augment(crop, self.config, rng, rotate90=rotate90, mean=self.mean, std=self.std)


def _random_window(scene: Scene, geometry: Geometry, crop: int, rng: np.random.Generator) -> Window:
    side = geometry.window_side(crop)
    # A smaller scene lies somewhere inside the window. read_padded mirrors and ignores the rest.
    low_top, high_top = sorted((0, scene.info.height - side))
    low_left, high_left = sorted((0, scene.info.width - side))
    top, left = int(rng.integers(low_top, high_top + 1)), int(rng.integers(low_left, high_left + 1))
    return Window(top, left, side, side)


def batches(
    sampler: Sampler, *, batch: int, first: int, last: int, workers: int
) -> Iterator[tuple[Float[Tensor, "B C H W"], Int[Tensor, "B H W"]]]:
    """Yield the batches of the steps ``first`` to ``last`` - 1, read ahead by threads.

    Threads share the resident scenes, and numpy, GDAL and torch release the interpreter's lock while they work.
    """

    def make(step: int) -> tuple[Tensor, Tensor]:
        samples = [sampler.sample(step * batch + i) for i in range(batch)]
        images, masks = zip(*samples, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)).long()

    if workers == 0:
        yield from map(make, range(first, last))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
        waiting: list[Future[tuple[Tensor, Tensor]]] = []
        try:
            for step in range(first, last):
                while len(waiting) <= 2 * workers and step + len(waiting) < last:
                    waiting.append(pool.submit(make, step + len(waiting)))
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
