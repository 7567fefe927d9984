"""What `pixelwise check` says of images without labels and of teachers."""

import tomli_w
from click.testing import CliRunner
from small_run import NETWORK, small_config, write_scenes

from pixelwise.cli import commands
from pixelwise.training.train import train


def checked(path):
    done = CliRunner().invoke(commands, ["check", str(path)])
    return done.exit_code, " ".join(done.output.split())


def test_check_names_a_teacher_that_does_not_fit_and_counts_images_without_labels(tmp_path, monkeypatch):
    # The check writes its page into the current folder.
    monkeypatch.chdir(tmp_path)
    scenes = write_scenes(tmp_path / "scenes")
    more = write_scenes(tmp_path / "more", 3, seed=5)
    teacher = train(small_config(scenes, tmp_path / "teacher", steps=1)).folder
    data = {"images": "scenes/images", "labels": "scenes/masks", "classes": ["dark", "bright"]}
    table = {"data": data | {"unlabelled": "more/images"}, "model": NETWORK, "train": {"teacher": teacher.name}}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(table))
    assert checked(tmp_path / "mine.toml")[0] == 0
    assert "Without labels: 3 images" in checked(tmp_path / "mine.toml")[1]
    data["classes"] = ["night", "day"]
    for path in (more / "images").iterdir():
        path.unlink()
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(table | {"data": data | {"unlabelled": "more/images"}}))
    status, said = checked(tmp_path / "mine.toml")
    assert status == 1
    assert "teacher has the classes dark, bright, and this run has night, day" in said
    assert "more/images has no images" in said
