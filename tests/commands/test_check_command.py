"""The command: its exit status, its files, and what training makes of them."""

import json
import re
import tomllib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Four pairs and a configuration, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((10, 10))).astype(np.uint8)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"images/{i}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{i}.png")
    text = '[data]\nimages = "images"\nlabels = "masks"\nclasses = ["a", "b"]\n[train]\nsteps = 1\nbatch_size = 1\n'
    (tmp_path / "pixelwise.toml").write_text(text + "crop_size = 32\n")
    return tmp_path


def test_a_clean_set_leaves_with_0_and_a_folder_stands_for_its_configuration(pixelwise, project):
    status, out, err = pixelwise("check", ".")
    assert (status, err) == (0, "")
    assert "Every file can be read." in out
    folder = project / "checks" / project.name
    assert {path.name for path in folder.iterdir()} == {"check.html", "check.json", "facts.jsonl"}
    assert json.loads((folder / "check.json").read_text())["findings"] == []


def test_warnings_leave_with_0_and_errors_with_1(pixelwise, project):
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(project / "images/1.png")
    status, out, err = pixelwise("check", "pixelwise.toml", "--out", "there")
    assert (status, err) == (0, "")
    assert "PW218" in out
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(project / "masks/2.png")
    status, out, err = pixelwise("check", "pixelwise.toml", "--out", "there")
    assert status == 1
    assert err.startswith("Error: ")
    found = json.loads((project / "there/check.json").read_text())
    assert [finding["code"] for finding in found["findings"]] == ["PW130", "PW218"]


def test_verbose_lists_every_finding(pixelwise, project):
    for i in (1, 2):
        Image.fromarray(np.full((40, 40), 9, np.uint8)).save(project / f"masks/{i}.png")
    _, out, _ = pixelwise("check", ".", "--verbose")
    assert sum(line.startswith("Error PW130") for line in out.splitlines()) == 2


def test_a_folder_without_a_configuration_is_checked_as_init_configures_it(pixelwise, project):
    (project / "pixelwise.toml").rename(project / "a.txt")
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(project / "images/1.png")
    status, out, err = pixelwise("check", ".", "--out", "there")
    assert (status, err) == (0, "")
    assert "holds no configuration, so it is checked as `pixelwise init .` configures it" in out
    assert "4 images with masks" in out
    assert "PW218" in out
    data = tomllib.loads((project / "there/proposed.toml").read_text())["data"]
    assert data["classes"] == ["background", "object"]
    assert (project / "there" / data["labels"]).resolve() == project / "masks"


def test_of_two_configurations_one_has_to_be_named(pixelwise, project):
    for name in ("a.toml", "b.toml"):
        (project / name).write_bytes((project / "pixelwise.toml").read_bytes())
    (project / "pixelwise.toml").unlink()
    status, _, err = pixelwise("check", ".")
    assert status == 1
    assert "2 TOML files" in err


def test_fix_writes_copies_and_says_so(pixelwise, project):
    mask = np.asarray(Image.open(project / "masks/2.png"))
    Image.fromarray(mask * 127).save(project / "masks/2.png")
    status, out, _ = pixelwise("check", ".", "--fix")
    assert status == 1
    assert "pixelwise check pixelwise_fixed.toml" in out
    np.testing.assert_array_equal(np.asarray(Image.open(project / "masks_fixed/2.png")), mask)
    assert pixelwise("check", "pixelwise_fixed.toml")[0] == 0


def test_training_stops_on_errors_unless_it_is_told_not_to_look(pixelwise, project):
    (project / "extra.png").write_bytes((project / "masks/0.png").read_bytes())
    (project / "extra.png").rename(project / "masks/extra.png")
    status, _, err = pixelwise("train", "pixelwise.toml")
    assert status == 1
    assert "extra.png belongs to no image" in err
    assert not (project / "runs").exists()
    # The error has the line to paste.
    (line,) = re.findall(r'missing_images = "leave_out"', err)
    text = (project / "pixelwise.toml").read_text()
    (project / "pixelwise.toml").write_text(text.replace("[data]\n", f"[data]\n{line}\n"))
    assert pixelwise("train", "pixelwise.toml")[0] == 0


@pytest.mark.parametrize(
    ("code", "lines"), [("PW190", '[model]\nname = "segformer-b9"'), ("PW191", '[data]\nunlabelled = "nowhere"')]
)
def test_what_is_wrong_beside_the_labels_has_a_code_too(pixelwise, project, code, lines):
    table, line = lines.split("\n")
    text = (project / "pixelwise.toml").read_text()
    changed = text.replace(table, lines) if table in text else f"{text}\n{lines}\n"
    (project / "pixelwise.toml").write_text(changed)
    status, _, err = pixelwise("check", ".", "--out", "there")
    assert status == 1
    found = json.loads((project / "there/check.json").read_text())["findings"]
    assert [finding["code"] for finding in found] == [code]
    assert line.split('"')[1] in err
