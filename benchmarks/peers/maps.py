"""How pixelwise and its peers map a scene, each as its own documentation has it, with one network for all.

The network is the fused one of a model folder. The other tools get its full-size logits from raw values, or from values
divided by 255 where the tool divides. So only the work around the network differs. Every function takes a model
folder, a scene, where the map goes, a tile and an overlap in pixels, and returns the path of the map.
"""

from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import Tensor, nn

# Where there is no build of torchvision for this torch, its two operators that others import are only named.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
OPERATORS.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import pixelwise as pw
from pixelwise.fast.allocator import keep_freed_memory

EMPTY = 255
"""What maps hold where there is no data, if a peer can be told."""


class FullSize(nn.Module):
    """Full-size logits of a model folder's network, from raw values divided by ``scale``."""

    def __init__(self, folder: Path, scale: float) -> None:
        super().__init__()
        keep_freed_memory()
        predictor = pw.load(folder, device="cpu")
        self.network, self.classes = predictor.model, len(predictor.classes)
        self.register_buffer("mean", torch.tensor(predictor.card.mean)[:, None, None] / scale)
        self.register_buffer("deviation", torch.tensor(predictor.card.std)[:, None, None] / scale)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [B,K,H,W]."""
        return self.network((image - self.mean) / self.deviation)


def pixelwise_map(folder: Path, scene: Path, output: Path, tile: int, overlap: int) -> Path:
    """Map by `Predictor.map_scene`."""
    keep_freed_memory()
    pw.load(folder, device="cpu").map_scene(scene, output, tile=tile, overlap=overlap, batch=1)
    return output


def geoai_spline(folder: Path, scene: Path, output: Path, tile: int, overlap: int) -> Path:
    """Map by `geoai.predict_geotiff`, whose default is to blend by a spline; argmax as its postprocess_fn."""
    from geoai.inference import predict_geotiff

    network = FullSize(folder, 1)
    predict_geotiff(
        network,
        str(scene),
        str(output),
        tile_size=tile,
        overlap=overlap,
        batch_size=1,
        num_classes=network.classes,
        output_dtype="uint8",
        output_nodata=EMPTY,
        preprocess_fn=lambda values: values,
        postprocess_fn=lambda logits: logits.argmax(0).astype(np.uint8),
        device="cpu",
        verbose=False,
    )
    return output


def geoai_segmentation(folder: Path, scene: Path, output: Path, tile: int, overlap: int) -> Path:
    """Map by what `geoai.semantic_segmentation` calls for a GeoTIFF once it has loaded a network."""
    from geoai.train import semantic_inference_on_geotiff

    network = FullSize(folder, 255)
    semantic_inference_on_geotiff(
        network,
        str(scene),
        str(output),
        window_size=tile,
        overlap=overlap,
        batch_size=1,
        num_classes=network.classes,
        device=torch.device("cpu"),
        quiet=True,
    )
    return output


def raster_vision(folder: Path, scene: Path, output: Path, tile: int, overlap: int, crop: int | None = None) -> Path:
    """Map by raster-vision's learner and labels: scores are averaged, or the rim of each tile is cut off."""
    from rastervision.core.data import ClassConfig, SemanticSegmentationLabels
    from rastervision.core.utils import calculate_required_padding
    from rastervision.pytorch_learner import (
        SemanticSegmentationGeoDataConfig,
        SemanticSegmentationLearner,
        SemanticSegmentationLearnerConfig,
        SemanticSegmentationSlidingWindowGeoDataset,
        SolverConfig,
    )

    network = FullSize(folder, 255)
    names = [f"class {i}" for i in range(network.classes)]
    config = ClassConfig(names=names, null_class=names[0])
    padding = None
    if crop is not None:
        with rasterio.open(scene) as file:
            size = file.height, file.width
        steps = (tile - overlap, tile - overlap)
        padding = calculate_required_padding(size, (tile, tile), steps, "both", crop)
    dataset = SemanticSegmentationSlidingWindowGeoDataset.from_uris(
        class_config=config,
        image_uri=str(scene),
        size=tile,
        stride=tile - overlap,
        padding=padding,
        pad_direction="end" if crop is None else "both",
    )
    data = SemanticSegmentationGeoDataConfig(class_config=config, num_workers=0)
    settings = SemanticSegmentationLearnerConfig(data=data, solver=SolverConfig(batch_sz=1))
    learner = SemanticSegmentationLearner(settings, model=network, training=False)
    predictions = learner.predict_dataset(
        dataset, raw_out=crop is None, numpy_out=True, predict_kw={"out_shape": (tile, tile)}, progress_bar=False
    )
    labels = SemanticSegmentationLabels.from_predictions(
        dataset.windows,
        predictions,
        extent=dataset.scene.extent,
        num_classes=network.classes,
        smooth=crop is None,
        crop_sz=crop,
    )
    transformer = dataset.scene.raster_source.crs_transformer
    if crop is None:
        labels.save(str(output.with_suffix("")), transformer, config, smooth_output=False)
    else:
        labels.save(str(output.with_suffix("")), transformer, config)
    return output.with_suffix("") / "labels.tif"


def raster_vision_crop(folder: Path, scene: Path, output: Path, tile: int, overlap: int) -> Path:
    """Map by raster-vision, with half of the overlap cut off on every side of a tile."""
    return raster_vision(folder, scene, output, tile, overlap, crop=overlap // 2)


def torchgeo(folder: Path, scene: Path, output: Path, tile: int, overlap: int) -> Path:
    """Map by torchgeo's dataset and sampler. It joins no tiles and writes no map; here later tiles cover earlier."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    network = FullSize(folder, 1).eval()
    dataset = RasterDataset(str(scene))
    sampler = GridGeoSampler(dataset, size=tile, stride=tile - overlap)
    with rasterio.open(scene) as file:
        profile = {"driver": "GTiff", "height": file.height, "width": file.width, "count": 1, "dtype": "uint8"}
        profile |= {"crs": file.crs, "transform": file.transform, "compress": "lzw", "nodata": EMPTY}
        step, left, top = file.transform.a, file.bounds.left, file.bounds.top
    labels = np.full((profile["height"], profile["width"]), EMPTY, np.uint8)
    for sample in DataLoader(dataset, sampler=sampler, collate_fn=stack_samples):
        with torch.inference_mode():
            found = network(sample["image"]).argmax(1)[0].to(torch.uint8).numpy()
        across, along = sample["bounds"][0][:2]
        row, column = round((top - along.stop) / step), round((across.start - left) / step)
        # The sampler starts at the lower left, and its last tiles reach beyond the scene.
        above = max(0, -row)
        place = labels[max(row, 0) : row + tile, column : column + tile]
        place[...] = found[above : above + place.shape[0], : place.shape[1]]
    with rasterio.open(output, "w", **profile) as file:
        file.write(labels, 1)
    return output


MAPS = {
    "pixelwise": pixelwise_map,
    "geoai predict_geotiff": geoai_spline,
    "geoai semantic_segmentation": geoai_segmentation,
    "raster-vision smooth": raster_vision,
    "raster-vision crop": raster_vision_crop,
    "torchgeo grid": torchgeo,
}
"""Name of a way -> how it makes the map."""
