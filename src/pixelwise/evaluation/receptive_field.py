"""What a network sees: effective receptive fields, as pictures and as numbers, and the cost of each layer.

The effective receptive field is the size of the gradient of one place of a map by all pixels, averaged over images (Luo
et al., NeurIPS 2016, arXiv 1701.04128). SegFormer (section 3.3, figure 2) compares DeepLabV3+ and itself by it.

A place has many channels. Their plain sum does not work: after a layer norm it is a constant, whose gradient is
rounding noise. So each image takes random weights for the channels. Squared and averaged, the gradients of these
weighted sums tend to the sum of the squared gradients of all channels (Hutchinson 1989, the estimator of a trace).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from pixelwise.config import DataConfig
from pixelwise.data.scenes import open_scenes
from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.geo.raster import Window
from pixelwise.inference.tiling import read_tile
from pixelwise.models import Segmenter, create, list_models
from pixelwise.models.cio import LayerTraffic, convolutional_traffic
from pixelwise.models.cost import Cost, layer_costs
from pixelwise.runs.model_folder import ModelCard, load_model
from pixelwise.runs.run_folder import open_finished_run

COLOURS = ((13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33))
"""From no gradient to the largest, evenly spaced: five colours of matplotlib's plasma."""
DECADES = 3
"""The picture's range, in powers of ten below the largest gradient."""
CELL, MARGIN = 224, 24


@dataclass(frozen=True)
class Field:
    """The effective receptive field of one stage."""

    stage: str
    gradient: Float64[np.ndarray, "H W"]
    """Root of the mean square of the gradient of the stage's centre by each pixel, its sum being 1."""

    def side(self, share: float) -> int:
        """Return the side, in pixels, of the smallest centred square that holds a share (0 to 1) of the gradient."""
        height, width = self.gradient.shape
        rows, columns = np.abs(np.arange(height) - height // 2), np.abs(np.arange(width) - width // 2)
        reach = np.maximum(rows[:, None], columns[None, :])
        held = np.cumsum(np.bincount(reach.ravel(), self.gradient.ravel()))
        return 2 * int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))) + 1


@dataclass(frozen=True)
class Analysis:
    """What is known of one network."""

    name: str
    fields: tuple[Field, ...]
    layers: dict[str, Cost]
    convolutions: tuple[LayerTraffic, ...]
    """In order of computation; a convolution that is used twice is listed twice."""

    @property
    def cio(self) -> int:
        """Return how many values all convolutions read and write."""
        return sum(layer.cio for layer in self.convolutions)

    @property
    def macs_over_cio(self) -> float:
        """Return the multiply-adds of all convolutions per value that they read or write."""
        return sum(layer.macs for layer in self.convolutions) / self.cio


def effective_receptive_fields(model: Segmenter, images: Iterable[Float[Tensor, "1 C H W"]]) -> tuple[Field, ...]:
    """Return the field of each map of the encoder, and of the decoder's map before its classifier (named head).

    Args:
        model: is put in evaluation mode meanwhile; no parameter's gradient changes.
        images: normalised, all of one size; the more, the smoother the fields.

    Raises:
        ConfigError: no image.
    """
    squares: dict[str, np.ndarray] = {}
    generator = torch.Generator().manual_seed(0)
    training = model.training
    model.eval()
    try:
        for image in images:
            image = image.detach().requires_grad_()
            for stage, one in _maps_by_stage(model, image).items():
                centre = one[0, :, one.shape[-2] // 2, one.shape[-1] // 2]
                weights = torch.randn(len(centre), generator=generator).to(centre)
                (gradient,) = torch.autograd.grad(weights @ centre, image, retain_graph=True)
                square = gradient[0].double().square().sum(dim=0).cpu().numpy()
                squares[stage] = squares.get(stage, 0.0) + square
    finally:
        model.train(training)
    if not squares:
        raise ConfigError("There is no image. Give at least one.")
    sizes = {stage: np.sqrt(total) for stage, total in squares.items()}
    return tuple(Field(stage, size / max(size.sum(), 1e-300)) for stage, size in sizes.items())


def _maps_by_stage(model: Segmenter, image: Tensor) -> dict[str, Tensor]:
    maps = model.encoder(image)
    # A decoder that works inside the encoder takes no maps.
    decoded = model.decode(image) if hasattr(model.decoder, "within") else model.decoder(maps)
    head = decoded.logits if decoded.features is None else decoded.features
    return {f"stage {i}": one for i, one in enumerate(maps, start=1)} | {"head": head}


def analyze(
    networks: Sequence[str],
    output: str | Path,
    *,
    images: int = 20,
    size: int = 512,
    report: Callable[[str], None] | None = None,
) -> list[Analysis]:
    """Look at networks side by side, and write ``fields.png`` and ``analysis.json`` into a folder.

    Args:
        networks: run folders, whose network looks at its own scenes, or names of `list_models`, which look at noise
            with fresh weights.
        images: how many to average over, at least 1.
        size: side of the images in pixels, a multiple of 32.
        report: called with a sentence per network.

    Raises:
        ConfigError: neither a run nor a name, or an unfit number.
    """
    if images < 1 or size < 32 or size % 32:
        raise ConfigError(f"images is at least 1 and size a multiple of 32; they are {images} and {size}.")
    found = []
    for network in networks:
        model, crops = _network_and_images(network, images, size)
        if report:
            report(f"{network}: {model.architecture.name}, {images} images of {size}x{size}.")
        fields = effective_receptive_fields(model, crops)
        costs, traffic = layer_costs(model, size=(size, size)), convolutional_traffic(model, (size, size))
        found.append(Analysis(network, fields, costs, tuple(traffic)))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "fields.png") as temporary:
        Image.fromarray(fields_picture(found)).save(temporary, format="PNG")
    with replacing(folder / "analysis.json") as temporary:
        temporary.write_text(json.dumps([_to_dict(one) for one in found], indent=1), encoding="utf-8")
    return found


