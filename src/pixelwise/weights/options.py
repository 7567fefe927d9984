"""Options of a network beside those of its weights: what the user wrote stands or is refused, the rest gives way."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from pixelwise.errors import ConfigError, WeightsError
from pixelwise.models import MODELS, Architecture, Segmenter, rebuilt
from pixelwise.models.vit import resized_positions
from pixelwise.weights.layout import Converted

PARTS = ("encoder", "decoder", "network")
"""Options that say what the network is made of; the others belong to these."""

FITTED = ("image_size", "patch")
"""Options that a network keeps beside an encoder's weights if its paper names them: the tensors are resized."""

Change = tuple[object, object]
"""Of an option: the network's value, and that of the weights."""


@dataclass(frozen=True)
class Adapted:
    """The network that the weights go into."""

    target: Segmenter
    adopted: dict[str, Change]
    """Options that were not asked for, and are now those of the weights."""
    kept: dict[str, Change]
    """Options that were asked for, and stand although the weights were trained with others."""
    dropped: frozenset[str]
    """Our names of tensors that the weights have, and the network that was asked for does without."""


def adapted(
    model: Segmenter, options: Mapping[str, object], converted: Converted, *, layout: str, where: str, partial: bool
) -> Adapted:
    """Return the network with the options of the weights, and with the user's own where the weights fill it.

    ``converted`` may be changed: position embeddings are resized to an image size that was asked for, and for a network
    of `FITTED` options patch embeddings too.

    Args:
        options: what the weights ask for.
        partial: an option that was asked for stands also where tensors are lacking for it.

    Raises:
        WeightsError: an option was asked for that needs other tensors, or the network cannot have what the weights ask.
    """
    own = model.architecture
    # What a layout asks of an encoder that stands before a foreign decoder is that encoder's.
    options = {f"encoder_{key}" if f"encoder_{key}" in own.options else key: value for key, value in options.items()}
    differing = {key: value for key, value in options.items() if not _same(own.options.get(key), value)}
    if not differing:
        return Adapted(model, {}, {}, frozenset())
    base = _without_parts(own, differing)
    of_paper = _fitted(own, converted)
    contested = {key: value for key, value in differing.items() if key in own.asked or key in of_paper}
    free = {key: value for key, value in differing.items() if key not in contested}
    kept = {key: (own.options.get(key), value) for key, value in contested.items()}
    dropped: frozenset[str] = frozenset()
    if contested:
        theirs = _tensors(base, differing)
        asked = _tensors(base, free)
        if theirs is not None and asked is not None:
            _resize_positions(model, free, converted, asked)
            if "patch" in of_paper:
                _resize_patches(converted, asked)
            dropped = frozenset(name for name in converted if name in theirs and name not in asked)
        lacking = asked is None or _unfilled(asked, converted) - _unfilled(theirs or asked, converted)
        if lacking and not partial:
            raise WeightsError(_refusal(_guilty(base, kept, free, converted), layout, own.name, where), code="PW503")
    try:
        target = rebuilt(base, free) if free else model
    except Exception:  # the options may come from a damaged file, with values of any kind
        raise WeightsError(
            f"{where} holds weights of {layout}, which need {_listed(free)}, and {own.name} does not have that. "
            "Create the network that the weights are of.",
            code="PW503",
        ) from None
    adopted = {key: (own.options.get(key), value) for key, value in free.items()}
    return Adapted(target, adopted, kept, dropped)


def _fitted(own: Architecture, converted: Converted) -> set[str]:
    """Return the `FITTED` options that a network keeps beside these weights: those of an encoder alone."""
    if not _encoder_only(converted) or own.name not in MODELS:
        return set()
    return {key for key in FITTED if key in MODELS[own.name].options}


def _same(one: object, other: object) -> bool:
    return (list(one) if isinstance(one, tuple) else one) == (list(other) if isinstance(other, tuple) else other)


def _without_parts(own: Architecture, changes: Mapping[str, object]) -> Architecture:
    """Return the architecture; if another encoder or decoder comes, without the options that were the old one's."""
    if not any(part in changes for part in PARTS) or not _foreign(own, changes):
        return own
    return replace(own, options={key: own.options[key] for key in own.asked if key in own.options})


def _foreign(own: Architecture, changes: Mapping[str, object]) -> bool:
    try:
        with torch.device("meta"):
            rebuilt(own, changes)
    except ConfigError:
        return True
    return False


