"""Where weights come from and what their licence allows: `Origin`, which travels with every model made from them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pixelwise.errors import WeightsError

GIVEN_BY_PATH = "unknown: given by path"
"""The licence of a user's own file, about which nothing is known. It is noted and never refused."""
LICENCES_TAG, ORIGINS_TAG = "PIXELWISE_LICENCES", "PIXELWISE_ORIGINS"
"""Of a map: sentences for people, and the records as JSON."""


@dataclass(frozen=True)
class Origin:
    """Weights that a model descends from."""

    name: str
    """As [model].weights takes it; of a file given by path, the file's name."""
    source: str
    """Address of the file, or of the page that has it."""
    licence: str
    """SPDX identifier, or a name in `pixelwise weights`; "unknown" if nobody says."""
    commercial: str
    """May it be used commercially: "yes", "no" or "unknown"."""
    attribution: str
    """Who made it, in a sentence that is to be kept."""
    sha256: str
    """Of the file that was read, in hexadecimal; empty if there was none."""


def given_by_path(name: str, sha256: str) -> Origin:
    """Return the origin of a user's own file."""
    return Origin(name, "a file given by path", GIVEN_BY_PATH, "unknown", "", sha256)


def records(origins: Iterable[Origin]) -> list[dict[str, str]]:
    """Return origins as plain tables, for TOML, JSON and the metadata of exported files."""
    return [asdict(origin) for origin in origins]


def origins_from(tables: Any) -> tuple[Origin, ...]:
    """Return origins from what `records` gave.

    Raises:
        ValueError: something else.
    """
    names = {field.name for field in fields(Origin)}
    if not isinstance(tables, list | tuple):
        raise ValueError("origins must be a list of tables")
    for table in tables:
        if not isinstance(table, dict) or set(table) != names or not all(isinstance(v, str) for v in table.values()):
            raise ValueError(f"an origin must have the texts {', '.join(sorted(names))}")
    return tuple(Origin(**table) for table in tables)


def merged_origins(*several: Iterable[Origin]) -> tuple[Origin, ...]:
    """Return all origins, each once, in their order."""
    return tuple(dict.fromkeys(origin for origins in several for origin in origins))


def sentence(origin: Origin) -> str:
    """Return an origin in one line."""
    use = {"yes": "commercial use allowed", "no": "no commercial use"}.get(origin.commercial, "commercial use unknown")
    parts = [f"{origin.name}: {origin.licence}, {use}", origin.attribution.rstrip("."), f"Source: {origin.source}"]
    return ". ".join(part for part in parts if part) + "."


def notice(origins: Sequence[Origin]) -> str:
    """Return the text of ``NOTICE.txt``, which lies beside a model."""
    lines = [
        "This model descends from weights that others made. Hand this file on with the model and its maps.",
        "",
    ]
    for origin in origins:
        lines += [f"{origin.name}", f"  licence         {origin.licence}", f"  commercial use  {origin.commercial}"]
        lines += [f"  attribution     {origin.attribution or 'not known'}", f"  source          {origin.source}"]
        lines += [f"  SHA-256         {origin.sha256 or 'not known'}", ""]
    return "\n".join(lines)


def origin_tags(origins: Sequence[Origin] | None) -> dict[str, str]:
    """Return the tags of a map; none if its model descends from nothing that is known."""
    if not origins:
        return {}
    return {LICENCES_TAG: " ".join(map(sentence, origins)), ORIGINS_TAG: json.dumps(records(origins))}


def origins_of_tags(tags: dict[str, str]) -> tuple[Origin, ...] | None:
    """Return the origins that a map's tags name; None if they name none.

    Raises:
        ValueError: damaged tags.
    """
    return origins_from(json.loads(tags[ORIGINS_TAG])) if ORIGINS_TAG in tags else None


def needs_consent(origin: Origin) -> bool:
    """Return whether weights load only for who has accepted their licence."""
    return origin.commercial != "yes" and origin.licence != GIVEN_BY_PATH


def require_consent(origin: Origin, accepted: Iterable[str], terms: str) -> None:
    """Check that a user has accepted the licence of weights, if it forbids commercial use or is not known.

    Args:
        accepted: names of licences that the user wrote.
        terms: what the licence forbids and where its text is, as the ledger has it.

    Raises:
        WeightsError: he has not. The message has the line to write.
    """
    if not needs_consent(origin) or origin.licence.casefold() in {name.casefold() for name in accepted}:
        return
    raise WeightsError(
        f"{origin.name} is under the licence {origin.licence}. {terms} If that fits your use, write accept_licence = "
        f'"{origin.licence}" under [model], or give --accept-licence "{origin.licence}"; the licence is then named in '
        "the model, its report and its maps. `pixelwise weights --commercial` lists weights for any use.",
        code="PW505",
    )
