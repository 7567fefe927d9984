"""Files in repositories of the hub: through huggingface_hub where it is installed, else by their address."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, PixelwiseError, WeightsError
from pixelwise.files import file_digest, room_on_disk
from pixelwise.hub.addresses import Network, hub_address
from pixelwise.hub.download import Advance, Kept, NotKeptError, Remote, download, is_kept, no_connection, refusal
from pixelwise.hub.ledger import HUB, by_name


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the hub."""

    repository: str
    file: str
    revision: str = "main"
    sha256: str = ""
    """Whole, or its beginning; empty if it is not known."""
    size: int | None = None

    def remote(self, token: str) -> Remote:
        """Return it as a file that has an address."""
        address = hub_address(self.repository, self.revision, self.file)
        name = self.repository if by_name(self.repository) else f"hf:{self.repository}"
        return Remote(name, address, self.sha256, self.size, token, f"{HUB}/{self.repository}", name)


def has_client() -> bool:
    """Return whether huggingface_hub is installed."""
    return find_spec("huggingface_hub") is not None


def fetch_hub_file(
    wanted: HubFile, network: Network, *, advance: Advance | None = None, say: Callable[[str], None] | None = None
) -> Kept:
    """Return a file of the hub, which is fetched if it is not kept yet.

    huggingface_hub keeps files in its own cache, which other programs share; without it they are in ours.

    Raises:
        NotKeptError: it is not kept, and the network must not be used.
        WeightsError: it cannot be fetched, or is not the file that it should be.
        ConfigError: the disk is full, or an address that is not fetched.
    """
    remote = wanted.remote(network.token)
    if not has_client() or is_kept(remote):
        return download(remote, network, advance=advance, say=say)
    from huggingface_hub.errors import FileMetadataError

    try:
        return _checked(wanted, _through_client(wanted, remote, network, advance), network)
    except FileMetadataError:
        # A mirror that is a plain folder of files: it says nothing of commits, which the client asks for.
        return download(remote, network, advance=advance, say=say)


def _through_client(wanted: HubFile, remote: Remote, network: Network, advance: Advance | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        with room_on_disk(Path(wanted.file)):
            path = hf_hub_download(
                wanted.repository,
                wanted.file,
                revision=wanted.revision,
                endpoint=network.endpoint,
                # False: none, not even the one that the user is logged in with.
                token=network.token or (None if network.takes_token else False),
                cache_dir=os.environ.get("HF_HUB_CACHE") or None,
                local_files_only=network.offline,
                tqdm_class=_bar(advance),
            )
    except PixelwiseError:
        raise
    except Exception as error:
        raise _in_words(error, remote, network) from None
    return Path(path)


def _in_words(error: Exception, remote: Remote, network: Network) -> Exception:
    """Return an error of the client as one of ours; one that is no trouble with the network stays as it is."""
    from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError

    cause = error
    while isinstance(cause.__cause__, Exception):
        # The client wraps what it met several times.
        cause = cause.__cause__
    if isinstance(cause, FileMetadataError):
        return cause
    response: Any = getattr(cause, "response", None)
    if getattr(response, "status_code", 0):
        return refusal(remote, response.status_code, response.headers.get("Retry-After", ""))
    if network.offline and isinstance(error, LocalEntryNotFoundError):
        return NotKeptError(
            f"{remote.name} is not kept on this machine, and nothing is fetched (HF_HUB_OFFLINE). Fetch it where there "
            f"is a network (`pixelwise weights {remote.asked} --download`), and copy the hub's cache (HF_HOME), or the "
            "file, whose path [model].weights takes."
        )
    if isinstance(cause, OSError) and cause.filename:
        return ConfigError(
            f"{cause.filename}, where huggingface_hub keeps files, failed: {cause.strerror}. Set HF_HUB_CACHE to a "
            "folder that can be written.",
            code="PW802",
        )
    # Its network library has errors of its own, and changes between versions.
    of_network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "huggingface_hub")
    if not (of_network or isinstance(error, OSError | ValueError)):
        return error
    reason = " ".join(str(cause).split())[:200] or type(cause).__name__
    return WeightsError(no_connection(remote, network.endpoint, reason), code="PW507")


def _checked(wanted: HubFile, path: Path, network: Network) -> Kept:
    """Check a file against the ledger, and against the name that the client's cache gave it, which is its SHA-256."""
    digest, blob = file_digest(path), path.resolve()
    named = blob.name if len(blob.name) == 64 else ""
    wrong_size = wanted.size is not None and path.stat().st_size != wanted.size
    if digest.startswith(wanted.sha256) and not wrong_size and named in ("", digest):
        return Kept(path, digest)
    again = "Give the same command where there is a network"
    if not network.offline:
        for each in (path, blob):
            each.unlink(missing_ok=True)
        again = "It was removed. Give the same command again"
    raise WeightsError(
        f"{path} has the SHA-256 {digest}, and {wanted.sha256 or named} is recorded for {wanted.file} of "
        f"{wanted.repository}. It is damaged or another file. {again}; if it stays so, its publisher has replaced it: "
        "look at it by hand, and give its path.",
        code="PW508",
    )


def _bar(advance: Advance | None) -> Any:
    """Return a class that tells ``advance`` what the client would draw."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.done = kwargs.get("initial") or 0
            super().__init__(
                *args, **{key: value for key, value in kwargs.items() if key != "name"} | {"disable": True}
            )

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            if advance is not None:
                advance(self.done, int(self.total) if self.total else None)
            return None

    return Bar
