"""Sizes are tensors while torch traces, so the types in signatures are not checked here."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True, scope="module")
def _unchecked_types():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
