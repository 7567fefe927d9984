"""Corrected copies: what is written is right, and what the user made stays as it was."""

import numpy as np
import planted_faults as faults
import pytest
from PIL import Image
from planted import COLOURS, COUNT
from test_planted import planted, templates  # noqa: F401 - fixtures

from pixelwise.config import load_config
from pixelwise.data.doctor import examine
from pixelwise.data.doctor.fix import fix
from pixelwise.errors import ConfigError

CURED = {
    "counted from 1": 1.0,
    "half the size": 0.9,
    "smooth edges": 0.9,
    "through JPEG": 0.99,
    "stretched to look at": 1.0,
    "names by case": 1.0,
}
"""Fault -> share of the pixels of the clean mask that the copy has again."""


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def raster(path):
    import rasterio

    with rasterio.open(path) as file:
        return file.read()


@pytest.mark.parametrize("fault", CURED)
def test_a_copy_is_right_and_the_old_files_stay(planted, templates, fault):  # noqa: F811
    _, _, form, plant = faults.FAULTS[fault]
    project = planted(form)
    plant(project)
    before = everything(project.folder)
    fixed = fix(project / "set.toml", project.config, examine(project.config, workers=1))
    assert fixed.config == project / "set_fixed.toml"
    after = everything(project.folder)
    assert {path: after[path] for path in before} == before
    again = examine(load_config(fixed.config), stride=4, workers=1)
    assert [finding.code for finding in again.findings] == []
    masks = sorted((project / "masks_fixed").iterdir())
    assert len(masks) == COUNT
    name = "ab" if fault == "names by case" else "03"
    (mask,) = [path for path in masks if path.stem == name]
    (clean,) = [path for path in (templates / form / "masks").iterdir() if path.stem == "03"]
    assert (raster(mask) == raster(clean)).all(axis=0).mean() >= CURED[fault]


@pytest.mark.parametrize(("codes", "first"), [((1, 2, 3), 1), ((0, 127, 254), 0)])
def test_masks_that_are_all_alike_need_no_copies(planted, codes, first):  # noqa: F811
    project = planted("pairs")
    faults.every_mask(project, faults.values(*codes))
    fixed = fix(project / "set.toml", project.config, examine(project.config, workers=1))
    assert fixed.config is not None
    corrected = load_config(fixed.config)
    assert [values[0] for values in (corrected.data.values or {}).values()] == list(codes)
    assert not (project / "masks_fixed").exists()
    assert [f.code for f in examine(corrected, workers=1).findings] == []


def test_as_many_values_as_classes_are_mapped_in_words(planted):  # noqa: F811
    project = planted("pairs")
    faults.every_mask(project, faults.values(10, 30, 70))
    found = examine(project.config, workers=1)
    assert {finding.code for finding in found.findings} == {"PW130"}
    assert 'values = { "background" = 10, "field" = 30, "boundary" = 70 }' in found.findings[0].fix


def test_masks_of_0_and_255_are_mapped(planted):  # noqa: F811
    project = planted("pairs")
    project.configure('"field", "boundary"', '"field"')
    faults.every_mask(project, faults.values(0, 255, 255))
    found = examine(project.config, workers=1)
    assert {finding.code for finding in found.findings} == {"PW132"}
    fixed = fix(project / "set.toml", project.config, found)
    assert fixed.config is not None
    assert load_config(fixed.config).data.values == {"background": [0], "field": [255]}


def test_colours_become_numbers_where_the_palette_tells_them(planted):  # noqa: F811
    project = planted("pairs")
    project.configure("[data]", '[data]\npalette = ["#228b22", "#c8aa28", "#a020f0"]')
    clean = np.asarray(Image.open(project / "masks/03.png"))
    project.picture("masks/03.png", lambda mask: COLOURS[mask])
    fix(project / "set.toml", project.config, examine(project.config, workers=1))
    np.testing.assert_array_equal(np.asarray(Image.open(project / "masks_fixed/03.png")), clean)


@pytest.mark.parametrize("fault", ["axes swapped", "polygons of another system", "a polygon that crosses itself"])
def test_polygons_are_corrected_in_a_copy(planted, fault):  # noqa: F811
    _, _, form, plant = faults.FAULTS[fault]
    project = planted(form)
    plant(project)
    before = everything(project.folder)
    fixed = fix(project / "set.toml", project.config, examine(project.config, workers=1))
    assert fixed.config is not None
    assert {path: path.read_bytes() for path in before} == before
    assert [finding.code for finding in examine(load_config(fixed.config), workers=1).findings] == []


def test_a_copy_never_replaces_an_older_one(planted):  # noqa: F811
    project = planted("pairs")
    project.picture("masks/03.png", faults.values(1, 2, 3))
    (project / "masks_fixed").mkdir()
    (project / "masks_fixed/mine.png").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        fix(project / "set.toml", project.config, examine(project.config, workers=1))
    assert (project / "masks_fixed/mine.png").read_text() == "mine"


def test_what_no_program_can_correct_is_said(planted):  # noqa: F811
    project = planted("pairs")
    (project / "masks/03.png").unlink()
    fixed = fix(project / "set.toml", project.config, examine(project.config, workers=1))
    assert fixed.config is None
    assert any("03.png" in said for said in fixed.left)
