"""What pydantic says of a configuration, in sentences that name the key and the fix."""

import difflib

from pydantic import BaseModel, ValidationError


def describe_mistakes(error: ValidationError, tables: type[BaseModel]) -> str:
    """Return up to three sentences, one for each key.

    Args:
        error: what pydantic found. For a value of several possible types it lists a problem per type; they become one
            sentence.
        tables: the configuration's class, whose fields are the tables.
    """
    by_key: dict[tuple, list] = {}
    for problem in error.errors():
        by_key.setdefault(problem["loc"][:2], []).append(problem)
    shown = [_sentence(problems, tables) for problems in list(by_key.values())[:3]]
    more = f" There are {len(by_key) - 3} more." if len(by_key) > 3 else ""
    return " ".join(shown) + more


def _sentence(problems: list, tables: type[BaseModel]) -> str:
    problem = problems[0]
    place = [str(part) for part in problem["loc"]]
    name = f"[{place[0]}]" + (f".{place[1]}" if len(place) > 1 else "")
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a known key. {_hint(place, tables)}"
    if problem["type"] == "missing":
        return f"{name} is missing. Add it: {_description(place, tables)}."
    given = problem.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    if problem["type"] in ("model_type", "model_attributes_type") and len(place) == 1:
        return f"{name} must be a table with keys of its own{shown}; `pixelwise train --print-config` shows them."
    reasons = list(dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in problems))
    others = [reason.removeprefix("Input should be ") for reason in reasons[1:4]]
    return f"{name}: {' or '.join([reasons[0], *others])}{shown}."


def _hint(place: list[str], tables: type[BaseModel]) -> str:
    key, table = place[-1], tables.model_fields.get(place[0])
    known = list(getattr(tables if len(place) == 1 else (table and table.annotation), "model_fields", {}))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if len(place) == 1:
        homes = [
            f"[{name}].{key}"
            for name, entry in tables.model_fields.items()
            if key in getattr(entry.annotation, "model_fields", {})
        ]
        near = homes or [f"[{each}]" for each in near]
    return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."


def _description(place: list[str], tables: type[BaseModel]) -> str:
    table = tables.model_fields.get(place[0])
    if len(place) == 1 or table is None:
        return "a table, as in `pixelwise train --print-config`"
    fields = getattr(table.annotation, "model_fields", {})
    return fields[place[1]].description if place[1] in fields else "see `pixelwise train --print-config`"
