"""The report page: whole, self-contained, escaped, and true to the scores."""

import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.config import Config, DataConfig, RunConfig
from pixelwise.errors import ConfigError, MissingExtraError
from pixelwise.evaluation.metrics import scores
from pixelwise.evaluation.pictures import Picture
from pixelwise.labels import make_classes
from pixelwise.models import Architecture
from pixelwise.report.content import Content
from pixelwise.report.page import render, write_report
from pixelwise.report.parcel_map import DrawnParcel, ParcelMap
from pixelwise.runs.model_folder import ModelCard

VOID = {"meta", "img", "br", "link", "hr", "input"}
HOSTILE = '<script>alert("1")</script>&\'</title>'


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps text, addresses, attributes and table rows."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags, self.addresses, self.rows = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href", "srcset") and value]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, name):
        return next([cell.strip() for cell in row] for row in self.rows if row[0].strip() == name)


def read(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def words(page):
    return " ".join(" ".join(page.text).split())


def picture(name="a scene", *, classes=2, miou=0.123, seed=0):
    rng = np.random.default_rng(seed)
    return Picture(
        name,
        rng.integers(0, 255, (3, 40, 50), dtype=np.uint8),
        rng.integers(-1, classes, (40, 50)).astype(np.int16),
        rng.integers(0, classes, (40, 50)).astype(np.uint8),
        miou,
    )


def log(steps=20):
    return [
        {"step": i + 1, "loss": 1 / (i + 1), "learning_rate": 1e-3 * (1 - i / steps), "seconds": float(i)}
        | ({"mIoU": i / steps / 2} if i % 5 == 4 else {})
        for i in range(steps)
    ]


def content(names=("water", "land"), *, matrix=None, seed=0, **changes):
    if matrix is None:
        matrix = np.random.default_rng(seed).integers(0, 900, (len(names), len(names))).astype(np.int64)
    whole = Content(
        folder=Path("runs/trial"),
        config=Config(
            data=DataConfig(images=Path("scenes"), labels=Path("fields.gpkg"), classes=list(names)),
            run=RunConfig(folder=Path("runs/trial")),
        ),
        classes=make_classes(list(names)),
        card=ModelCard(
            Architecture("segformer-b0", len(names), 3, {}),
            make_classes(list(names)),
            (1, 2, 3),
            "uint8",
            (0.0,) * 3,
            (1.0,) * 3,
        ),
        log=log(),
        evaluation="elsewhere",
        apart=False,
        scores=scores(matrix, names).to_dict() | {"scenes": {"a scene": 0.123}},
        matrix=matrix,
        scenes=[picture(classes=len(names))],
        worst=[picture(classes=len(names))],
        parcels=None,
        weights={},
    )
    return dataclasses.replace(whole, **changes)


def parcel_map(*names, confidence=0.9):
    ring = np.array([[1.0, 1], [9, 1], [9, 9], [1, 1]])
    parcels = [DrawnParcel(name, [ring], 1e4 * (i + 1), confidence) for i, name in enumerate(names)]
    return ParcelMap("scene.tif", np.zeros((20, 20, 3), np.uint8), parcels)


def check_whole(text):
    page = read(text)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    assert all("aria-label" in attributes for tag, attributes in page.tags if tag == "svg")
    return page


@pytest.mark.parametrize("count", [1, 2, 9, 40, 41, 150])
def test_a_page_of_any_number_of_classes_is_whole_and_names_them_all(count):
    names = tuple(f"class {i}" for i in range(count))
    page = check_whole(render(content(names)))
    assert all(page.row(name) for name in names)


@pytest.mark.parametrize(
    "changes",
    [
        {"log": []},
        {"log": [{"step": 1, "loss": None, "learning_rate": None, "seconds": None, "mIoU": None}]},
        {"log": [{"step": i, "loss": float("nan"), "learning_rate": float("inf")} for i in range(3)]},
        {"log": [{"step": 1, "loss": 0.0, "learning_rate": 0.0, "seconds": 1.0, "mIoU": 0.0}]},
        {"log": [{"step": i, "loss": -1.0, "seconds": 1} for i in range(3)]},
        {"log": [{"loss": 1.0}]},
        {"scenes": [], "worst": []},
        {"scenes": [picture(miou=None)], "worst": [picture() for _ in range(12)]},
        {"parcels": parcel_map("water", confidence=None)},
        {"parcels": parcel_map("water", "land", "stray")},
        {"parcels": parcel_map()},
        {"matrix": np.zeros((2, 2), np.int64)},
        {"scores": {}},
    ],
)
def test_whatever_a_run_lacks_the_page_is_whole_and_needs_nothing_from_outside(changes):
    assert "NaN" not in words(check_whole(render(content(**changes))))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none(), max_size=30))
