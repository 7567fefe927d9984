"""The report page: whole, self-contained, escaped, and true to the scores."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pixelwise.config import Config, DataConfig, RunConfig
from pixelwise.errors import ConfigError
from pixelwise.jobs.evaluate import Picture
from pixelwise.labels import make_classes
from pixelwise.metrics import scores
from pixelwise.report.charts import data_uri, mistakes, path_of, smoothed
from pixelwise.report.content import Content, ParcelMap
from pixelwise.report.page import render, write_report

VOID = {"meta", "img", "br", "link", "hr", "image", "path", "use", "input"}


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def content(names=("water", "land"), *, seed=0, log=True, pictures=True, parcels=False, matrix=None):
    rng = np.random.default_rng(seed)
    classes = make_classes(list(names))
    if matrix is None:
        matrix = rng.integers(0, 900, (len(names), len(names))).astype(np.int64)
    picture = Picture(
        "a scene",
        rng.integers(0, 255, (3, 40, 50), dtype=np.uint8),
        rng.integers(-1, len(names), (40, 50)).astype(np.int16),
        rng.integers(0, len(names), (40, 50)).astype(np.uint8),
        0.123,
    )
    ring = np.array([[1.0, 1], [9, 1], [9, 9], [1, 1]])
    return Content(
        folder=Path("runs/trial"),
        config=Config(
            data=DataConfig(images=Path("scenes"), labels=Path("fields.gpkg"), classes=list(names)),
            run=RunConfig(folder=Path("runs/trial")),
        ),
        classes=classes,
        card={"architecture": {"name": "segformer-b0"}, "bands": [1, 2, 3], "dtype": "uint8", "provenance": {}},
        log=[
            {"step": i + 1, "loss": float("nan") if i == 3 else 1 / (i + 1), "learning_rate": 1e-3, "seconds": i}
            | ({"mIoU": i / 20} if i % 5 == 4 else {})
            for i in range(20)
        ]
        if log
        else [],
        evaluation="test",
        scores=scores(matrix, names).to_dict(),
        matrix=matrix,
        scenes=[picture] if pictures else [],
        worst=[picture] if pictures else [],
        parcels=ParcelMap("scene.tif", np.zeros((20, 20, 3), np.uint8), [(names[0], [ring])], {names[0]: [5e4, 1e4]})
        if parcels
        else None,
    )


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"names": ("all",)},
        {"names": tuple(f"class {i}" for i in range(150))},
        {"log": False},
        {"pictures": False},
        {"parcels": True},
        {"matrix": np.zeros((2, 2), np.int64)},
    ],
)
def test_every_kind_of_run_gives_a_whole_page_that_needs_nothing_from_outside(case):
    parser = read(render(content(**case)))
    assert all(address.startswith(("data:image/", "#")) for address in parser.addresses)
    text = " ".join(parser.text)
    assert all(name in text for name in case.get("names", ("water", "land")))
    assert not re.search(r"url\((?!['\"]?#)", render(content(**case)))


def test_the_scores_on_the_page_are_those_given():
    page = content(seed=4)
    text = " ".join(read(render(page)).text)
    assert f"{page.scores['mIoU']:.3f}" in text
    for name in page.classes.names:
        row = page.scores["classes"][name]
        assert all(f"{row[key]:.3f}" in text for key in ("IoU", "precision", "recall", "F1"))
        assert f"{row['pixels']:,}" in text


def test_an_absent_class_is_called_absent_and_not_nought():
    matrix = np.diag([5, 0, 7]).astype(np.int64)
    text = " ".join(read(render(content(("one", "two", "three"), matrix=matrix, pictures=False))).text)
    assert "absent" in text
    assert "0.000" not in text


def test_names_cannot_become_markup():
    page = render(content(("<script>alert(1)</script>", "b&c")))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "b&amp;c" in page


def test_a_run_without_scores_is_an_error_with_its_mend(tmp_path):
    (tmp_path / "config.toml").write_text('[data]\nimages="a"\nlabels="b"\nclasses=["x"]\n')
    with pytest.raises(ConfigError, match="pixelwise evaluate"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="not a run"):
        write_report(tmp_path / "nowhere")


def test_wrong_pixels_are_red_and_ignored_ones_are_not():
    picture = np.full((1, 3, 3), 100, np.uint8)
    shown = mistakes(picture, np.array([[0, 1, -1]]), np.array([[0, 0, 0]]))
    right, wrong, ignored = (tuple(int(v) for v in pixel) for pixel in shown[0])
    assert right[0] == right[1] == right[2]
    assert wrong[0] > wrong[1] + 60
    assert ignored[0] == ignored[1] < right[0]


def test_lossless_pictures_come_back_as_they_were():
    import base64
    import io

    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    stream = io.BytesIO(base64.b64decode(data_uri(picture, lossless=True).split(",")[1]))
    assert (np.asarray(Image.open(stream).convert("RGB")) == picture).all()


def test_a_running_mean_is_that_of_its_window():
    values = np.random.default_rng(1).random(30)
    expected = [values[max(0, i - 2) : i + 3].mean() for i in range(30)]
    assert np.allclose(smoothed(values.tolist(), 5), expected)


def test_a_ring_becomes_a_closed_path():
    assert path_of([np.array([[0.0, 0], [2, 0], [2, 2], [0, 0]])]) == "M0.0 0.0L2.0 0.0L2.0 2.0Z"
