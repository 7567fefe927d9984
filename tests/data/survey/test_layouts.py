"""`pixelwise init` on folders as published data sets and tools lay them out."""

import numpy as np
import published_layouts as published
import pytest

from pixelwise.config import load_config
from pixelwise.data.doctor import examine
from pixelwise.data.split import open_split
from pixelwise.data.survey.proposal import Machine, propose
from pixelwise.data.survey.toml import to_toml
from pixelwise.errors import DataError
from pixelwise.labels import IGNORE

NAMES = {
    "cityscapes": ["road", "building", "vegetation"],
    "loveda": ["background", "building", "road", "water", "barren", "forest", "agriculture"],
    "massachusetts": ["background", "road"],
    "roboflow_masks": ["background", "roof", "tree"],
    "camvid": ["Animal", "Road", "Tree"],
    "deepglobe": ["urban_land", "water", "forest_land"],
    "oxford_pets": ["pet", "background", "border"],
    "ade20k": ["wall", "building, edifice", "sky", "floor, flooring", "tree"],
    "lists_of_pairs": ["background", "roof", "tree"],
    "coco": ["background", "roof"],
    "spacenet": ["background", "building"],
}
"""Classes whose names the folder tells."""
GIVEN = {
    **dict.fromkeys(("parts_of_folders", "folders_of_parts", "pascal_voc", "lists_of_pairs", "camvid", "bdd100k"), 2),
    **dict.fromkeys(("yolo_segments", "coco", "isaid", "isic", "massachusetts", "sat_and_map", "roboflow_masks"), 2),
    **{"loveda": 4, "cityscapes": 3, "ade20k": 3},
}
"""Images of the folder's own part for validation."""


def proposed(folder):
    found = propose(folder / "data", machine=Machine(), ask=lambda question, answers: 0)
    path = folder / "mine.toml"
    path.write_text(to_toml(found, path), encoding="utf-8")
    return found, load_config(path)


@pytest.mark.parametrize("kind", published.LAYOUTS, ids=lambda kind: kind.__name__)
def test_a_published_layout_is_read_as_its_authors_meant_it(tmp_path, kind):
    made = kind(tmp_path / "data")
    found, config = proposed(tmp_path)
    classes, split = open_split(config)
    name = kind.__name__
    assert config.data.classes == NAMES.get(name, config.data.classes), found.saw
    if name in GIVEN:
        assert len(split.validation) == GIVEN[name]
    assert split.validation
    scenes = {scene.info.path.stem: scene for scene in [*split.training, *split.validation, *split.test]}
    assert set(scenes) == set(made.truth), found.saw
    seen: dict[int, set[int]] = {}
    for stem, truth in made.truth.items():
        scenes[stem].part = None
        mask = scenes[stem].read(scenes[stem].whole).mask
        for drawn in np.unique(truth).tolist():
            seen.setdefault(drawn, set()).update(np.unique(mask[truth == drawn]).tolist())
    # Along compressed edges, drawn as -2, any class is right.
    seen.pop(-2, None)
    assert seen.pop(-1, {IGNORE}) == {IGNORE}
    assert all(len(indices) == 1 for indices in seen.values()), (seen, found.guessed)
    assert sorted(index for indices in seen.values() for index in indices) == list(range(len(classes)))
    assert not examine(config, stride=4).errors


def test_a_mask_that_is_the_same_for_all_photos_is_no_label_and_is_named(tmp_path):
    published.drive(tmp_path / "data")
    found, config = proposed(tmp_path)
    assert str(config.data.labels).endswith("1st_manual")
    assert any("1st_manual. The same images have others, which are left out: mask." in each for each in found.guessed)


def test_masks_of_half_the_size_are_paired_and_check_names_them(tmp_path):
    published.half_size(tmp_path / "data")
    found, config = proposed(tmp_path)
    assert any("p0.png is 40x32 pixels, and its image 80x64" in sentence for sentence in found.guessed)
    assert {finding.code for finding in examine(config).findings} == {"PW120"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (published.arrays, r"8 \.npy.*p0\.npy and 7 more are arrays.*write them as TIFF"),
        (published.packed, r"2 \.zip.*train\.zip and 1 more are packed: unpack them first"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, kind, said):
    kind(tmp_path / "data")
    with pytest.raises(DataError, match=said):
        proposed(tmp_path)
