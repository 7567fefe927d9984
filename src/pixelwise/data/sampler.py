"""Random crops. Each depends only on (seed, epoch, position), and not on what a worker or process did before."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int16
from torch import Tensor

from pixelwise.config import AugmentConfig
from pixelwise.data.augment import Geometry, augment, draw_geometry, resample
from pixelwise.data.mixing import mix
from pixelwise.data.scenes import Crop, Scene
from pixelwise.data.targets import Place, Targets
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE

TRIES = 8
"""How many windows are drawn before one without labelled pixels is taken."""


MIXING = 0x3177
"""Parts the draws of a batch from those of its crops."""


class Batch(NamedTuple):
    """The crops of a step."""

    images: Float[Tensor, "B C H W"]
    masks: Int[Tensor, "B H W"]
    places: list[Place]
    """Where each crop is from, without what was pasted into it."""


class Sampler:
    """Draws crops from scenes, each scene as often as it has room for crops, or as often as it is aimed at."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        config: AugmentConfig,
        *,
        crop: int,
        seed: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        targets: Targets | None = None,
    ) -> None:
        self.targets = targets
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
        image, mask, _ = self.sample_with_place(number)
        return image, mask

    def sample_with_place(self, number: int) -> tuple[Float32[np.ndarray, "C h w"], Int16[np.ndarray, "h w"], Place]:
        """Return the crop of a number as `sample` does, and where it is from."""
        epoch, position = divmod(number, len(self._epoch))
        rng = np.random.default_rng([self.seed, epoch, position])
        geometry = draw_geometry(self.config, self.crop, rng)
        place = self.targets.draw(geometry.window_side(self.crop), rng) if self.targets else None
        if place is None:
            order = np.random.default_rng([self.seed, epoch]).permutation(self._epoch)
            place, crop = self._anywhere(int(order[position]), geometry, rng)
        else:
            crop = self.scenes[place.scene].read_padded(place.window)
        scene = self.scenes[place.scene]
        rotate90 = self.config.rotate90 if self.config.rotate90 is not None else scene.info.crs is not None
        crop = resample(crop, geometry, self.crop)
        image, mask = augment(crop, self.config, rng, rotate90=rotate90, mean=self.mean, std=self.std)
        return image, mask, place

    def batch(self, step: int, size: int, own: range | None = None) -> Batch:
        """Return the crops of a step, mixed as the configuration says.

        Args:
            size: of the whole batch.
            own: positions in it that are wanted; None: all.
        """
        own = range(size) if own is None else own
        images, masks, places = zip(*(self.sample_with_place(step * size + i) for i in own), strict=True)
        image, mask = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)).long()
        if self.config.classmix or self.config.cutmix:
            # The partner of a crop is the next one in the batch; of a crop that is alone in it, that of the next step.
            follower = image[:1], mask[:1]
            if size == 1 or len(own) < size:
                other, labels = self.sample(step * size + own.stop % size if size > 1 else step + 1)
                follower = torch.from_numpy(other)[None], torch.from_numpy(labels)[None].long()
            partners = torch.cat([image[1:], follower[0]]), torch.cat([mask[1:], follower[1]])
            rngs = [np.random.default_rng([self.seed, MIXING, step, i]) for i in own]
            image, mask = mix(image, mask, partners, self.config, rngs)
        return Batch(image, mask, list(places))

    def _anywhere(self, scene: int, geometry: Geometry, rng: np.random.Generator) -> tuple[Place, Crop]:
        whole = self.scenes[scene]
        place = Place(scene, _random_window(whole, geometry, self.crop, rng))
        crop = whole.read_padded(place.window)
        for _ in range(TRIES - 1):
            if (crop.mask != IGNORE).any():
                break
            place = Place(scene, _random_window(whole, geometry, self.crop, rng))
            crop = whole.read_padded(place.window)
        return place, crop


def _random_window(scene: Scene, geometry: Geometry, crop: int, rng: np.random.Generator) -> Window:
    side = geometry.window_side(crop)
    # A smaller scene lies somewhere inside the window. read_padded mirrors and ignores the rest.
    low_top, high_top = sorted((0, scene.info.height - side))
    low_left, high_left = sorted((0, scene.info.width - side))
    top, left = int(rng.integers(low_top, high_top + 1)), int(rng.integers(low_left, high_left + 1))
    return Window(top, left, side, side)


def batches(
    sampler: Sampler, *, batch: int, first: int, last: int, workers: int, own: range | None = None
) -> Iterator[Batch]:
    """Yield the batches of the steps ``first`` to ``last`` - 1, read ahead by threads.

    Threads share the resident scenes, and numpy, GDAL and torch release the interpreter's lock while they work.

    Args:
        own: positions in each batch that are wanted; None: all.
    """
    if workers == 0:
        yield from (sampler.batch(step, batch, own) for step in range(first, last))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
        waiting: list[Future[Batch]] = []
        try:
            for step in range(first, last):
                while len(waiting) <= 2 * workers and step + len(waiting) < last:
                    waiting.append(pool.submit(sampler.batch, step + len(waiting), batch, own))
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
