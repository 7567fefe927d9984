"""Files over HTTPS: resumed, checked, kept once, and refused in sentences."""

import hashlib
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_hub import serving

from pixelwise.errors import ConfigError, WeightsError
from pixelwise.hub import download as fetching
from pixelwise.hub.addresses import Network
from pixelwise.hub.download import NotKeptError, NotThereError, Remote, download, kept_half, kept_path

CONTENTS = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENTS).hexdigest()
PATH = "/plain/weights.pth"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    with serving() as hub:
        hub.files[PATH] = CONTENTS
        yield hub


def remote(hub, **facts):
    return Remote("small", f"{hub.address}{PATH}", **facts)


def partial_files(tmp_path):
    return sorted(path.suffix for path in (tmp_path / "cache").rglob("*") if path.suffix in (".part", ".pth"))


def test_a_file_is_fetched_once_and_then_needs_no_network(hub):
    told = []
    first = download(remote(hub), Network(), advance=lambda done, size: told.append((done, size)))
    again = download(remote(hub), Network(offline=True))
    assert first.path.read_bytes() == CONTENTS
    assert (first, first.sha256) == (again, DIGEST)
    assert len(hub.gets(PATH)) == 1
    assert told[-1] == (len(CONTENTS), len(CONTENTS))


def test_a_broken_connection_is_taken_up_where_it_ended(hub, tmp_path):
    hub.faults[PATH] = [("break", 30_000), ("break", 20_000)]
    kept = download(remote(hub, sha256=DIGEST), Network())
    assert kept.path.read_bytes() == CONTENTS
    assert [headers.get("range") for headers in hub.gets(PATH)] == [None, "bytes=30000-", "bytes=50000-"]
    assert partial_files(tmp_path) == [".pth"]


def test_a_connection_that_stays_broken_keeps_what_came_and_says_how_to_go_on(hub, tmp_path):
    hub.faults[PATH] = [("break", 1000)] * 4
    with pytest.raises(WeightsError, match=r"4 times .*4,000 bytes are kept: give the same command again"):
        download(remote(hub), Network())
    assert partial_files(tmp_path) == [".part"]
    assert download(remote(hub), Network()).path.read_bytes() == CONTENTS
    assert hub.gets(PATH)[-1]["range"] == "bytes=4000-"


@pytest.mark.parametrize("change", ["another file", "no ranges", "no tag", "longer than the file"])
def test_a_half_file_that_cannot_go_on_is_begun_again(hub, change):
    hub.faults[PATH] = [("break", 9000)] * 4
    if change == "no tag":
        hub.tags[PATH] = ""
    with pytest.raises(WeightsError):
        download(remote(hub), Network())
    new = CONTENTS[::-1]
    if change == "another file":
        hub.files[PATH] = new
    elif change == "no ranges":
        hub.ranges = False
    elif change == "longer than the file":
        kept_half(remote(hub)).write_bytes(CONTENTS * 2)
    assert download(remote(hub), Network()).path.read_bytes() == (new if change == "another file" else CONTENTS)


@pytest.mark.parametrize(
    ("facts", "words"),
    [({"sha256": "00ff"}, "00ff is recorded"), ({"size": 5}, "5 are recorded")],
)
def test_another_file_than_the_recorded_one_is_not_kept(hub, tmp_path, facts, words):
    with pytest.raises(WeightsError, match=words):
        download(remote(hub, **facts), Network())
    assert partial_files(tmp_path) == []


def test_what_the_hub_says_of_a_large_file_is_checked(hub, tmp_path):
    hub.put("a/b", "weights.pth", CONTENTS)
    path = "/a/b/resolve/main/weights.pth"
    hub.faults[path] = [{"X-Linked-ETag": f'"{"0" * 64}"'}]
    wanted = Remote("small", f"{hub.address}{path}")
    with pytest.raises(WeightsError, match=f"the server named {'0' * 64}"):
        download(wanted, Network())
    assert download(wanted, Network()).sha256 == DIGEST


def test_a_kept_file_that_changed_is_fetched_again(hub):
    kept = download(remote(hub), Network())
    kept.path.write_bytes(b"damaged")
    assert download(remote(hub), Network()).path.read_bytes() == CONTENTS


