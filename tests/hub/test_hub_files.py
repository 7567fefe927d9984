"""Files of the hub: through the real client against a server on loopback, and without the client."""

import hashlib

import pytest
from small_hub import serving

from pixelwise.errors import ConfigError, WeightsError
from pixelwise.hub import addresses, hub_files
from pixelwise.hub import download as fetching
from pixelwise.hub.addresses import Network
from pixelwise.hub.download import NotKeptError, NotThereError
from pixelwise.hub.hub_files import HubFile, fetch_hub_file

CONTENTS = b"small weights" * 1000
DIGEST = hashlib.sha256(CONTENTS).hexdigest()
FILE = HubFile("owner/name", "model.safetensors")
PATH = "/owner/name/resolve/main/model.safetensors"


@pytest.fixture(params=["client", "no client"])
def hub(request, tmp_path, monkeypatch):
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "theirs"))
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    if request.param == "no client":
        monkeypatch.setattr(hub_files, "has_client", lambda: False)
    with serving() as hub:
        hub.put("owner/name", "model.safetensors", CONTENTS)
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def test_a_file_is_fetched_once_and_then_read_offline(hub):
    told = []
    first = fetch_hub_file(FILE, Network(), advance=lambda done, size: told.append((done, size)))
    asked = len(hub.gets(PATH))
    assert first.path.read_bytes() == CONTENTS
    assert first.sha256 == DIGEST
    assert told[-1] == (len(CONTENTS), len(CONTENTS))
    assert fetch_hub_file(FILE, Network(offline=True)) == first
    assert len(hub.gets(PATH)) == asked


def test_offline_without_the_file_says_how_it_gets_there(hub):
    with pytest.raises(NotKeptError, match=r"HF_HUB_OFFLINE.*`pixelwise weights hf:owner/name --download`"):
        fetch_hub_file(FILE, Network(offline=True))
    assert hub.asked == []


def test_a_mirror_of_the_configuration_serves_the_hub_and_gets_no_token(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch_hub_file(FILE, Network({"huggingface.co": hub.address})).sha256 == DIGEST
    assert not any("authorization" in headers for _, _, headers in hub.asked)


def test_an_unencrypted_endpoint_elsewhere_gets_no_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # As if the server on loopback were another machine.
    monkeypatch.setattr(addresses, "LOCAL", ())
    assert fetch_hub_file(FILE, Network()).sha256 == DIGEST
    assert not any("authorization" in headers for _, _, headers in hub.asked)


def test_a_damaged_file_of_the_hubs_cache_stays_where_nothing_can_be_fetched(hub):
    kept = fetch_hub_file(FILE, Network())
    kept.path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="where there is a network"):
        fetch_hub_file(FILE, Network(offline=True))
    assert kept.path.read_bytes() == b"damaged"


def test_the_token_of_the_environment_is_sent_to_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_hub_file(FILE, Network())
    assert hub.asked[0][2]["authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, r"owner/name is not open to everybody.*huggingface\.co/owner/name.*HF_TOKEN"),
        (403, "not open to everybody"),
        (404, "is not at https://huggingface.co/owner/name/resolve/main/model.safetensors"),
    ],
)
def test_refusals_read_alike_with_and_without_the_client(hub, status, words):
    # The client tells a gated repository by this header.
    code = {401: "GatedRepo", 403: "GatedRepo", 404: "EntryNotFound"}[status]
    hub.faults[PATH] = [{"status": status, "X-Error-Code": code} for _ in range(3)]
    with pytest.raises(WeightsError, match=words) as raised:
        fetch_hub_file(FILE, Network())
    assert isinstance(raised.value, NotThereError) == (status == 404)


def test_a_repository_that_does_not_exist_is_not_open_to_anybody(hub):
    hub.faults[PATH] = [{"status": 401, "X-Error-Code": "RepoNotFound"} for _ in range(3)]
    with pytest.raises(WeightsError, match="Or the name is wrong"):
        fetch_hub_file(FILE, Network())


def test_another_file_than_the_recorded_one_is_refused_and_not_kept(hub):
    with pytest.raises(WeightsError, match="00ff is recorded"):
        fetch_hub_file(HubFile("owner/name", "model.safetensors", sha256="00ff"), Network())
    with pytest.raises(NotKeptError):
        fetch_hub_file(FILE, Network(offline=True))


def test_a_mirror_may_be_a_plain_folder_of_files(hub):
    hub.commits = False
    assert fetch_hub_file(FILE, Network({"huggingface.co": hub.address})).sha256 == DIGEST


def test_a_cache_that_cannot_be_written_is_named_with_what_to_set(hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for name in ("PIXELWISE_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"file/cache.* (PIXELWISE_CACHE names it|Set HF_HUB_CACHE)"):
        fetch_hub_file(FILE, Network())


def test_no_server_is_said_in_a_sentence(hub, monkeypatch):
    # The client by itself tries for twenty seconds.
    monkeypatch.setattr(hub_files, "has_client", lambda: False)
    with serving() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.address)
    with pytest.raises(WeightsError, match=r"connection to 127\.0\.0\.1 for .*owner/name failed"):
        fetch_hub_file(FILE, Network())