def test_any_losses_give_a_page_whose_curves_have_finite_coordinates(losses):
    rows = [{"step": i + 1, "loss": loss} for i, loss in enumerate(losses)]
    page = check_whole(render(content(log=rows, scenes=[], worst=[])))
    assert not any(re.search("nan|inf", attributes.get("d") or "") for _, attributes in page.tags)


def test_the_scores_on_the_page_are_those_given():
    given = content(("one", "two", "three"), seed=4)
    page = read(render(given))
    text = words(page)
    for key in ("mIoU", "mean_accuracy", "frequency_weighted_IoU", "kappa"):
        assert f"{given.scores[key]:.3f}" in text
    assert f"{given.scores['pixel_accuracy'] * 100:.1f} %" in text
    for name, each in given.scores["classes"].items():
        shown = [f"{each[key]:.3f}" for key in ("IoU", "precision", "recall", "F1")]
        assert page.row(name) == [name, *shown, f"{each['pixels']:,}"]


def test_cells_of_the_confusion_hold_per_cent_of_the_true_class_and_the_pixels():
    page = read(render(content(matrix=np.array([[3, 1], [1000, 3000]]), scenes=[], worst=[])))
    cells = [row[1:] for row in page.rows if row[0].strip() in ("water", "land")][-2:]
    assert cells == [["75.03", "25.01"], ["25.01,000", "75.03,000"]]


def test_an_absent_class_is_called_absent_and_not_nought():
    matrix = np.diag([5, 0, 7]).astype(np.int64)
    page = read(render(content(("one", "two", "three"), matrix=matrix, scenes=[], worst=[], log=[])))
    assert page.row("two") == ["two", "absent", "–", "–", "–", "0"]
    assert "0.000" not in words(page)


def test_a_class_that_was_never_predicted_is_not_called_absent():
    page = read(render(content(matrix=np.array([[5, 0], [5, 0]]), scenes=[], worst=[])))
    assert page.row("land")[1:4] == ["0.000", "–", "0.000"]
    assert "absent" not in words(page)


def test_with_many_classes_the_most_frequent_mistakes_come_first():
    names = tuple(f"class {i}" for i in range(60))
    matrix = np.diag(np.full(60, 100))
    matrix[3, 7], matrix[50, 2] = 25, 300
    mistakes = [row for row in read(render(content(names, matrix=matrix, scenes=[], worst=[]))).rows if len(row) == 4]
    assert [[cell.strip() for cell in row] for row in mistakes[1:]] == [
        ["class 50", "class 2", "300", "75.0\N{NO-BREAK SPACE}%"],
        ["class 3", "class 7", "25", "20.0\N{NO-BREAK SPACE}%"],
    ]


def test_names_cannot_become_markup():
    given = content((HOSTILE, "b&c"), folder=Path("runs") / HOSTILE.replace("/", "|"), evaluation=HOSTILE)
    given = dataclasses.replace(given, scenes=[picture(HOSTILE)], parcels=parcel_map(HOSTILE, "b&c"))
    text = render(given)
    page = check_whole(text)
    assert page.row(HOSTILE)
    assert page.row("b&c")
    assert any(attributes.get("alt", "").startswith(HOSTILE) for tag, attributes in page.tags if tag == "img")


