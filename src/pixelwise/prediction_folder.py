"""Prediction of all images in a folder; one that fails does not stop the others."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pixelwise.data.folder import find_images
from pixelwise.errors import ConfigError, DataError
from pixelwise.files import ensure_folder
from pixelwise.geo.label_map import confidence_path, probabilities_path
from pixelwise.geo.outputs import made_here
from pixelwise.geo.raster import describe
from pixelwise.predictor import Predictor


def predict_folder(
    predictor: Predictor,
    images: str | Path,
    output: str | Path,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    confidence: bool = False,
    probabilities: bool = False,
    cog: bool = False,
    area: str | Path | None = None,
    on: str | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Path]:
    """Predict one image or all in a folder: a GeoTIFF for each scene, a palette PNG and an overlay for each photo.

    Files keep their places in subfolders. One that cannot be read, or whose output would replace a file of somebody
    else, does not stop the others.

    Args:
        images: a folder, or one file.
        output: a folder; what it holds is not taken for images.
        confidence, probabilities, cog, area, batch, on: for scenes, as `Predictor.map_scene` takes them.
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
                made = predictor.map_scene(
                    path,
                    target,
                    tile=tile,
                    overlap=overlap,
                    batch=batch,
                    flips=flips,
                    scales=scales,
                    confidence=confidence,
                    probabilities=probabilities,
                    cog=cog,
                    area=area,
                    on=on,
                    say=report,
                )
                written += made.files
            else:
                result = predictor.segment(path, tile=tile, overlap=overlap, flips=flips, scales=scales)
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
            + (f" Also:{others}" if others else "")
        )
    return written


def _free(path: Path) -> Path:
    # The user named the folder, not the file.
    if os.path.lexists(path) and not made_here(path):
        raise DataError(f"{path} is there and not from pixelwise, so it is kept. Move it, or choose another folder.")
    return path


def _targets(images: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair each image with its output, which lacks the suffix yet."""
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
