"""What an export leaves on disk: whose the files there are, and the certificates beside them."""

import json
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.files import replacing

CERTIFICATE = "certificate.json"
"""Beside exported files: their certificates, by the files' names."""
MARK = b"model_sha256"
"""A key of the metadata, which stands as it is in files of all runtimes."""


def require_own(out: Path, weights: Path | None) -> None:
    """Check that an export replaces nobody's file, and no certificates of others.

    Args:
        weights: where OpenVINO's weights go, beside ``out``.

    Raises:
        ConfigError: there is a file that is no export.
    """
    kept_certificates(out)
    own = out.is_file() and MARK in out.read_bytes()
    # Weights have no metadata: they are ours if the graph beside them is.
    for path in (out, weights):
        if path is not None and path.exists() and not own:
            raise ConfigError(
                f"{path} is there and not an export of pixelwise, so it is kept. Move it, or choose another name.",
                code="PW801",
            )


def kept_certificates(out: Path) -> dict[str, object]:
    """Return the certificates of files that lie beside the output.

    Raises:
        ConfigError: a file of that name is something else.
    """
    path = out.with_name(CERTIFICATE)
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and all("relative_difference" in one for one in kept.values()):
            return {name: one for name, one in kept.items() if (out.parent / name).exists()}
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    raise ConfigError(
        f"{path} holds no certificates of pixelwise, so it is kept. Move it, or choose another folder.", code="PW801"
    )


def write_certificate(out: Path, told: dict[str, object]) -> None:
    """Write a file's certificate beside those of the others, as they are now: exports take a while."""
    with replacing(out.with_name(CERTIFICATE)) as temporary:
        temporary.write_text(json.dumps({**kept_certificates(out), out.name: told}, indent=2), encoding="utf-8")
