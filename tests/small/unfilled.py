"""Networks without first weights, for tests that load others at once or look at shapes alone."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from torch import Tensor, nn

DRAWS = ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_normal_")
DRAWS += ("xavier_uniform_", "orthogonal_")


def nought(tensor: Tensor, *settings: object, **more: object) -> Tensor:
    """Stand in for what draws values."""
    return nn.init.zeros_(tensor)


@contextmanager
def unfilled() -> Iterator[None]:
    """Build networks whose random weights are 0: to draw them takes longer than to load others."""
    with ExitStack() as stack:
        for name in DRAWS:
            stack.enter_context(patch.object(nn.init, name, nought))
        yield