def test_a_file_that_was_copied_into_the_cache_by_hand_is_taken_if_it_is_the_recorded_one(hub):
    wanted = remote(hub, sha256=DIGEST[:8])
    path = kept_path(wanted)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENTS)
    assert download(wanted, Network(offline=True)).sha256 == DIGEST
    path.write_bytes(b"another")
    with pytest.raises(NotKeptError, match=r"weights\.pth is damaged or another file"):
        download(wanted, Network(offline=True))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, r"not open to everybody: the server answered 401, and no token was sent\. .*export HF_TOKEN="),
        (403, r"answered 403"),
        (404, r"is not at http.*Correct the name"),
        ({"status": 429, "Retry-After": "17"}, r"429\)\. Give the same command again in 17 seconds"),
        ({"status": 429, "Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, "in some minutes"),
        (418, "answered 418"),
        ({"status": 302, "Location": "ftp://example.org/w.pth"}, "sends to the unencrypted address ftp:"),
        ({"Content-Type": "text/html; charset=utf-8"}, r"sends a page in place of small\. Open http.*in a browser"),
    ],
)
def test_a_refusal_says_what_to_do(hub, tmp_path, fault, words):
    hub.faults[PATH] = [fault]
    with pytest.raises(WeightsError, match=words) as raised:
        download(remote(hub), Network())
    assert isinstance(raised.value, NotThereError) == (fault == 404)
    assert partial_files(tmp_path) == []


def test_a_server_with_a_fault_is_asked_again(hub):
    hub.faults[PATH] = [503, 502]
    assert download(remote(hub), Network()).sha256 == DIGEST
    hub.faults["/plain/other.pth"] = [500] * 4
    with pytest.raises(WeightsError, match="the server answered 500"):
        download(replace(remote(hub), address=f"{hub.address}/plain/other.pth"), Network())


def test_a_token_goes_to_its_host_alone(hub):
    hub.put("a/b", "w", CONTENTS)
    with serving() as other:
        # The hub sends us to another host for the contents.
        other.files["/cdn/a/b/resolve/main/w"] = other.files["/a/b/resolve/main/w"] = CONTENTS
        hub.faults["/a/b/resolve/main/w"] = [{"Location": f"{other.address}/cdn/a/b/resolve/main/w"}]
        download(Remote("small", f"{hub.address}/a/b/resolve/main/w", token="secret"), Network())
        assert hub.asked[0][2]["authorization"] == "Bearer secret"
        assert "authorization" not in other.asked[0][2]


def test_tokens_go_to_the_hub_and_to_an_endpoint_of_the_environment_and_to_no_mirror_of_a_file(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert Network().token == "secret"
    assert Network({"huggingface.co": hub.address}).token == ""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org/")
    assert (Network().endpoint, Network().token) == ("https://hub.example.org", "secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    assert Network().token == ""


def test_a_mirror_serves_a_file_under_its_own_identity(hub):
    wanted = Remote("small", f"https://weights.example.org{PATH}?v=1")
    hub.files[f"{PATH}?v=1"] = CONTENTS
    kept = download(wanted, Network({"weights.example.org": f"{hub.address}/"}))
    assert kept == download(wanted, Network(offline=True))
    with pytest.raises(ConfigError, match="Write an address"):
        Network({"weights.example.org": "elsewhere"}).address(wanted.address)


def test_an_address_that_anybody_could_change_on_the_way_is_refused(hub):
    with pytest.raises(ConfigError, match="begins with https"):
        download(Remote("small", "http://example.org/weights.pth"), Network())


def test_no_connection_names_proxy_and_mirror(hub, monkeypatch):
    with serving() as gone:
        address = gone.address
    with pytest.raises(
        WeightsError, match=r"connection to 127\.0\.0\.1 for small failed .*HTTPS_PROXY.*\[model\]\.mirrors"
    ):
        download(Remote("small", f"{address}/w.pth"), Network())
    # A proxy of the environment is asked in place of the host.
    monkeypatch.setenv("http_proxy", hub.address)
    monkeypatch.delenv("no_proxy", raising=False)
    hub.files["http://127.0.0.1:1/w.pth"] = CONTENTS
    assert download(Remote("small", "http://127.0.0.1:1/w.pth"), Network()).sha256 == DIGEST


def test_a_full_disk_is_said_before_and_while_writing(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(WeightsError, match=r"the disk of .*Make room there, or set PIXELWISE_CACHE"):
        download(remote(hub), Network())
    monkeypatch.undo()
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))

    def full(done, size):
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match=r"No space left on device\. Free space"):
        download(remote(hub), Network(), advance=full)
    assert partial_files(tmp_path) == [".part"]


def test_two_processes_fetch_a_file_once(hub):
    go = threading.Event()
    hub.faults[PATH] = [go]
    program = (
        "import sys; from pixelwise.hub.download import *; from pixelwise.hub.addresses import Network\n"
        "print(download(Remote('small', sys.argv[1]), Network(), say=lambda text: print(text, flush=True)).sha256)"
    )

    def started():
        command = [sys.executable, "-c", program, f"{hub.address}{PATH}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    first = started()
    while not hub.asked:
        assert first.poll() is None
    second = started()
    assert "Another process fetches small" in second.stdout.readline()
    go.set()
    assert first.communicate()[0].split() == second.communicate()[0].split() == [DIGEST]
    assert len(hub.gets(PATH)) == 1
