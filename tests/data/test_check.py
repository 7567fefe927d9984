import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import DataConfig
from pixelwise.data import check
from pixelwise.data.check import require_usable, survey
from pixelwise.data.scenes import open_scenes
from pixelwise.errors import DataError


def write(path, array, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=Affine.translation(1, 1), **shape, **profile) as out:
        out.write(array)


@pytest.fixture
def project(tmp_path):
    """Three scenes of random values, with nodata in the second."""
    rng = np.random.default_rng(0)
    for i in range(3):
        image = rng.integers(0 if i == 1 else 1, 4 if i == 1 else 250, (2, 60, 40)).astype(np.uint8)
        write(tmp_path / f"images/{i}.tif", image, nodata=0)
        write(tmp_path / f"masks/{i}.tif", rng.choice([0, 1, 2, 255], (1, 60, 40)).astype(np.uint8))
    return tmp_path


def config(project):
    return DataConfig(images=project / "images", labels=project / "masks", classes=["a", "b", "c"])


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("strip", [40, 280, 10**6])
def test_counts_and_statistics_are_those_of_all_pixels_at_once(project, monkeypatch, resident, strip):
    monkeypatch.setattr(check, "STRIP_PIXELS", strip)
    classes, scenes = open_scenes(config(project))
    for scene in scenes:
        scene.resident = resident
    found = survey(scenes, classes)
    pixels, labels = [], []
    for i in range(3):
        with rasterio.open(project / f"images/{i}.tif") as image, rasterio.open(project / f"masks/{i}.tif") as mask:
            values = image.read()
            inside = (values != 0).any(axis=0)
            pixels.append(values[:, inside])
            labels.append(np.where(inside, mask.read(1), 255).ravel())
    pixels, labels = np.concatenate(pixels, axis=1), np.concatenate(labels)
    assert found.class_pixels.tolist() == [(labels == k).sum() for k in range(3)]
    assert found.ignored == (labels == 255).sum()
    np.testing.assert_allclose(found.statistics.mean, pixels.mean(axis=1))
    np.testing.assert_allclose(found.statistics.std, pixels.std(axis=1))
    assert found.problems == ()


@given(st.floats(0.2, 0.95))
def test_a_truncated_tiff_is_named_before_training(tmp_path_factory, share):
    project = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for i in range(2):
        write(project / f"images/{i}.tif", rng.integers(1, 250, (2, 60, 40)).astype(np.uint8))
        write(project / f"masks/{i}.tif", rng.integers(0, 3, (1, 60, 40)).astype(np.uint8))
    path = project / "images/1.tif"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    # The system may notice the cut when it opens the file or when it reads it; both come before training.
    with pytest.raises(DataError, match=r"1\.tif"):  # noqa: PT012
        classes, scenes = open_scenes(config(project))
        require_usable(survey(scenes, classes), classes, "training")


def test_all_broken_files_are_counted_and_the_others_are_still_read(project):
    classes, scenes = open_scenes(config(project))
    for i in (0, 2):
        path = project / f"masks/{i}.tif"
        path.write_bytes(path.read_bytes()[:1000])
    names = []
    found = survey(scenes, classes, advance=names.append)
    (said,) = found.problems
    assert "masks/0.tif" in said
    assert "masks/2.tif" in said
    assert "1 more:" in said
    assert names == ["0", "1", "2"]
    assert found.class_pixels.sum() > 0


def test_scenes_without_any_labelled_pixel_are_an_error(project):
    for i in range(3):
        write(project / f"masks/{i}.tif", np.full((1, 60, 40), 255, np.uint8))
    classes, scenes = open_scenes(config(project))
    with pytest.raises(DataError, match=r"No pixel of the training scenes"):
        require_usable(survey(scenes, classes), classes, "training")
