"""Which sample is in which part of the split, as training would divide them; no image is opened."""

import numpy as np
from jaxtyping import Int16

from pixelwise.config import Config
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.folder import distinct_names
from pixelwise.data.scenes import Part, Scene
from pixelwise.data.split import split_scenes
from pixelwise.data.split_lists import PARTS, list_paths
from pixelwise.geo.raster import RasterReader, Window
from pixelwise.labels import IGNORE


class _Unlabelled:
    """Labels that nobody reads: a split asks for headers alone."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        return np.full((window.height, window.width), IGNORE, np.int16)


def divide(samples: list[Sample], config: Config) -> dict[int, dict[str, Part | None]]:
    """Return sample (by ``id``) -> part -> which of its pixels belong to it (None: all); without those in no part.

    Raises:
        ConfigError, DataError: as `split_scenes` says.
    """
    data = config.data
    own = [sample for sample in samples if not sample.apart]
    lists = list_paths(data)
    if data.validation_images is not None:
        data = data.model_copy(update={"validation": 0.0})
        lists = {part: path for part, path in lists.items() if part != "validation"}
    scenes = []
    for sample, name in zip(own, distinct_names([sample.image for sample in own]), strict=True):
        assert sample.info is not None
        scenes.append(Scene(name, RasterReader(sample.info, bands=[1]), _Unlabelled()))
        scenes[-1].given = sample.given
    split = split_scenes(scenes, data, seed=config.train.seed, lists=lists)
    by_path = {sample.info.path: id(sample) for sample in own if sample.info is not None}
    found = dict[int, dict[str, Part | None]]()
    for part in PARTS:
        # Thousands of whole scenes share one table.
        whole: dict[str, Part | None] = {part: None}
        for scene in getattr(split, part):
            if scene.part is None:
                found[by_path[scene.info.path]] = whole
            else:
                found.setdefault(by_path[scene.info.path], {})[part] = scene.part
    for sample in samples:
        if sample.apart:
            found[id(sample)] = {"validation": None}
    return found
