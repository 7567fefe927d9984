"""A second look reads only what changed, and the cache is never trusted beyond its files."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted import COLOURS

from pixelwise.config import Config, load_config
from pixelwise.data.check import survey
from pixelwise.data.doctor import CODES, examine
from pixelwise.data.doctor.cache import FactCache
from pixelwise.data.doctor.facts import _counts, _object_sizes
from pixelwise.data.doctor.finding import Finding, paragraphs
from pixelwise.data.doctor.headers import header_from_dict, header_to_dict
from pixelwise.data.doctor.leaks import correlation
from pixelwise.data.split import open_split
from pixelwise.geo.raster import describe


@pytest.fixture
def project(tmp_path):
    """Six pairs of noise, whose masks hold 0, 1 and 255."""
    rng = np.random.default_rng(3)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(6):
        mask = np.kron(rng.choice([0, 1, 255], (4, 4)), np.ones((10, 12))).astype(np.uint8)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(tmp_path / f"images/{i}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{i}.png")
    text = '[data]\nimages = "images"\nlabels = "masks"\nclasses = ["a", "b"]\nvalidation = 0.34\n'
    (tmp_path / "set.toml").write_text(text)
    return tmp_path


def look(project, *overrides):
    return examine(load_config(project / "set.toml", overrides), stride=4, cache=project / "facts.jsonl", workers=2)


def told(found):
    return [(finding.code, finding.file, finding.message) for finding in found.findings]


def test_a_second_look_reads_nothing_and_says_the_same(project):
    first, second = look(project), look(project)
    assert (first.read, second.read) == (6, 0)
    assert told(first) == told(second)
    for part in ("training", "validation"):
        assert first.parts[part].class_pixels == second.parts[part].class_pixels
        np.testing.assert_array_equal(first.parts[part].statistics.mean, second.parts[part].statistics.mean)


@pytest.mark.parametrize("name", ["images/2.png", "masks/2.png"])
def test_only_a_file_that_changed_is_read_again(project, name):
    look(project)
    values = np.asarray(Image.open(project / name)).copy()
    values[:3] = 1
    Image.fromarray(values).save(project / name)
    again = look(project)
    assert again.read == 1
    assert told(again) == told(examine(load_config(project / "set.toml"), stride=4))


def test_a_file_of_the_same_size_and_time_in_another_place_on_the_disk_is_read_again(project):
    look(project)
    path = project / "masks/1.png"
    before = path.stat()
    path.rename(project / "old")
    path.write_bytes((project / "old").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look(project).read == 1


def test_what_was_read_before_an_interruption_is_kept(project):
    look(project)

    def interrupt(stage, share):
        raise KeyboardInterrupt

    (project / "masks/1.png").write_bytes((project / "masks/2.png").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        examine(load_config(project / "set.toml"), cache=project / "facts.jsonl", advance=interrupt, workers=1)
    assert look(project).read == 1


def test_all_is_read_again_on_demand(project):
    look(project)
    again = examine(load_config(project / "set.toml"), stride=4, cache=project / "facts.jsonl", again=True)
    assert again.read == 6
    assert look(project).read == 0


def test_other_classes_need_no_reading_and_other_bands_do(project):
    look(project)
    assert look(project, 'data.classes=["a", "b", "c"]').read == 0
    assert look(project, "data.validation=0.5").read == 0
    assert look(project, "data.bands=[1]").read == 6


@given(st.binary(max_size=60), st.integers(0, 400))
def test_a_damaged_cache_is_as_good_as_none(tmp_path_factory, junk, place):
    folder = tmp_path_factory.mktemp("cache")
    path, file = folder / "facts.jsonl", folder / "a"
    file.write_text("a")
    cache = FactCache(path)
    cache.put("a", [file], {"x": [1, 2]})
    cache.save(complete=True)
    assert FactCache(path).get("a", [file]) == {"x": [1, 2]}
    content = path.read_bytes()
    path.write_bytes(content[:place] + junk + content[place + len(junk) :])
    assert FactCache(path).get("a", [file]) in (None, {"x": [1, 2]})


def test_a_folder_that_cannot_be_written_to_stops_nothing(project):
    (project / "facts.jsonl").mkdir()
    assert look(project).read == 6


def test_counts_and_statistics_are_those_of_training(project):
    config = load_config(project / "set.toml")
    classes, split = open_split(config)
    found = look(project)
    for name in ("training", "validation"):
        scenes = getattr(split, name)
        counted = survey(scenes, classes)
        part = found.parts[name]
        assert part.scenes == len(scenes)
        assert list(part.class_pixels) == counted.class_pixels.tolist()
        assert part.ignored == counted.ignored
        np.testing.assert_allclose(part.statistics.mean, counted.statistics.mean)
        np.testing.assert_allclose(part.statistics.std, counted.statistics.std)


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=50), st.sampled_from([1, 40_000]))
def test_values_are_counted(values, factor):
    values = [value * factor for value in values]
    assert _counts(np.array(values)) == {value: values.count(value) for value in values}


@pytest.mark.parametrize("factor", [1, 40_000])
def test_sizes_of_objects_are_those_of_joined_pixels(factor):
    mask = np.zeros((8, 8), int)
    mask[0, 0] = mask[1, 1] = 1  # joined at a corner: one object of two
    mask[5:8, 5:8] = 1  # nine
    mask[0, 7] = 2
    sizes = _object_sizes(mask * factor, [0, factor, 2 * factor])
    assert sizes[factor][:5].tolist() == [0, 2, 0, 9, 0]
    assert sizes[2 * factor].sum() == 1
    assert sum(each.sum() for each in sizes.values()) == 64


def test_a_header_survives_the_cache(project):
    info = describe(project / "images/0.png")
    kept = header_to_dict(info)
    assert kept is not None
    assert header_from_dict(info.path, kept, {}) == info


def test_likeness_is_of_details_and_not_of_shading():
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 200, 64)[:, None] * np.ones(64)
    one, other = (slope + rng.normal(size=(64, 64)) for _ in range(2))
    assert abs(correlation(one, other)) < 0.5
    assert correlation(one, 3 * one + 20) > 0.999


def test_findings_of_one_code_are_one_paragraph_and_those_of_keys_are_apart():
    files = [Finding("PW120", f"{i}.png", f"{i}.png is small.") for i in range(3)]
    keys = [Finding("PW106", "[data]", f"Key {i} is wrong.", " ") for i in range(2)]
    said = paragraphs([*files, *keys])
    assert said[0].endswith("The same is wrong with 2 more: 1.png, 2.png.")
    assert said[1:] == ["Key 0 is wrong.", "Key 1 is wrong."]


def test_every_code_says_what_why_and_how_to_fix_it():
    for code, about in CODES.items():
        assert code[:3] in ("PW1", "PW2")
        assert all((about.what, about.why, about.fix))
        assert about.why.endswith(".")
        assert Finding(code, "x", "y").severity == ("error" if code[2] == "1" else "warning")


def test_every_code_is_in_the_documents():
    page = (Path(__file__).parents[3] / "docs" / "check.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `PW")]
    assert {row[1].strip(" `"): row[2].strip() for row in rows} == {code: about.what for code, about in CODES.items()}


def test_colours_are_those_of_the_configuration():
    assert [f"{r:02x}{g:02x}{b:02x}" for r, g, b in COLOURS.tolist()] == ["228b22", "c8aa28", "a020f0"]


def test_a_set_that_is_made_of_copies_is_warned_of(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    photo, mask = (
        rng.integers(0, 255, (64, 64, 3), np.uint8),
        np.kron([[0, 1], [1, 0]], np.ones((32, 32))).astype(np.uint8),
    )
    for i in range(8):
        Image.fromarray(photo).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    data = {"images": tmp_path / "images", "labels": tmp_path / "masks", "classes": ["a", "b"], "validation": 0.25}
    found = examine(Config.model_validate({"data": data}))
    assert not found.errors
    assert {finding.code for finding in found.warnings} == {"PW221"}
