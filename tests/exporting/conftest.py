"""Exports of small networks: few small images to check them on, and signatures that are not checked.

Sizes are tensors while torch traces, so the types in signatures do not hold then.
"""

import jaxtyping
import pytest

from pixelwise.exporting import samples


@pytest.fixture(autouse=True, scope="module")
def _small_and_unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "SIDE", 96)
        patch.setattr(samples, "COUNT", 1)
        yield
    jaxtyping.config.update("jaxtyping_disable", False)
