"""What a user holds: a trained model that answers for a photo, a scene of any size, or a folder of both."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.data.annotations import WRITERS
from pixelwise.data.annotations.formats import WRITTEN
from pixelwise.data.annotations.labelme import written_path as labelme_path
from pixelwise.data.annotations.traced import TracedImage, trace
from pixelwise.data.folder import find_images
from pixelwise.errors import ConfigError, DataError, WeightsError
from pixelwise.exported.network_file import is_exported, load_exported
from pixelwise.exported.runtimes import SUFFIXES
from pixelwise.files import ensure_folder
from pixelwise.geo.label_map import confidence_path, label_nodata, probabilities_path, to_picture
from pixelwise.geo.outputs import made_here
from pixelwise.geo.raster import RasterInfo, Readable, Window, describe
from pixelwise.inference.fitting import fitted, open_fitting
from pixelwise.inference.images import open_array
from pixelwise.inference.networks import ArrayNetwork, Network
from pixelwise.inference.options import Fit, TileOptions
from pixelwise.inference.segmentation import Segmentation, provenance
from pixelwise.inference.tiling import predict_strips
from pixelwise.labels import Classes
from pixelwise.machine import free_memory
from pixelwise.mapping.forecast import Forecast
from pixelwise.mapping.map_scene import forecast_scene, map_scene
from pixelwise.mapping.options import MapOptions
from pixelwise.mapping.write_map import SceneMap
from pixelwise.optional import torch_needed
from pixelwise.runs.model_card import ModelCard

PIXEL_BYTES = 16
"""Of memory for a pixel of a `Segmentation`, besides the image: classes, confidence, a picture, and their parts."""

Picture = str | Path | Image.Image | np.ndarray


class Predictor:
    """A trained network with its normalisation: takes raw units, answers with classes."""

    def __init__(self, model: Network, card: ModelCard, model_hash: str) -> None:
        self.model = model if isinstance(model, ArrayNetwork) else _fused(model)
        self.card = card
        self.model_hash = model_hash

    @property
    def classes(self) -> Classes:
        """Names and colours of the classes."""
        return self.card.classes

    def segment(
        self,
        image: Picture,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        flips: bool = False,
        scales: Sequence[float] = (1.0,),
        units: str = "refuse",
        resolution: str = "own",
    ) -> Segmentation:
        """Find the class of every pixel of an image that fits in memory.

        Args:
            image: a path, a PIL image, or an array [H,W] or [H,W,C], in the raw units of the training images.
            tile, overlap, flips, scales: as in `TileOptions`.
            units, resolution: as in `Fit`.

        Raises:
            DataError: a file that cannot be read, or other bands or units than the model's.
            ConfigError: a tile or a scale that does not work.
        """
        return self._segment(image, TileOptions(tile, overlap, flips, tuple(scales), fit=Fit(units, resolution)))

    def map_scene(
        self,
        scene: str | Path,
        output: str | Path,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        flips: bool = False,
        scales: Sequence[float] = (1.0,),
        units: str = "refuse",
        resolution: str = "own",
        confidence: bool = False,
        probabilities: bool = False,
        cog: bool = False,
        aoi: str | Path | None = None,
        on: str | None = None,
        area: str | Path | None = None,
        devices: str | None = None,
        advance: Callable[[float], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> SceneMap:
        """Map a scene of any size to a GeoTIFF; memory does not grow with it (`pixelwise.mapping.map_scene`).

        Args:
            tile, overlap, batch, flips, scales: as in `TileOptions`.
            units, resolution: as in `Fit`.
            confidence, probabilities, cog, aoi, on: as in `MapOptions`.
            area: the name that ``aoi`` had.
            devices: such as 'cuda:0,cuda:1', which share the scene; None: the one that the network is on.
            advance: called with the share that is done, 0 to 1.
            say: called with what the user should know, such as that the work goes on where an earlier start ended.

        Raises:
            DataError: a scene that cannot be read, or other bands or units than the model's.
            ConfigError: an output that cannot be written, or a tile or a scale that does not work.
        """
        tiles = TileOptions(tile, overlap, flips, tuple(scales), batch, Fit(units, resolution))
        shared = () if devices is None else _several(devices)
        options = MapOptions(confidence, probabilities, cog, _aoi(aoi, area), on, shared)
        return self._map(scene, output, tiles, options, advance=advance, say=say)

    def forecast(
        self,
        scene: str | Path,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        flips: bool = False,
        scales: Sequence[float] = (1.0,),
        units: str = "refuse",
        resolution: str = "own",
        confidence: bool = False,
        probabilities: bool = False,
        aoi: str | Path | None = None,
        area: str | Path | None = None,
    ) -> Forecast:
        """Tell what `map_scene` will take, at most, after trying one tile; arguments and errors are the same."""
        tiles = TileOptions(tile, overlap, flips, tuple(scales), batch, Fit(units, resolution))
        options = MapOptions(confidence, probabilities, aoi=_aoi(aoi, area))
        return forecast_scene(self.model, self.card, scene, tiles, options)

    def _map(
        self,
        scene: str | Path,
        output: str | Path,
        tiles: TileOptions,
        options: MapOptions,
        *,
        advance: Callable[[float], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> SceneMap:
        model, card, model_hash = self.model, self.card, self.model_hash
        return map_scene(model, card, scene, output, tiles, options, model_hash=model_hash, advance=advance, say=say)

    def _segment(self, image: Picture, tiles: TileOptions) -> Segmentation:
        reader = self._open(image, tiles.fit)
        _require_memory(reader.info)
        strips = list(predict_strips(self.model, reader, self.card, tiles, confidence=True))
        valid, labels = (np.concatenate(part) for part in zip(*((s.valid, s.labels) for s in strips), strict=True))
        confidence = np.concatenate([strip.confidence for strip in strips if strip.confidence is not None])
        info = reader.info
        values, _ = reader.read(Window(0, 0, info.height, info.width))
        if not valid.all():
            empty = label_nodata(len(self.classes))
            labels = labels.astype(np.uint16) if empty > np.iinfo(labels.dtype).max else labels
            labels = np.where(valid, labels, np.asarray(empty, labels.dtype))
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Segmentation(
            labels=labels,
            confidence=np.where(valid, confidence, np.float32(0)),
            valid=valid,
            classes=self.classes,
            picture=to_picture(values, valid),
            info=info if isinstance(image, str | Path) else None,
            tags={**provenance(self.card, self.model_hash), "PIXELWISE_DATE": date},
        )

    def _open(self, image: Picture, fit: Fit) -> Readable:
        if isinstance(image, str | Path):
            return open_fitting(Path(image), self.card, fit)
        return fitted(open_array(image, self.card), self.card, fit)


def _fused(model: Any) -> Network:
    from pixelwise.fast.fuse import fuse

    return fuse(model)


def _several(devices: str) -> tuple[Any, ...]:
    with torch_needed("A scene that several devices share"):
        from pixelwise.device import choose_devices
    return choose_devices(devices)


def _aoi(aoi: str | Path | None, area: str | Path | None) -> str | Path | None:
    """Return the area of interest, under its own name or the one it had."""
    if area is None:
        return aoi
    # The caller of the public method.
    warnings.warn("area= is aoi= now. The old name still works.", DeprecationWarning, stacklevel=3)
    return area


def _require_memory(info: RasterInfo) -> None:
    """Check that a whole image, its classes and its picture fit into memory.

    Raises:
        DataError: they do not.
    """
    needed = info.height * info.width * (2 * info.count * np.dtype(info.dtype).itemsize + PIXEL_BYTES)
    room = free_memory()
    if room is not None and needed > room:
        raise DataError(
            f"{info.path} has {info.width}x{info.height} pixels, which need {needed / 1e9:,.1f} GB, but "
            f"{room / 1e9:,.1f} GB are free. Map it piece by piece, with an output that ends in .tif.",
            code="PW904",
        )


def load(folder: str | Path, *, device: str = "auto", options: Mapping[str, object] | None = None) -> Predictor:
    """Load a run's best model, a model folder, or an exported file, for prediction.

    Args:
        folder: or a file that ends in .onnx, .xml (OpenVINO) or .pt2 (torch).
        device: 'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one.
        options: the paper's options for inference, such as ``{"output_stride": 8}``; others are the model's. Of an
            ONNX file that others made: what it takes and gives (`docs/export.md`).

    Raises:
        WeightsError: no model there, a damaged one, or options that the weights do not fit.
        ConfigError: a device that this machine does not have, or an option that the network does not have.
        MissingExtraError: the file's runtime is not installed.
    """
    path = Path(folder)
    if path.is_file() and not is_exported(path):
        beside = path.with_suffix(".xml")
        raise WeightsError(
            f"{path} is a file that is not loaded. Name {beside}, to which it belongs."
            if path.suffix.lower() == ".bin" and beside.is_file()
            else f"{path} is no exported file: those end in {', '.join(SUFFIXES)}. Name one, or a run or model folder."
        )
    if is_exported(folder):
        return Predictor(*load_exported(path, device, options))
    with torch_needed(f"{folder} is a run or a model folder, which"):
        from pixelwise.device import choose_device
        from pixelwise.runs.model_folder import load_model
    model, card, model_hash = load_model(folder, options=options)
    return Predictor(model.to(choose_device(device)), card, model_hash)


def predict_folder(
    predictor: Predictor,
    images: str | Path,
    output: str | Path,
    tiles: TileOptions,
    options: MapOptions,
    *,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Predict one image or all in a folder: a GeoTIFF for each scene, a palette PNG and an overlay for each photo.

    Files keep their places in subfolders. One that cannot be read, or whose output would replace a file of somebody
    else, does not stop the others.

    Args:
        images: a folder, or one file.
        output: a folder; what it holds is not taken for images.
        options: for scenes.
        report: called with a sentence after each file.

    Returns:
        the files written.

    Raises:
        ConfigError: an output that is the folder of images, or two images with the same output.
        DataError: at the end, naming the files that failed.
    """
    images, output = Path(images), ensure_folder(output)
    written, failed = [], []
    for path, target in _targets(images, output):
        try:
            if describe(path).crs is not None:
                target = _free(target.with_name(f"{target.name}.tif"))
                made = predictor._map(path, target, tiles, options, say=report)
                written += made.files
            else:
                result = predictor._segment(path, tiles)
                labels, picture = (_free(target.with_name(f"{target.name}{end}")) for end in (".png", ".overlay.jpg"))
                result.save(labels)
                result.save_overlay(picture)
                written += [labels, picture]
        except DataError as error:
            failed.append((path, str(error)))
            continue
        if report:
            report(f"{path} -> {written[-1]}")
    if failed:
        reasons = " ".join(reason for _, reason in failed[:5])
        others = "".join(f" {path}" for path, _ in failed[5:])
        raise DataError(
            f"{len(failed)} of the images in {images} failed; the others are in {output}. {reasons}"
            + (f" Also:{others}" if others else ""),
            code="PW417",
        )
    return written


