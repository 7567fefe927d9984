"""What a certificate promises, of files that are wrong in known places."""

import numpy as np
import pytest
from small_network import card_of, noise, small_network

from pixelwise.exported.about import About
from pixelwise.exported.options import ExportOptions
from pixelwise.exporting.certificate import certify, expected
from pixelwise.exporting.samples import Sample, Samples


def certificate(wrong_below, *, side=96, **options):
    """Return the certificate of a file that gives what its network gives, but no numbers of images of small sides."""
    network = small_network()
    about = About(card_of(network), "", ExportOptions(**options), 4, 1, False)
    sample = Sample(noise(3, side, side).astype(np.float32), np.full((side, side), -1, np.int16))

    def run(image):
        logits = expected(network, about, image)["logits"]
        return {"logits": np.full_like(logits, np.nan) if min(image.shape[2:]) < wrong_below else logits}

    return certify(run, network, about, Samples((sample,), "noise"), runtime="fake", made_by="a test")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_small_sides_are_not_promised_where_they_alone_are_wrong(precision):
    assert certificate(0, precision=precision).smallest_side == 32
    found = certificate(64, precision=precision)
    assert found.smallest_side == min(case.height for case in found.cases) == 64
    assert all(case.whole for case in found.cases)


@pytest.mark.parametrize("size", [None, (48, 48)])
def test_a_file_that_is_wrong_at_the_sizes_it_is_for_is_not_sound(size):
    found = certificate(97, side=96 if size is None else 48, size=size)
    assert found.cases
    assert not found.sound
