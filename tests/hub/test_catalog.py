"""The table of networks, whose costs are kept in a file."""

import json
import subprocess
import sys

from pixelwise.hub.catalog import kept_costs
from pixelwise.models import create, list_models

COUNTED = """
import json, sys
from dataclasses import asdict
from pixelwise.hub.catalog import count
names = json.loads(sys.argv[1])
print(json.dumps({name: asdict(count(name, classes=19, bands=3, size=512)) for name in names}))
"""

LIGHT = ("segformer-b0", "segnext-t", "linknet", "unet", "pspnet", "segmenter-mask")
"""Networks of some families; to count all of them takes a minute (`benchmarks/costs.py`)."""


def test_every_network_has_a_row():
    assert list(kept_costs()) == list_models()


def test_what_is_kept_of_some_networks_is_what_is_computed():
    # In a process of its own, which does not check the shapes of all networks: that takes minutes.
    command = [sys.executable, "-c", COUNTED, json.dumps(LIGHT)]
    counted = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    kept = kept_costs()
    assert counted == {name: vars(kept[name]) for name in LIGHT}


def test_every_row_counts_its_parameters_and_has_possible_costs():
    kept = kept_costs()
    for name in ("segformer-b0", "unet", "linknet"):
        assert kept[name].parameters == sum(p.numel() for p in create(name, classes=19).parameters())
    # What attention multiplies is no convolution, so it counts as operations alone.
    assert all(0 < 2 * row.macs <= row.flops for row in kept.values())
