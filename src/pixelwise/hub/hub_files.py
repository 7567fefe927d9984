"""Files in repositories of the hub: through huggingface_hub where it is installed, else by their address."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pixelwise.errors import WeightsError
from pixelwise.files import file_digest
from pixelwise.hub.addresses import HUB_HOST, Network, hub_address
from pixelwise.hub.download import Advance, Kept, NotKeptError, Remote, download, no_connection, refusal
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
    if not has_client():
        return download(remote, network, advance=advance, say=say)
    from huggingface_hub.errors import FileMetadataError

    try:
        return _checked(wanted, _through_client(wanted, remote, network, advance))
    except FileMetadataError:
        # A mirror that is a plain folder of files: it says nothing of commits, which the client asks for.
        return download(remote, network, advance=advance, say=say)


def _through_client(wanted: HubFile, remote: Remote, network: Network, advance: Advance | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(
            wanted.repository,
            wanted.file,
            revision=wanted.revision,
            endpoint=network.endpoint,
            # False: none, not even the one that the user is logged in with.
            token=network.token or (False if HUB_HOST in network.mirrors else None),
            cache_dir=os.environ.get("HF_HUB_CACHE") or None,
            local_files_only=network.offline,
            tqdm_class=_bar(advance),
        )
    except HfHubHTTPError as error:
        response = getattr(error, "response", None)
        status, headers = getattr(response, "status_code", 0), getattr(response, "headers", {})
        raise refusal(remote, status, headers.get("Retry-After", "")) from None
    except LocalEntryNotFoundError as error:
        if network.offline:
            raise NotKeptError(
                f"{remote.name} is not kept on this machine, and nothing is fetched (HF_HUB_OFFLINE). Fetch it on a "
                f"machine with a network (`pixelwise weights {remote.asked} --download`), and copy the hub's cache "
                "(HF_HOME), or the file, whose path [model].weights takes."
            ) from None
        if isinstance(_first_cause(error), FileMetadataError):
            raise _first_cause(error) from None
        raise _unreached(remote, network, error) from None
    except FileMetadataError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreached(remote, network, error) from None
    except Exception as error:
        # Errors of the client's own network library, which changes between its versions.
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "huggingface_hub"):
            raise _unreached(remote, network, error) from None
        raise
    return Path(path)


def _first_cause(error: Exception) -> Exception:
    """Return what the client met first; it wraps that several times."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _unreached(remote: Remote, network: Network, error: Exception) -> WeightsError:
    cause = _first_cause(error)
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if status:
        return refusal(remote, status, cause.response.headers.get("Retry-After", ""))  # type: ignore[attr-defined]
    reason = " ".join(str(cause).split())[:200] or type(cause).__name__
    return WeightsError(no_connection(remote, network.endpoint, reason))


def _checked(wanted: HubFile, path: Path) -> Kept:
    """Check a file against the ledger, and against the name that the client's cache gave it, which is its SHA-256."""
    digest, blob = file_digest(path), path.resolve()
    named = blob.name if len(blob.name) == 64 else ""
    wrong_size = wanted.size is not None and path.stat().st_size != wanted.size
    if digest.startswith(wanted.sha256) and not wrong_size and named in ("", digest):
        return Kept(path, digest)
    for each in (path, blob):
        each.unlink(missing_ok=True)
    raise WeightsError(
        f"{wanted.file} of {wanted.repository} has the SHA-256 {digest}, and {wanted.sha256 or named} is recorded. It "
        "is damaged or another file, and was removed. Give the same command again; if it stays so, its publisher has "
        "replaced it: look at it by hand, and give its path."
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
