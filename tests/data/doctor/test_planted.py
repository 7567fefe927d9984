"""Faults planted in clean copies of real data: each is found, with its file and its code, and nothing else is."""

import shutil
from pathlib import Path

import pytest
from planted import FORMS, Planted, crops
from planted_faults import FAULTS

from pixelwise.data.doctor import CODES, examine


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """A clean set in each form."""
    folder, cut = tmp_path_factory.mktemp("clean"), crops()
    for name, write in FORMS.items():
        write(folder / name, cut)
    return folder


@pytest.fixture
def planted(templates, tmp_path):
    """Give a copy of a clean set of some form."""
    return lambda form: Planted(templates / form, tmp_path / form)


def found_in(project, **options):
    """Return (code, file) of all findings."""
    return {
        (finding.code, Path(finding.file).name) for finding in examine(project.config, workers=1, **options).findings
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_set_has_no_finding(planted, form):
    assert found_in(planted(form), stride=4) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_with_its_file_and_nothing_else_is(planted, fault):
    code, file, form, plant = FAULTS[fault]
    project = planted(form)
    plant(project)
    found = found_in(project, stride=4)
    assert found == {(code, file)}
    assert code in CODES


def test_masks_without_an_image_may_be_left_out(planted):
    project = planted("pairs")
    shutil.copy(project / "masks/03.png", project / "masks/extra.png")
    project.configure("[data]", '[data]\nmissing_images = "leave_out"')
    assert found_in(project) == set()


def test_all_codes_of_the_data_are_planted():
    # PW132 is in test_fix.py; those of networks and of images without labels come from the command.
    elsewhere = {"PW132", "PW190", "PW191"}
    assert {code for code, *_ in FAULTS.values()} | elsewhere == set(CODES)