def fields_picture(analyses: Sequence[Analysis]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the fields: a row per network, a column per stage; colours are logarithmic over `DECADES`."""
    columns = max(len(one.fields) for one in analyses)
    canvas = Image.new("RGB", (columns * (CELL + 8) + 8, len(analyses) * (CELL + 2 * MARGIN)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, one in enumerate(analyses):
        top = row * (CELL + 2 * MARGIN)
        pen.text((8, top + 6), one.name, fill="black")
        # The head stands in the last column, however many stages there are.
        places = [*range(len(one.fields) - 1), columns - 1]
        for place, field in zip(places, one.fields, strict=True):
            left = 8 + place * (CELL + 8)
            cell = Image.fromarray(_coloured(field.gradient)).resize((CELL, CELL), Image.Resampling.BILINEAR)
            canvas.paste(cell, (left, top + MARGIN))
            pen.text((left, top + MARGIN + CELL + 4), f"{field.stage}: 95 % in {field.side(0.95)} px", fill="black")
    return np.asarray(canvas)


def _coloured(gradient: Float64[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    level = 1 + np.log10(np.maximum(gradient / max(gradient.max(), 1e-300), 10.0**-DECADES)) / DECADES
    stops = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(level, stops, [c[i] for c in COLOURS]) for i in range(3)], axis=-1).astype(np.uint8)


def _network_and_images(network: str, images: int, size: int) -> tuple[Segmenter, list[Tensor]]:
    if network in list_models():
        model = create(network, classes=19)
        generator = torch.Generator().manual_seed(0)
        return model, [torch.randn(1, 3, size, size, generator=generator) for _ in range(images)]
    if not (Path(network) / "config.toml").exists():
        raise ConfigError(
            f"{network} is neither a run (it has no config.toml) nor a network. `pixelwise models` lists the networks.",
            code="PW307",
        )
    model, card, _ = load_model(network)
    _, config = open_finished_run(network)
    return model, _crops(config.data, card, images, size)


def _crops(data: DataConfig, card: ModelCard, images: int, size: int) -> list[Tensor]:
    """Return places in the run's scenes, one scene after the other; every call returns the same ones."""
    _, scenes = open_scenes(data)
    random = np.random.default_rng(0)
    crops = []
    for i in range(images):
        reader = scenes[i % len(scenes)].reader
        top = int(random.integers(0, max(1, reader.info.height - size + 1)))
        left = int(random.integers(0, max(1, reader.info.width - size + 1)))
        crops.append(torch.from_numpy(read_tile(reader, Window(top, left, size, size), card).image)[None])
    return crops


def _to_dict(analysis: Analysis) -> dict:
    return {
        "name": analysis.name,
        "fields": [{"stage": f.stage, "side_50": f.side(0.5), "side_95": f.side(0.95)} for f in analysis.fields],
        "cio": analysis.cio,
        "macs_over_cio": analysis.macs_over_cio,
        "layers": {name: asdict(cost) for name, cost in analysis.layers.items()},
        "convolutions": [{**asdict(layer), "macs_over_cio": layer.macs_over_cio} for layer in analysis.convolutions],
    }