def predict_annotations(
    predictor: Predictor,
    images: str | Path,
    output: str | Path,
    tiles: TileOptions,
    format: str,
    *,
    simplify: float = 0.0,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Predict one image or all in a folder, and write what was found as annotations that a person corrects.

    Files that are there already are kept, since somebody may have corrected them.

    Args:
        images: a folder, or one file.
        output: a folder.
        format: 'coco', 'labelme', 'cvat' or 'label-studio'.
        simplify: as `trace` takes it.
        report: called with a sentence after each image.

    Returns:
        the files written.

    Raises:
        ConfigError: annotations that are there, or an unknown format.
        DataError: an image that does not work.
    """
    images, output = Path(images), ensure_folder(output)
    if format not in WRITERS:
        raise ConfigError(f"Annotations are not written as {format!r}. Choose {', '.join(WRITERS)}.")
    if tiles.fit.resolution == "model":
        raise ConfigError(
            "Annotations are drawn in the pixels of the images themselves, so resolution = 'model' does not go with "
            "them. Leave it out."
        )
    base = images if images.is_dir() else images.parent
    paths = [path for path in find_images(images) if output.resolve() not in path.resolve().parents]
    if format == "labelme":
        # One file for each image: what is there may be a person's work, and the others are made.
        free = [path for path in paths if not labelme_path(output, path.relative_to(base).as_posix()).exists()]
        if report and len(free) < len(paths):
            report(f"{len(paths) - len(free)} images have a file in {output} already, which is kept.")
        paths = free
    elif kept := [path for name in WRITTEN[format] if (path := output / name).exists()]:
        raise ConfigError(f"{kept[0]} is there, and may have been corrected, so it is kept. Choose another folder.")
    traced: list[TracedImage] = []
    written: list[Path] = []
    for path in paths:
        found = predictor._segment(path, tiles)
        regions = trace(found.labels, found.valid, predictor.classes, simplify=simplify)
        height, width = found.labels.shape
        traced.append(TracedImage(path, path.relative_to(base).as_posix(), height, width, regions))
        if report:
            report(f"{path}: {len(regions)} regions")
        if format == "labelme":
            written += WRITERS[format](output, [traced.pop()], predictor.classes)
    return written if format == "labelme" else WRITERS[format](output, traced, predictor.classes)


def _free(path: Path) -> Path:
    # The user named the folder, not the file.
    if os.path.lexists(path) and not made_here(path):
        raise DataError(f"{path} is there and not from pixelwise, so it is kept. Move it, or choose another folder.")
    return path


def _targets(images: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair each image with its output, without the suffix."""
    base = images if images.is_dir() else images.parent
    if output.resolve() == base.resolve():
        raise ConfigError(f"{output} is the folder of the images themselves. Choose another, so that they are kept.")
    taken: dict[Path, Path] = {}
    for path in find_images(images):
        if output.resolve() in path.resolve().parents:
            continue
        target = output / path.relative_to(base).with_suffix("")
        if target in taken:
            raise ConfigError(f"{path} and {taken[target]} would be written to the same files. Rename one of them.")
        taken[target] = path
    for target, path in taken.items():
        label_map = target.with_name(f"{target.name}.tif")
        for product in (confidence_path(label_map), probabilities_path(label_map)):
            if product.with_suffix("") in taken:
                other = taken[product.with_suffix("")]
                raise ConfigError(f"{other} would be written to {product}, a file beside the map of {path}. Rename it.")
    return [(path, target) for target, path in taken.items()]
