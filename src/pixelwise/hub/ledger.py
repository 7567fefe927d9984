"""The ledger: weights that are known by name, with their licences. Its rows are in ``ledger.toml``."""

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

from pixelwise.errors import WeightsError
from pixelwise.hub.licences import Origin

HUB = "https://huggingface.co"
NOT_READ = "not read"
WITH_ENCODER = ("deeplabv3", "pspnet", "segmenter", "setr", "depict")
"""Beginnings of the names of networks that do not tell their encoder."""


@dataclass(frozen=True)
class Licence:
    """A licence of weights, in short; its text alone counts."""

    name: str
    """SPDX identifier, or the name that `accept_licence` takes."""
    title: str
    commercial: str
    """"yes", "no" or "unknown"."""
    text: str
    """Address of its text."""
    asks: str = ""
    forbids: str = ""

    @property
    def terms(self) -> str:
        """What it forbids or asks, in sentences."""
        parts = [f"It forbids {self.forbids}." if self.forbids else "", f"It asks: {self.asks}." if self.asks else ""]
        return " ".join(part for part in (*parts, f"Its text: {self.text}." if self.text else "") if part)


@dataclass(frozen=True)
class Row:
    """A file of weights. A fact that was not read in a source is empty."""

    name: str
    licence: str
    layout: str
    data: str
    """What it was trained on."""
    attribution: str
    read: str
    """Where these facts were read."""
    short: str = ""
    """Taken for this word, such as "imagenet", where network and encoder are those of the configuration."""
    network: str = ""
    """Network that it fills; empty: its encoder alone."""
    encoder: str = ""
    file: str = ""
    """In the hub's repository that `name` is."""
    revision: str = "main"
    """Of that repository."""
    url: str = ""
    package: str = ""
    """Path below the installed packages."""
    page: str = ""
    """Where the file is found by hand, if it has no address of its own."""
    size: int | str = ""
    """Bytes, or as the source writes it."""
    sha256: str = ""
    """Whole, or its beginning."""
    score: str = ""
    note: str = ""
    loaded: str = ""
    """The encoder that brings these weights along, if [model].weights does not load them."""

    @property
    def source(self) -> str:
        """The address of the file, or of the page that has it."""
        if self.package:
            return f"the package {self.package.split('/')[0].replace('_', '-')}"
        if self.file:
            return f"{HUB}/{self.name}/resolve/{self.revision}/{self.file}"
        return self.url or self.page or f"{HUB}/{self.name}"

    @property
    def commercial(self) -> str:
        """May it be used commercially: "yes", "no" or "unknown"."""
        return licence_of(self.licence).commercial

    @property
    def fits(self) -> str:
        """What it fills, in words."""
        if self.loaded:
            return f"an encoder of {self.loaded.split(':')[0]}"
        if self.network.startswith(WITH_ENCODER):
            return f"{self.network} with {self.encoder}"
        return self.network or (f"encoder {self.encoder}" if self.encoder else "no network here yet")

    def origin(self, sha256: str) -> Origin:
        """Return what a model that starts from it remembers."""
        return Origin(self.name, self.source, self.licence, self.commercial, self.attribution, sha256)

    def to_dict(self) -> dict:
        """Return what ``--json`` prints; facts that were not read are null."""
        facts = {key: value or None for key, value in asdict(self).items()}
        return {**facts, "commercial": self.commercial, "source": self.source}


@cache
def _table() -> tuple[dict[str, Licence], tuple[Row, ...]]:
    table = tomllib.loads(files("pixelwise.hub").joinpath("ledger.toml").read_text(encoding="utf-8"))
    rows = []
    for group in table["group"]:
        shared = {key: value for key, value in group.items() if key not in ("rows", "base")}
        for row in group["rows"]:
            placed = {"url": group["base"] + row["url"]} if "base" in group and "url" in row else {}
            rows.append(Row(**{**shared, **row, **placed}))
    return {name: Licence(name, **facts) for name, facts in table["licence"].items()}, tuple(rows)


def rows() -> tuple[Row, ...]:
    """Return every row, in the order of the table."""
    return _table()[1]


def licence_of(name: str) -> Licence:
    """Return a licence by its name, in any case; of one that is not in the table nothing is known."""
    licences = _table()[0]
    known = {each.casefold(): licence for each, licence in licences.items()}
    unknown = licences["unknown"]
    return known.get(name.casefold(), Licence(name, name, "unknown", "", forbids=unknown.forbids if not name else ""))


