"""The tables on the networks' pages are those of the files that they name."""

import json
from pathlib import Path

import pytest
from network_pages import COSTS, FAMILIES, PAGES, RESULTS, made, with_sections

from pixelwise.models import list_models


@pytest.mark.parametrize("page", FAMILIES)
def test_a_page_has_the_figures_and_licences_of_today(page):
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    assert with_sections(text, made(page)) == text, "run python benchmarks/network_pages.py"


def test_each_network_has_a_row_on_one_page():
    rows = [line.split("`")[1] for page in FAMILIES for line in made(page).splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(list_models())


def test_a_row_has_the_figures_of_the_files():
    counted = json.loads(COSTS.read_text())["linknet"]
    measured = json.loads(Path(RESULTS, "networks.json").read_text())["linknet"]
    (row,) = [line for line in made("linknet").splitlines() if line.startswith("| `linknet`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert float(cells[1].removesuffix(" M")) == pytest.approx(counted["parameters"] / 1e6, abs=0.05)
    assert float(cells[2]) == pytest.approx(counted["flops"] / 1e9, abs=0.05)
    assert float(cells[3]) == pytest.approx(measured["seconds"]["fused"], abs=0.005)
    assert float(cells[4]) == pytest.approx(measured["peak_mib"]["fused"], abs=0.5)


def test_licences_that_forbid_commercial_use_are_named_so():
    assert "| NVIDIA-SegFormer | no |" in made("segformer")
    assert "| no |" not in made("linknet")


def test_a_page_without_marks_is_said_to_lack_them():
    with pytest.raises(ValueError, match="lacks the line"):
        with_sections("# A page\n", "")


def test_each_family_has_a_page_and_a_drawing():
    assert {page.stem for page in PAGES.glob("*.md")} >= set(FAMILIES)
    assert {page.stem for page in PAGES.glob("*.svg")} >= set(FAMILIES)
