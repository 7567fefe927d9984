"""The page of an examination: complete, readable by machines, and without anything from outside."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import load_config
from pixelwise.data.doctor import examine
from pixelwise.report.check_page import Figure, Section, write_check_json, write_check_page


class Page(HTMLParser):
    """Collects what a page holds."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def project(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(tmp_path / f"images/{i}.png")
        mask = rng.integers(0, 2, (40, 48), np.uint8) if i else np.full((40, 48), 7, np.uint8)
        Image.fromarray(mask).save(tmp_path / f"masks/{i}.png")
    text = '[data]\nimages = "images"\nlabels = "masks"\nclasses = ["<script>a", "b"]\n'
    (tmp_path / "set.toml").write_text(text)
    return tmp_path


def written(project, sections=()):
    config = load_config(project / "set.toml")
    found = examine(config, stride=4)
    write_check_page(project / "check.html", "a & <b>", found, config, sections)
    page = Page()
    page.feed((project / "check.html").read_text(encoding="utf-8"))
    return found, page


def test_every_finding_is_on_the_page_with_its_pictures(project):
    found, page = written(project)
    for finding in found.findings:
        assert finding.message in page.text
        assert any(tag == "h3" and attrs["id"] == finding.code for tag, attrs in page.tags)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert {attrs["alt"] for attrs in pictures if attrs["alt"].startswith("0.png")} == {"0.png: image", "0.png: mask"}
    assert all(attrs["src"].startswith("data:image/webp") for attrs in pictures)


def test_the_page_needs_nothing_from_outside_and_what_users_wrote_is_text(project):
    _, page = written(project)
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)
    assert all(attrs.get(key, "data:").startswith(("data:", "#")) for _, attrs in page.tags for key in ("src", "href"))
    assert "a & <b>" in page.text
    assert "<script>a" in page.text


def test_others_add_sections(project):
    figure = Figure("first", (("image", np.zeros((8, 8, 3), np.uint8)),))
    _, page = written(project, [Section("Suspicious labels", "Look at these.", (figure,))])
    assert "Suspicious labels" in page.text
    assert any(tag == "img" and attrs["alt"] == "first: image" for tag, attrs in page.tags)


def test_the_json_has_the_codes_and_counts(project):
    found, _ = written(project)
    write_check_json(project / "check.json", "set.toml", found)
    kept = json.loads((project / "check.json").read_text(encoding="utf-8"))
    assert [finding["code"] for finding in kept["findings"]] == [finding.code for finding in found.findings]
    assert kept["errors"] == len(found.errors) >= 1
    assert sum(part["images"] for part in kept["parts"].values()) == 5
    assert kept["findings"][0]["value"] == {"7": 40 * 48}
