"""Files fetched over HTTPS: resumed after a break, checked, and kept once for all processes of a user."""

import hashlib
import http.client
import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from pixelwise import __version__
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.files import ensure_folder, file_digest, move_durably, replacing, room_on_disk
from pixelwise.hub.addresses import Network, cache_folder

TRIES, PAUSE = 4, 1.0
"""How often a broken connection is taken up again, and seconds before the first time; they double."""
TIMEOUT = 30.0
"""Seconds without a byte."""
CHUNK = 1 << 20
_BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)

Advance = Callable[[int, int | None], None]
"""Called with the bytes that are there, and all bytes, if that is known."""


class NotKeptError(WeightsError):
    """A file that would have to be fetched, where nothing may be fetched."""

    code = "PW507"


class NotThereError(WeightsError):
    """A file that its server does not have."""

    code = "PW507"


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, and what is known of it."""

    name: str
    """As messages name it."""
    address: str
    sha256: str = ""
    """Whole, or its beginning."""
    size: int | None = None
    token: str = ""
    """Sent to the host of the address alone."""
    page: str = ""
    """Where a user asks for access."""
    asked: str = "NAME"
    """What `pixelwise weights` takes for it."""


@dataclass(frozen=True)
class Kept:
    """A file on this machine."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Answer:
    """What a server says of a file."""

    size: int | None
    sha256: str
    """The hub tells it of large files."""
    tag: str
    """Changes when the file does: its ETag, or the date of its last change."""


def kept_path(remote: Remote) -> Path:
    """Return where a file is kept. The original address decides, so that a mirror serves the same file."""
    # Names have 255 bytes at most.
    name = urlsplit(remote.address).path.rsplit("/", 1)[-1][-100:] or "file"
    key = hashlib.sha256(remote.address.encode()).hexdigest()[:16]
    return cache_folder() / "weights" / f"{key}-{name}"


def download(
    remote: Remote,
    network: Network,
    *,
    advance: Advance | None = None,
    say: Callable[[str], None] | None = None,
) -> Kept:
    """Return a file, which is fetched if it is not kept yet. Nothing half written has its name.

    Raises:
        NotKeptError: it is not kept, and the network must not be used.
        WeightsError: it cannot be fetched, or is not the file that it should be.
        ConfigError: the disk is full, or the cache cannot be written.
    """
    path = kept_path(remote)
    if (kept := _kept(path, remote)) is not None:
        return kept
    if network.offline:
        wrong = f" What lies at {path} is damaged or another file." if path.is_file() else ""
        raise NotKeptError(
            f"{remote.name} is not kept on this machine, and nothing is fetched (HF_HUB_OFFLINE).{wrong} Fetch it "
            f"where there is a network (`pixelwise weights {remote.asked} --download`) and copy it to {path}, or give "
            "its path as [model].weights."
        )
    address = network.address(remote.address)
    try:
        ensure_folder(path.parent)
    except ConfigError as problem:
        raise ConfigError(f"{problem} For weights that are fetched, PIXELWISE_CACHE names it.", code="PW802") from None
    with _locked(path, remote, say or (lambda text: None)):
        # Another process may have fetched it meanwhile.
        kept = _kept(path, remote)
        return _fetch(remote, address, path, advance or (lambda done, size: None)) if kept is None else kept


def is_kept(remote: Remote) -> bool:
    """Return whether a file is in our cache, whole."""
    return _kept(kept_path(remote), remote) is not None


def _kept(path: Path, remote: Remote) -> Kept | None:
    """Return a file that is kept, if it is as it was when it was checked.

    A file that a user copied there is checked by what the ledger has, and taken if it has nothing.
    """
    if not path.is_file():
        return None
    digest = file_digest(path)
    expected = _read_notes(_beside(path, ".json")).get("sha256", "") or remote.sha256
    return Kept(path, digest) if digest.startswith(expected) else None


