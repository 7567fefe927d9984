"""`pixelwise check --with RUN`: suspicious labels on the page, as JSON and for a GIS."""

import json
import re

import tomli_w
from click.testing import CliRunner
from small_run import small_config, write_scenes

from pixelwise.commands.doctor import check
from pixelwise.training.train import train


def test_a_run_is_compared_with_the_labels_and_the_page_has_a_gallery(tmp_path):
    scenes = write_scenes(tmp_path / "data")
    config = small_config(scenes, tmp_path / "run", steps=40)
    train(config)
    path = tmp_path / "mine.toml"
    table = config.model_dump(mode="json", exclude_unset=True)
    path.write_text(tomli_w.dumps(table))
    made = CliRunner().invoke(check, [str(path), "--with", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert made.exit_code == 0, made.output
    assert "labels are suspicious" in made.output
    listed = json.loads((tmp_path / "out/suspicious.json").read_text())
    assert listed["run"] == str(tmp_path / "run")
    page = (tmp_path / "out/check.html").read_text()
    assert "Suspicious labels" in page
    captions = set(re.findall(r"\d+\. \w+, row \d+, column \d+: labelled (?:dark|bright)", page))
    assert len(captions) == len(listed["suspects"][:48]) > 0
    # These images have a transform but no coordinate system, so there is no place for a GIS.
    assert not (tmp_path / "out/suspicious.gpkg").exists()