def test_only_an_evaluation_apart_from_the_training_images_is_said_to_be_so():
    said = "among the images it learned from"
    assert said in words(read(render(content(apart=True))))
    assert said not in words(read(render(content(apart=False))))
    assert "kept for validation" in words(read(render(content(evaluation="validation"))))


def test_the_best_evaluation_is_marked_and_not_the_last():
    rows = [{"step": step, "mIoU": score} for step, score in ((10, 0.2), (20, 0.625), (30, 0.4))]
    text = words(read(render(content(log=rows))))
    assert "best 0.625" in text
    assert "best 0.400" not in text


def test_parcels_are_summed_by_class_and_their_confidence_weighs_by_area():
    ring = np.array([[1.0, 1], [9, 1], [9, 9], [1, 1]])
    drawn = [DrawnParcel("land", [ring], area, sure) for area, sure in ((3e4, 0.9), (1e4, 0.5), (1e4, None))]
    parcels = ParcelMap("scene.tif", np.zeros((20, 20, 3), np.uint8), drawn)
    page = read(render(content(parcels=parcels)))
    assert [cell.strip() for cell in page.rows[-1]] == ["land", "3", "5.00", "1.00", "0.800"]
    assert sum(tag == "path" and "fill-rule" in attributes for tag, attributes in page.tags) == 3


def test_parcels_of_several_classes_have_the_colours_of_their_classes():
    given = content(parcels=parcel_map("water", "land", "water"))
    fills = [
        attributes["fill"] for tag, attributes in read(render(given)).tags if tag == "path" and "fill" in attributes
    ]
    water, land = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in given.classes.palette)
    assert fills == [water, land, water]


def test_a_page_of_large_pictures_stays_below_six_megabytes():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (3, 64, 64), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    image = (coarse // 2 + rng.integers(0, 40, coarse.shape, dtype=np.uint8)).astype(np.uint8)
    truth = rng.integers(0, 2, (32, 32)).repeat(16, axis=0).repeat(16, axis=1).astype(np.int16)
    large = Picture("large", image, truth, np.roll(truth, 5).astype(np.uint8), 0.5)
    tile = Picture("tile", image[:, :256, :256], truth[:256, :256], truth[:256, :256].astype(np.uint8), 0.5)
    one = len(render(content(scenes=[large], worst=[tile])))
    none = len(render(content(scenes=[], worst=[tile])))
    tileless = len(render(content(scenes=[], worst=[])))
    assert tileless + 12 * (one - none) + 12 * (none - tileless) < 6e6


def test_a_run_without_scores_is_an_error_with_its_mend(tmp_path):
    (tmp_path / "config.toml").write_text('[data]\nimages="a"\nlabels="b"\nclasses=["x", "y"]\n')
    with pytest.raises(ConfigError, match="pixelwise evaluate"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="not a run"):
        write_report(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_without_jinja_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixelwise\[report\]'"):
        render(content())


def test_each_cell_of_a_stacked_table_bears_the_name_of_its_column():
    """On a phone such a row becomes a card: a number is never cut off at the edge of the page."""
    names = tuple(f"class {i}" for i in range(12))
    text = render(content(names, parcels=parcel_map("class 1", "class 2")))
    tables = re.findall(r'<table class="[^"]*\bstack\b[^"]*">(.*?)</table>', text, re.DOTALL)
    assert len(tables) == 3, "classes, mistakes and parcels"
    for table in tables:
        heads, *rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        columns = re.findall(r"<th[^>]*>([^<]*)</th>", heads)
        assert rows
        for row in rows:
            cells = re.findall(r'<t[dh](?: scope="row")?(?: data-label="([^"]*)")?>', row)
            assert cells == ["", *columns[1:]]


def test_scenes_that_were_learned_from_are_said():
    made = content()
    told = dataclasses.replace(made, scores={**made.scores, "learned": ["a", "b"]})
    assert "2 of these scenes are among those it learned from" in words(read(render(told)))
    assert "among those it learned from" not in words(read(render(made)))
