"""The table itself: every row is complete, fits what is in the house, and is found by its names."""

import json
import re

import pytest
from click.testing import CliRunner

from pixelwise.cli import commands
from pixelwise.config import SHORT_NAMES
from pixelwise.errors import WeightsError
from pixelwise.hub import ledger
from pixelwise.models import ENCODERS, list_models
from pixelwise.weights import LAYOUTS

ROWS = ledger.rows()


def run(*arguments):
    return CliRunner().invoke(commands, ["weights", *arguments])


def test_names_are_unique_and_licences_are_in_the_table():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.licence for row in ROWS} <= set(ledger._table()[0])
    assert all(row.commercial in ("yes", "no", "unknown") for row in ROWS)
    assert all(row.attribution and row.read and row.data and row.layout for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_has_one_place_and_facts_of_the_right_form(row):
    places = [row.file, row.url, row.package, row.page]
    assert sum(map(bool, places)) == 1 or (row.loaded and not any(places))
    assert row.url == "" or re.fullmatch(r"https://[^\s]+", row.url)
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}|", row.sha256)
    # Eight digits come from the file's own name, where its publisher put them.
    assert len(row.sha256) != 8 or f"-{row.sha256}." in row.url
    assert isinstance(row.size, int) or re.fullmatch(r"[\d.]+ MB|", row.size)
    assert not row.score or row.score.split()[-1] in ("mIoU", "top-1", "AP")


@pytest.mark.parametrize("row", [row for row in ROWS if row.network or row.encoder], ids=lambda row: row.name)
def test_a_row_fits_what_the_house_has(row):
    assert row.network in ("", *list_models())
    assert row.encoder in ("", *ENCODERS)
    if row.short:
        assert row.short in SHORT_NAMES
        assert ledger.for_network(row.short, row.network or "unet", row.encoder) == row


def test_every_layout_of_a_row_is_one_that_is_read():
    known = {layout.name for layout in LAYOUTS}
    here = [row for row in ROWS if not row.loaded]
    assert [row.name for row in here if row.layout.removesuffix(" (encoder only)") not in known] == []


def test_the_licences_that_people_overlook_are_named():
    nvidia = [row for row in ROWS if "segformer" in row.name or row.name.startswith("nvidia/mit")]
    assert len(nvidia) == 30
    assert {row.commercial for row in nvidia} == {"no"}
    assert {row.commercial for row in ROWS if "dinov3" in row.name} == {"unknown"}
    free = ("dinov2/", "facebook/dinov2-", "deit/")
    assert {row.licence for row in ROWS if row.name.startswith(free)} == {"Apache-2.0"}
    assert ledger.by_name("tue-mps/ade20k_semantic_eomt_large_512").licence == "MIT"


def test_filters_work_together_and_json_says_what_was_not_read():
    shown = json.loads(run("--network", "segformer-b1", "--json").stdout)
    assert {row["name"] for row in shown} == {
        "nvidia/mit-b1",
        "nvidia/segformer-b1-finetuned-ade-512-512",
        "nvidia/segformer-b1-finetuned-cityscapes-1024-1024",
        "openmmlab/segformer-b1-ade20k",
        "openmmlab/segformer-b1-cityscapes",
    }
    assert {row["sha256"] for row in shown if row["name"] == "nvidia/mit-b1"} == {None}
    free = json.loads(run("--commercial", "--licence", "apache", "--match", "mscan", "--json").stdout)
    assert [row["name"] for row in free] == [f"openmmlab/mscan-{size}" for size in "tsbl"]
    assert "No weights" in run("--network", "segformer-b1", "--commercial").stdout


def test_the_table_and_a_row_are_printed_for_people():
    table = run("--network", "hrnet-w48-ocr").stdout.splitlines()
    assert table[0].split() == ["name", "short", "fits", "score", "licence", "commercial"]
    assert table[-1].startswith(f"{len(table) - 2} of {len(ROWS)} files")
    said = run("imagenet", "--network", "segformer-b0").stdout
    assert said.startswith("nvidia/mit-b0\n")
    assert "SHA-256      not read" in said
    assert "NVIDIA Source Code License for SegFormer" in said


def test_an_unknown_name_is_an_error_that_suggests_one():
    result = run("nvidia/mit-b9")
    assert isinstance(result.exception, WeightsError)
    assert "Did you mean 'nvidia/mit-b" in str(result.exception)
    assert run("--download").exit_code == 2
    assert "Did you mean 'segformer-b0'" in str(run("--network", "segfrmer-b0").exception)
    assert run("--network", "depict-sa", "--licence", "GPL").output.startswith("No weights")
