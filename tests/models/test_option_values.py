"""Options of any value: what is built or refused, and that a refusal names the option."""

import subprocess
import sys
from typing import Any

import pytest

import pixelwise as pw

ODD_VALUES = """
import math
import torch
from pixelwise.errors import ConfigError
from pixelwise.models import DECODERS, ENCODERS, _defaults, _made

ODD = ("many", -1, 0, 2.5, True, [], [0], ["a"], [1, 2.5], {}, math.nan)
PYRAMID, PLAIN = ((16, 32, 64, 128, 256), (2, 4, 8, 16, 32)), ((32,) * 4, (16,) * 4)
tried = 0
for table, names in ((ENCODERS, ("vit-tiny", "unet", "resnet18")), (DECODERS, tuple(DECODERS))):
    for name in names:
        about = (3,) if table is ENCODERS else (*(PLAIN if name == "setr-mla" else PYRAMID), 3)
        for key, default in _defaults(table[name]).items():
            # Whether it is true or false, create() checks.
            for value in () if isinstance(default, bool) else ODD:
                tried += 1
                try:
                    with torch.device("meta"):
                        _made(table[name], *about, options={key: value})
                except ConfigError as refusal:
                    assert key in str(refusal), (name, key, value, refusal)
                except Exception as error:
                    raise AssertionError((name, key, value)) from error
assert tried > 500, tried
"""


def test_an_odd_value_gives_a_network_or_is_refused_by_the_name_of_its_option():
    # In a process of its own: here types are checked at each call, and a user's are not.
    done = subprocess.run([sys.executable, "-c", ODD_VALUES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 0}, "ViT's image_size is a whole number from 1 on, not 0"),
        ({"patch": 0}, "ViT's patch is a whole number from 1 on, not 0"),
        ({"depth": 5}, "ViT's depth is a whole number from 6 on, not 5"),
        ({"drop_path": 1.0}, "ViT's drop_path is a chance from 0 to below 1, not 1.0"),
    ],
)
def test_a_vit_says_what_its_option_takes(options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create("setr-naive", classes=3, encoder="vit-tiny", **options)


@pytest.mark.parametrize("key", ["deep_supervision", "averaged"])
def test_an_option_that_is_true_or_false_takes_no_word(key):
    word: dict[str, Any] = {key: "no"}
    with pytest.raises(pw.ConfigError, match=f"unetpp: {key} is true or false, not 'no'"):
        pw.create("unetpp", classes=3, **word)