@contextmanager
def _locked(path: Path, remote: Remote, say: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(_beside(path, ".lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Another process fetches {remote.name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(remote: Remote, address: str, path: Path, advance: Advance) -> Kept:
    """Fetch a file into its place."""
    part = kept_half(remote)
    answer = _receive_all(remote, address, part, advance)
    digest = file_digest(part)
    _require_right(remote, answer, part, digest)
    _write_notes(_beside(path, ".json"), {"address": remote.address, "sha256": digest})
    with room_on_disk(path):
        move_durably(part, path)
    _beside(part, ".json").unlink(missing_ok=True)
    return Kept(path, digest)


def _receive_all(remote: Remote, address: str, part: Path, advance: Advance) -> Answer:
    """Receive a file whole; a connection that breaks is taken up again."""
    pause = PAUSE
    for _ in range(TRIES - 1):
        with suppress(*_BROKEN):
            return _receive(remote, address, part, advance)
        time.sleep(pause)
        pause *= 2
    try:
        return _receive(remote, address, part, advance)
    except _BROKEN as error:
        there = part.stat().st_size if part.exists() else 0
        raise WeightsError(
            f"Fetching {remote.name} from {urlsplit(address).hostname} failed {TRIES} times ({_reason(error)}). "
            f"{there:,} bytes are kept: give the same command again, and it goes on there.",
            code="PW507",
        ) from None


def _receive(remote: Remote, address: str, part: Path, advance: Advance) -> Answer:
    """Add to a half file what is missing, or begin it again where the server has another file or sends no ranges."""
    notes = _beside(part, ".json")
    there, tag = (part.stat().st_size if part.exists() else 0), _read_notes(notes).get("tag", "")
    headers = {"Range": f"bytes={there}-", "If-Range": tag} if there and tag else {}
    with _opened(remote, address, headers) as (response, answer):
        _require_no_page(remote, response)
        goes_on = response.status == 206
        if goes_on and (
            answer.tag != tag or not response.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        ):
            part.unlink()
            raise ConnectionError("the file changed at its source, and is begun again")
        done = there if goes_on else 0
        _require_room(remote, part, answer.size, done)
        _write_notes(notes, {"tag": answer.tag})
        with room_on_disk(part), part.open("ab" if goes_on else "wb") as file:
            while block := response.read(CHUNK):
                file.write(block)
                done += len(block)
                advance(done, answer.size)
    if answer.size is not None and done < answer.size:
        raise ConnectionError(f"it ended after {done:,} of {answer.size:,} bytes")
    return answer


@contextmanager
def _opened(remote: Remote, address: str, headers: dict[str, str]) -> Iterator[tuple[Any, Answer]]:
    """Open an address, and say what is wrong where that does not work."""
    request = urllib.request.Request(address, headers={"User-Agent": f"pixelwise/{__version__}", **headers})
    if remote.token:
        # Not sent on to another host.
        request.add_unredirected_header("Authorization", f"Bearer {remote.token}")
    redirect = _Redirect(remote.token)
    try:
        response = urllib.request.build_opener(redirect).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                # The half file is longer than the file is now.
                kept_half(remote).unlink(missing_ok=True)
                raise ConnectionError("the file changed at its source, and is begun again") from None
            if error.code >= 500:
                raise ConnectionError(f"the server answered {error.code}") from None
            raise refusal(remote, error.code, error.headers.get("Retry-After", "")) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError | ConnectionResetError | ConnectionAbortedError):
            raise ConnectionError(_reason(error.reason)) from None
        raise WeightsError(no_connection(remote, address, _reason(error.reason)), code="PW507") from None
    with response:
        yield response, _answer(response, redirect.seen)


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follow redirects: never from https to http, and with the token only to the host that it is for."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.seen: dict[str, str] = {}

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request of the next address, and keep what the hub said of the file before it sent us there."""
        self.seen |= {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-linked-")}
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("https", old.scheme):
            raise urllib.error.URLError(f"{old.hostname} sends to the unencrypted address {newurl}")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and self.token and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            following.add_unredirected_header("Authorization", f"Bearer {self.token}")
        return following


def _require_no_page(remote: Remote, response: Any) -> None:
    """Refuse what a portal, a proxy or a shared drive shows in place of a file."""
    if response.headers.get_content_type() == "text/html":
        raise WeightsError(
            f"{urlsplit(response.url).hostname} sends a page in place of {remote.name}. Open "
            f"{remote.page or remote.address} in a browser (a network may ask for a login first), fetch the file by "
            "hand, and give its path.",
            code="PW507",
        )


def _answer(response: Any, linked: dict[str, str]) -> Answer:
    headers = response.headers
    _, _, whole = headers.get("Content-Range", "").partition("/")
    size = linked.get("x-linked-size") or whole or headers.get("Content-Length") or ""
    digest = linked.get("x-linked-etag") or headers.get("X-Linked-ETag") or ""
    digest = digest.removeprefix("W/").strip('"')
    tag = headers.get("ETag") or headers.get("Last-Modified") or ""
    return Answer(int(size) if size.isdigit() else None, digest if _is_digest(digest) else "", tag)


def kept_half(remote: Remote) -> Path:
    """Return where a file grows until it is whole."""
    return _beside(kept_path(remote), ".part")


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _require_room(remote: Remote, part: Path, size: int | None, done: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size is not None and size - done > free:
        raise WeightsError(
            f"{remote.name} needs {(size - done) / 1e6:,.0f} MB more, and the disk of {part.parent} has "
            f"{free / 1e6:,.0f} MB free. Make room there, or set PIXELWISE_CACHE to a folder on another disk.",
            code="PW507",
        )


def _require_right(remote: Remote, answer: Answer, part: Path, digest: str) -> None:
    """Check that what came is what the server and the ledger say; else remove it."""
    size = part.stat().st_size
    problem = ""
    if remote.size is not None and size != remote.size:
        problem = f"has {size:,} bytes, and {remote.size:,} are recorded"
    elif not digest.startswith(remote.sha256):
        problem = f"has the SHA-256 {digest}, and {remote.sha256} is recorded"
    elif answer.sha256 and digest != answer.sha256:
        problem = f"has the SHA-256 {digest}, and the server named {answer.sha256}"
    if not problem:
        return
    for each in (part, _beside(part, ".json")):
        each.unlink(missing_ok=True)
    raise WeightsError(
        f"What came from {remote.address} {problem}, so it is damaged or another file, and was not kept. Give the same "
        "command again; if it stays so, its publisher has replaced it: look at it by hand, and give its path.",
        code="PW508",
    )


def refusal(remote: Remote, status: int, retry_after: str = "") -> WeightsError:
    """Return the error that says why a server refuses a file, and what to do."""
    return (NotThereError if status in (404, 410) else WeightsError)(_refused(remote, status, retry_after))


def _refused(remote: Remote, status: int, retry_after: str) -> str:
    page = remote.page or remote.address
    if status in (401, 403):
        had = "the token in HF_TOKEN is not allowed to read it" if remote.token else "no token was sent"
        return (
            f"{remote.name} is not open to everybody: the server answered {status}, and {had}. Ask for access at "
            f"{page}, make a token that may read, and set it: export HF_TOKEN=hf_... (Or the name is wrong.)"
        )
    if status in (404, 410):
        return (
            f"{remote.name} is not at {remote.address} (any more): the server answered {status}. Correct the name, or "
            "fetch the file by hand and give its path as [model].weights."
        )
    if status == 429:
        wait = f"in {retry_after} seconds" if retry_after.isdigit() else "in some minutes"
        return (
            f"The server of {remote.name} has too many requests from this address (429). Give the same command again "
            f"{wait}; for the hub, a token (HF_TOKEN) allows more."
        )
    if status >= 500:
        return f"The server of {remote.name} has a fault (it answered {status}). Give the same command again later."
    return (
        f"The server of {remote.name} answered {status}. Look at {page}, or fetch the file by hand and give its path."
    )


def no_connection(remote: Remote, address: str, reason: str) -> str:
    """Return what is wrong, in sentences, where there is no connection."""
    return (
        f"The connection to {urlsplit(address).hostname} for {remote.name} failed ({reason}). Check the network and "
        "the proxy (HTTPS_PROXY); name a mirror in [model].mirrors; or fetch the file elsewhere and give its path as "
        "[model].weights."
    )


def _reason(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _write_notes(path: Path, notes: dict[str, str]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(notes), encoding="utf-8")


def _read_notes(path: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, RecursionError):
        notes = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(notes, dict):
            return {str(key): value for key, value in notes.items() if isinstance(value, str)}
    return {}