def short_names() -> tuple[str, ...]:
    """Return the words that stand for a row of each network: "imagenet", "ade20k" ..."""
    return tuple(dict.fromkeys(row.short for row in rows() if row.short))


def by_name(name: str) -> Row | None:
    """Return the row of a name."""
    return next((row for row in rows() if row.name == name), None)


def by_encoder(encoder: str) -> Row | None:
    """Return the row of the weights that an encoder of a library brings along, such as "timm:convnext_tiny"."""
    return next((row for row in rows() if row.loaded == encoder), None)


def by_digest(sha256: str) -> Row | None:
    """Return the row of a file, by its whole SHA-256 or by the beginning that the ledger has."""
    return next((row for row in rows() if row.sha256 and sha256.startswith(row.sha256)), None)


def for_network(short: str, network: str, encoder: str) -> Row:
    """Return the row that a short name means for a network.

    Args:
        short: one of `short_names`.
        network, encoder: of the configuration.

    Raises:
        WeightsError: there is none; the message names those that fit.
    """
    fitting = fitting_weights(network, encoder)
    for row in fitting:
        if row.short == short:
            return row
    if encoder.startswith(("transformers:", "timm:")):
        raise WeightsError(f"The encoder {encoder} brings its own weights. Leave [model].weights = {short!r} out.")
    words = list(dict.fromkeys(row.short for row in fitting if row.short))
    known = f"It has {', '.join(map(repr, words))}. " if words else ""
    raise WeightsError(
        f"No weights {short!r} are known for {network} with the encoder {encoder}. {known}"
        f"`pixelwise weights --network {network}` lists what fits; or give a file or an address.",
        code="PW506",
    )


def fitting_weights(network: str, encoder: str) -> list[Row]:
    """Return the rows that fill a network or its encoder."""
    fitting = [row for row in rows() if row.network in ("", network) and row.encoder in ("", encoder)]
    return [row for row in fitting if row.network or row.encoder]


def nearest(name: str) -> str:
    """Return a sentence that suggests a name, or nothing."""
    known = [*short_names(), *(row.name for row in rows())]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def select(*, network: str = "", licence: str = "", commercial: bool = False, match: str = "") -> list[Row]:
    """Return the rows that pass all filters.

    Args:
        network: a network or an encoder that the row fills.
        licence: its name, or a part of it.
        commercial: only weights whose licence allows commercial use.
        match: a part of the name.
    """
    return [
        row
        for row in rows()
        if (not network or network in (row.network, row.encoder, row.loaded) or _encoder(network) == row.encoder != "")
        and licence.casefold() in row.licence.casefold()
        and (not commercial or row.commercial == "yes")
        and match.casefold() in row.name.casefold()
    ]


def _encoder(network: str) -> str:
    """Return the encoder that a network has by itself; torch is imported for it, so this comes last."""
    from pixelwise.models import MODELS

    return MODELS[network].encoder if network in MODELS else ""


def size_text(size: int | str) -> str:
    """Return a size in words: 14.4 MB."""
    return f"{size / 1e6:,.1f} MB" if isinstance(size, int) else size


def table_text(shown: Iterable[Row]) -> str:
    """Return rows as aligned columns."""
    head = ("name", "short", "fits", "score", "licence", "commercial")
    lines = [head, *((row.name, row.short, row.fits, row.score, row.licence, row.commercial) for row in shown)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def row_text(row: Row) -> str:
    """Return all facts of a row, one a line."""
    licence = licence_of(row.licence)
    facts = {
        "fits": f"encoder = {row.loaded!r}, which brings them along" if row.loaded else row.fits,
        "short": row.short or "none",
        "layout": row.layout,
        "source": row.source,
        "size": size_text(row.size) or NOT_READ,
        "SHA-256": (row.sha256 if len(row.sha256) == 64 else f"begins with {row.sha256}") if row.sha256 else NOT_READ,
        "data": row.data,
        "score": row.score or NOT_READ,
        "licence": licence.title if licence.title == row.licence else f"{row.licence}: {licence.title}",
        "commercial": row.commercial,
        "terms": licence.terms,
        "attribution": row.attribution,
        "read in": row.read,
        "note": row.note,
    }
    return "\n".join([row.name, *(f"  {key:<12} {value}" for key, value in facts.items() if value)])
