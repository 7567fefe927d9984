"""Evaluation on images that differ from the training images: in units, and in ground resolution."""

import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from small_run import NETWORK

from pixelwise.config import Config
from pixelwise.errors import ContractWarning, DataError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.inference.options import Fit
from pixelwise.training.train import train


def write(folder, change=lambda values: values, times: int = 1):
    """Write four scenes on the ground and their masks, each pixel repeated so many times in both directions."""
    rng = np.random.default_rng(5)
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int))
        image = (mask * 100 + rng.integers(1, 100, (3, 64, 64))).astype(np.uint8)
        place = Affine(2 / times, 0, 500_000 + 1000 * i, 0, -2 / times, 5_000_000)
        for kind, bands in (("images", change(image)), ("masks", mask[None].astype(np.uint8))):
            bands = np.kron(bands, np.ones((1, times, times), bands.dtype))
            path = folder / kind / f"{i}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
            with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape) as out:
                out.write(bands)
    return folder


def config(data, run) -> Config:
    table = {
        "data": {
            "images": data / "images",
            "labels": data / "masks",
            "classes": ["dark", "bright"],
            "validation": 0.25,
        },
        "model": NETWORK,
        "train": {"steps": 2, "batch_size": 1, "crop_size": 32, "workers": 0, "device": "cpu"},
        "predict": {"tile": 64, "overlap": 0},
        "run": {"folder": run},
    }
    return Config.model_validate(table)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    train(config(write(folder / "own"), folder / "run"))
    return folder


def test_other_units_are_refused_and_score_the_same_when_they_are_converted(run):
    own = evaluate(run / "run", config(run / "own", run / "run"), name="own")
    other = config(write(run / "wide", lambda values: values.astype(np.uint16) * 257), run / "run")
    with pytest.raises(DataError, match="uint16"):
        evaluate(run / "run", other)
    with pytest.warns(ContractWarning, match="0 to 65,535 to 0 to 255"):
        found = evaluate(run / "run", other, fit=Fit(units="convert"))
    np.testing.assert_array_equal(found.matrix, own.matrix)


def test_finer_pixels_score_the_same_at_the_models_resolution(run):
    own = evaluate(run / "run", config(run / "own", run / "run"), name="again")
    other = config(write(run / "fine", times=2), run / "run")
    with pytest.warns(ContractWarning, match=r"pixels of 0\.999 m .*The same is wrong with 3 more"):
        plain = evaluate(run / "run", other)
    assert plain.matrix.sum() == 4 * own.matrix.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContractWarning)
        found = evaluate(run / "run", other, fit=Fit(resolution="model"))
    np.testing.assert_array_equal(found.matrix, own.matrix)
    # Another fit is another evaluation, and takes no name from the first.
    assert found.name != plain.name
