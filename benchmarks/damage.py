"""Ways to damage a file: the same for the same random generator."""

import random
from collections.abc import Callable
from pathlib import Path

ODD = (
    *("0", "-1", "1", "nan", "inf", "-inf", "1e308", "1e-308", "0.5", "10000000", "999999999999999999999", "true"),
    *("''", "x", "ü", "[]", "[0]", "{}", "[nan, 1]", "../x", "/dev/null", "/", ".", "a\x00b", "auto", "none", "[[[]]]"),
)


def damage_bytes(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    at = rng.randrange(max(1, len(content)))
    head = rng.randrange(max(1, min(300, len(content))))
    ways: dict[str, Callable[[], bytes]] = {
        "cut": lambda: content[:at],
        "cut in the header": lambda: content[:head],
        "empty": lambda: b"",
        "bit": lambda: content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :],
        "header bit": lambda: content[:head] + bytes([content[head] ^ (1 << rng.randrange(8))]) + content[head + 1 :],
        "zeros": lambda: content[:at] + bytes(len(content[at : at + 64])) + content[at + 64 :],
        "noise": lambda: content[:at] + rng.randbytes(len(content[at : at + 64])) + content[at + 64 :],
        "other": lambda: rng.randbytes(200),
        "html": lambda: b"<html>404 not found</html>",
        "twice": lambda: content + content,
    }
    way = rng.choice([*ways, "gone", "folder", "link"])
    if way in ways:
        path.write_bytes(ways[way]() if content else b"x")
    else:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "link":
            path.symlink_to("nowhere")
    return f"{path}: {way}"


def damage_text(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    i = rng.randrange(max(1, len(lines)))
    odd = rng.choice(ODD)
    ways: dict[str, Callable[[], list[str]]] = {
        "line gone": lambda: lines[:i] + lines[i + 1 :],
        "line twice": lambda: [*lines[: i + 1], *lines[i:]],
        "value": lambda: [*lines[:i], lines[i].partition("=")[0] + "= " + odd, *lines[i + 1 :]],
        "key": lambda: [*lines[:i], "x" + lines[i], *lines[i + 1 :]],
        "swapped": lambda: lines[i:] + lines[:i],
        "colon": lambda: [*lines[:i], lines[i].partition(":")[0] + ": " + odd, *lines[i + 1 :]],
    }
    way = rng.choice([*ways])
    path.write_text("\n".join(ways[way]() if lines else [odd]))
    return f"{path}: {way} {odd if way in ('value', 'colon') else ''} in line {i}"


def damage(path: Path, rng: random.Random) -> str:
    text = path.suffix in (".toml", ".json", ".jsonl", ".geojson") and rng.random() < 0.6
    return damage_text(path, rng) if text else damage_bytes(path, rng)
