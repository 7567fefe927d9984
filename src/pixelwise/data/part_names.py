"""What people call the parts of a split."""

import re

WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Word -> the part that it means."""


def part_named(text: str) -> str | None:
    """Return the part that a word means, such as ``train2017`` or ``Valid``; None if it means none."""
    return WORDS.get(re.sub(r"[\d_\W]+$", "", text.strip().lower()))


def part_in_name(name: str) -> str | None:
    """Return the part that one of the words in a name means, such as ``instances_train2017.json``."""
    return next((part for word in re.split(r"[^a-zA-Z0-9]+", name) if (part := part_named(word))), None)
