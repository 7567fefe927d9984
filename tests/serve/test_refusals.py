"""What a refusal tells, and what it keeps to itself."""

import pytest

from pixelwise.errors import ConfigError, DataError, NotEnoughMemoryError
from pixelwise.serve.refusals import content, hidden, refusal_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/data/jobs/12/map.tif is damaged.", "jobs/12/map.tif is damaged."),
        ("/srv/data/scenes/a.tif names '/etc/ssl/private.key'.", "scenes/a.tif names 'private.key'."),
        ("GET /jobs/ID lists what it has. See /docs.", "GET /jobs/ID lists what it has. See /docs."),
        ("http://127.0.0.1:8000/etc/passwd and a/etc/b stay.", "http://127.0.0.1:8000/etc/passwd and a/etc/b stay."),
    ],
)
def test_folders_of_the_machine_are_hidden_and_addresses_are_not(text, shown):
    assert hidden(text, {"/srv/data": "data", "/srv/data/jobs": "jobs", "/srv/data/scenes": "scenes"}) == shown


@pytest.mark.parametrize(
    ("problem", "status"),
    [(DataError, 422), (ConfigError, 422), (NotEnoughMemoryError, 503)],
    ids=lambda each: str(each),
)
def test_an_error_is_told_with_its_fix_in_the_form_of_its_address(problem, status):
    found = refusal_of(problem("a.png is cut off. Copy it again."))
    assert found.status_code == status
    told = content(found, "/segment", {})["error"]
    assert (told["message"], told["fix"]) == ("a.png is cut off.", "Copy it again.")
    assert content(found, "/v2/models/a/infer", {}) == {"error": "a.png is cut off. Copy it again."}
    assert all(content(refusal_of(problem("One sentence.")), "/", {})["error"].values())
