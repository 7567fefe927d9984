"""Networks, one file per paper. `MODELS` is the whole list: name to the function that builds it."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial

from pixelwise.errors import ConfigError
from pixelwise.models.fusion import fuse
from pixelwise.models.segformer import VARIANTS, segformer
from pixelwise.models.segmenter import Architecture, Decoded, Segmenter

__all__ = ["MODELS", "Architecture", "Decoded", "Segmenter", "create", "fuse", "list_models"]

MODELS: dict[str, Callable[..., Segmenter]] = {
    f"segformer-{variant}": partial(segformer, variant) for variant in VARIANTS
}


def list_models() -> list[str]:
    """Return every name that `create` takes."""
    return list(MODELS)


def create(name: str, *, classes: int, bands: int = 3, **options: object) -> Segmenter:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models`.
        classes: number of classes, at least 1.
        bands: number of input bands, at least 1.
        options: the paper's own, listed in the docstring of the function that builds the network.

    Raises:
        ConfigError: an unknown name or option, or a value that the network cannot have.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"No network is called {name!r}. {hint}`pixelwise models` lists all names.")
    if classes < 1 or bands < 1:
        raise ConfigError(f"{name} needs at least one class and one band, not classes={classes}, bands={bands}.")
    build = MODELS[name]
    allowed = [key for key in inspect.signature(build).parameters if key not in ("architecture",)]
    for key in options:
        if key not in allowed:
            listed = ", ".join(allowed) or "none"
            raise ConfigError(f"{name} has no option {key!r}. Its options: {listed}.")
    return build(Architecture(name, classes, bands, dict(options)), **options)