def _tensors(architecture: Architecture, options: Mapping[str, object]) -> dict[str, torch.Size] | None:
    """Return names and shapes of a network's tensors, at no cost; None if it cannot be built."""
    try:
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in rebuilt(architecture, options).state_dict().items()}
    except Exception:  # as above
        return None


def _unfilled(wanted: Mapping[str, torch.Size], converted: Converted) -> set[str]:
    """Return the names that weights leave fresh, or do not fit; a decoder's do not count if they are an encoder's."""
    encoder_only = _encoder_only(converted)
    return {
        name
        for name, shape in wanted.items()
        if not name.endswith("num_batches_tracked")
        and not (encoder_only and name.startswith("decoder."))
        and (name not in converted or converted[name][1].shape != shape)
    }


def _encoder_only(converted: Converted) -> bool:
    return not any(name.startswith("decoder.") for name in converted)


def _guilty(
    base: Architecture, kept: Mapping[str, Change], free: Mapping[str, object], converted: Converted
) -> dict[str, Change]:
    """Return those of the asked options that need other tensors, each by itself; all, if none does so alone."""
    theirs = {key: pair[1] for key, pair in kept.items()}
    reference = _tensors(base, {**free, **theirs})
    if reference is None:
        return dict(kept)
    alone = {}
    for key, pair in kept.items():
        tensors = _tensors(base, {**free, **theirs, key: pair[0]})
        if tensors is None or _unfilled(tensors, converted) - _unfilled(reference, converted):
            alone[key] = pair
    return alone or dict(kept)


def _refusal(options: Mapping[str, Change], layout: str, name: str, where: str) -> str:
    asked = " and ".join(f"{key}={pair[0]!r}" for key, pair in options.items())
    theirs = " and ".join(f"{key}={pair[1]!r}" for key, pair in options.items())
    return (
        f"{name} was asked for with {asked}, but the weights in {where} ({layout}) are of {theirs}, and their tensors "
        f"do not serve both. Leave {' and '.join(options)} out, or take weights that were trained so."
    )


def _listed(options: Mapping[str, object]) -> str:
    return " and ".join(f"{key}={value!r}" for key, value in options.items() if key != "library_config")


def _resize_positions(
    model: Segmenter, free: Mapping[str, object], converted: Converted, asked: Mapping[str, torch.Size]
) -> None:
    """Fit the position embeddings of a ViT to the image size that was asked for, as its forward pass would do."""
    for name, (theirs, tensor) in converted.items():
        wanted = asked.get(name)
        if not name.endswith("encoder.positions") or wanted is None or tensor.ndim != 3 or len(wanted) != 3:
            continue
        extra = 2 if free.get("distilled", model.architecture.options.get("distilled")) else 1
        side, old = math.isqrt(wanted[1] - extra), math.isqrt(tensor.shape[1] - extra)
        square = side**2 + extra == wanted[1] and old**2 + extra == tensor.shape[1]
        if square and side != old and tensor.shape[2] == wanted[2]:
            mode = str(free.get("position_resize", model.architecture.options.get("position_resize")))
            converted[name] = (theirs, resized_positions(tensor.float(), extra, (side, side), mode))


def _resize_patches(converted: Converted, asked: Mapping[str, torch.Size]) -> None:
    """Fit a patch embedding to patches of another size, so that it answers an enlarged patch as it did the patch.

    Beyer et al., FlexiViT, CVPR 2023 (arXiv 2212.08013), section 3.4: with B the matrix that resizes a patch, the new
    weights are the pseudo-inverse of B's transpose times the old ones.
    """
    for name, (theirs, tensor) in converted.items():
        wanted = asked.get(name)
        if not name.endswith("encoder.patches.weight") or wanted is None or tensor.ndim != 4 or len(wanted) != 4:
            continue
        old, new = tensor.shape[-1], wanted[-1]
        if old == new or tensor.shape[-2] != old:
            continue
        pixels = torch.eye(old * old).view(old * old, 1, old, old)
        resize = F.interpolate(pixels, size=(new, new), mode="bicubic", antialias=True).flatten(1)
        fitted = tensor.float().flatten(2) @ torch.linalg.pinv(resize).T
        converted[name] = (theirs, fitted.unflatten(2, (new, new)))
