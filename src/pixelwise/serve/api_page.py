"""The page that says what the server can do, made of its OpenAPI table; nothing is loaded from outside."""

import re
from html import escape
from typing import Any

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>pixelwise: the interface</title><style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 0 auto; padding: 1.5rem }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.1rem } code { font: .9em ui-monospace, monospace }
.verb { display: inline-block; min-width: 4.5rem; font-weight: 700 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .8rem .3rem 0;
vertical-align: top; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
</style></head><body><h1>What this server can do</h1>
<p>Programs read <a href="openapi.json">openapi.json</a>. Where the server has a token, send
<code>Authorization: Bearer TOKEN</code>. An error is
<code>{"error": {"code", "message", "fix"}}</code>; below <code>/v2</code>, the Open Inference Protocol, it is
<code>{"error": text}</code>.</p>
"""


def api_page(table: dict[str, Any]) -> str:
    """Return an OpenAPI table as HTML."""
    parts = [HEAD]
    for path, verbs in table["paths"].items():
        for verb, route in verbs.items():
            parts.append(_route(verb, path, route, table))
    return "".join([*parts, "</body></html>"])


def _route(verb: str, path: str, route: dict[str, Any], table: dict[str, Any]) -> str:
    rows = [
        (each["name"], each.get("description", ""), each["schema"], each.get("required", False))
        for each in route.get("parameters", [])
    ]
    for kind in route.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(kind.get("schema", {}), table)
        needed = schema.get("required", [])
        rows += [
            (name, field.get("description", ""), field, name in needed)
            for name, field in schema.get("properties", {}).items()
        ]
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(field, needed))}</td><td>{escape(text)}</td></tr>"
        for name, text, field, needed in rows
    )
    codes = "; ".join(f"{code} {each.get('description', '')}" for code, each in route.get("responses", {}).items())
    head = "<tr><th>Field</th><th>Takes</th><th>Meaning</th></tr>"
    return (
        f'<h2><span class="verb">{verb.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p><b>{escape(route.get('summary', ''))}.</b> {_prose(route.get('description', ''))}</p>"
        + (f"<table>{head}{cells}</table>" if cells else "")
        + f"<p><small>{escape(codes)}</small></p>"
    )


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _resolved(schema: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return table["components"]["schemas"][name] if name else schema


def _kind(field: dict[str, Any], needed: bool) -> str:
    kinds = [field, *field.get("anyOf", [])]
    words = [str(value) for each in kinds for value in each.get("enum", [])]
    kind = " | ".join(words) or next((each["type"] for each in kinds if "type" in each), "")
    kind = "file" if any("contentMediaType" in each or each.get("format") == "binary" for each in kinds) else kind
    default = "" if needed or field.get("default") in (None, "") else f", else {field['default']}"
    return f"{kind}{', needed' if needed else default}"
