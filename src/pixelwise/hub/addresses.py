"""Where a file of weights is fetched from: mirrors, the hub's endpoint, tokens, and whether the network may be used."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from pixelwise.errors import ConfigError
from pixelwise.hub.ledger import HUB

HUB_HOST = urlsplit(HUB).hostname or ""
LOCAL = ("localhost", "127.0.0.1", "::1")
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Network:
    """How files are fetched."""

    mirrors: Mapping[str, str] = field(default_factory=dict)
    """Host -> address that takes its place, such as ``{"huggingface.co": "https://hub.example.org"}``."""
    offline: bool = field(default_factory=lambda: is_offline())
    """Read what is kept, and ask nobody."""

    def address(self, address: str) -> str:
        """Return where an address is asked for: at its mirror, at HF_ENDPOINT if it is the hub's, or itself.

        Raises:
            ConfigError: a mirror that is no address, or an address that is not encrypted.
        """
        parts = urlsplit(address)
        instead = self._instead(parts.hostname or "")
        if not instead:
            require_https(address)
            return address
        if not instead.startswith(("https://", "http://")):
            raise ConfigError(
                f"The mirror of {parts.hostname} is {instead!r} ([model].mirrors or HF_ENDPOINT). Write an address, "
                "such as 'https://example.org'.",
                code="PW512",
            )
        return instead.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")

    def _instead(self, host: str) -> str:
        of_hub = os.environ.get("HF_ENDPOINT", "") if host == HUB_HOST else ""
        return self.mirrors.get(host) or (of_hub if of_hub.rstrip("/") != HUB else "")

    @property
    def endpoint(self) -> str:
        """The hub's address, without a path."""
        return self.address(HUB)

    @property
    def takes_token(self) -> bool:
        """Whether the hub's address is given a token.

        Not a mirror that a configuration names, so that no file takes a token away, and not where it would go
        unencrypted.
        """
        endpoint = urlsplit(self.endpoint)
        return HUB_HOST not in self.mirrors and (endpoint.scheme == "https" or endpoint.hostname in LOCAL)

    @property
    def token(self) -> str:
        """The hub's token, from the environment; empty where none is given."""
        if not self.takes_token:
            return ""
        return os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""


def hub_address(repository: str, revision: str, file: str) -> str:
    """Return the address of a file in a repository of the hub."""
    return f"{HUB}/{quote(repository)}/resolve/{quote(revision, safe='')}/{quote(file)}"


def require_https(address: str) -> None:
    """Check that an address is one that is fetched.

    Raises:
        ConfigError: it is not encrypted, and not of this machine.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL):
        return
    raise ConfigError(
        f"{address} is not fetched: anybody on the way could change the file. Give an address that begins with "
        "https://, or fetch the file by hand and give its path.",
        code="PW512",
    )


def is_offline() -> bool:
    """Return whether the environment forbids the network (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def cache_folder() -> Path:
    """Return the folder of fetched files: PIXELWISE_CACHE, or ``pixelwise`` in the user's cache."""
    named = os.environ.get("PIXELWISE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelwise"
