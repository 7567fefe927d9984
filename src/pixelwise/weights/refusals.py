"""Weights that do not fit a network: what is wrong with them, and what to do."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelwise.errors import WeightsError
from pixelwise.models import Segmenter
from pixelwise.models.segformer import VARIANTS
from pixelwise.weights.layout import Converted


def require_numbers(fitting: Mapping[str, Tensor], ours: Mapping[str, Tensor], where: str) -> None:
    """Check that each tensor holds numbers of the kind that its place takes.

    Raises:
        WeightsError: integers, sparse or empty tensors, NaN or infinite values.
    """
    for name, tensor in fitting.items():
        if ours[name].is_floating_point() and not tensor.is_floating_point():
            raise WeightsError(
                f"{where}: {name} holds numbers of type {str(tensor.dtype).removeprefix('torch.')}, as quantised "
                "weights do. Save the network's weights as float32.",
                code="PW502",
            )
        if tensor.layout is not torch.strided or tensor.is_meta:
            raise WeightsError(
                f"{where}: {name} is sparse or without data. Save the network's weights as they are.", code="PW502"
            )
        if not torch.isfinite(tensor.to(ours[name].dtype)).all():
            raise WeightsError(
                f"{where}: {name} holds values that are no numbers (NaN or infinite), so its training went wrong or "
                "the file is damaged. Take an earlier checkpoint.",
                code="PW511",
            )


def wrong_shape(
    wrong: list[str], converted: Converted, ours: Mapping[str, Tensor], model: Segmenter, where: str
) -> str:
    """Return the refusal of tensors of another shape; it shows the first of ``wrong``, which are our names."""
    (name, tensor), wanted = converted[wrong[0]], ours[wrong[0]]
    others = f" ({len(wrong) - 1} others differ too)" if len(wrong) > 1 else ""
    if counts := _counts(wrong, converted, ours, model):
        fix = f"create the model with {' and '.join(counts)}, or load what fits with partial=True"
    elif found := variant_of(converted):
        fix = f"these are weights of another variant, {found}; create that one"
    else:
        fix = "these are weights of another variant or network; create that one"
    return (
        f"{where}: {name} has the shape {list(tensor.shape)}, but {model.architecture.name} "
        f"has {list(wanted.shape)} there{others}. Fix: {fix}."
    )


def _counts(wrong: list[str], converted: Converted, ours: Mapping[str, Tensor], model: Segmenter) -> list[str]:
    """Return the numbers of bands and classes with which all shapes would fit; nothing if there are none such."""
    found: dict[str, int] = {}
    for key in wrong:
        theirs, wanted = converted[key][1].shape, ours[key].shape
        differing = [i for i, (a, b) in enumerate(zip(theirs, wanted, strict=False)) if a != b]
        if len(theirs) != len(wanted) or len(differing) != 1:
            return []
        axis = differing[0]
        what = "bands" if key.startswith("encoder.") else "classes"
        # A mask may be of no class, and so EoMT's classifier has one row more.
        more = wanted[axis] - getattr(model.architecture, what)
        count = theirs[axis] - more
        if more not in (0, 1) or count < 1 or found.setdefault(what, count) != count:
            return []
    return [f"{what}={count}" for what, count in sorted(found.items())]


def incomplete(
    missing: list[str], unexpected: list[str], layout: str, found: str | None, model: Segmenter, where: str
) -> str:
    """Return the refusal of weights that lack tensors, or have some that the network has no place for.

    Args:
        layout: of the weights.
        found: name of the network that they look like, if any.
    """
    parts = [
        f"{kind} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    fix = f"They look like {found}: create that" if found != model.architecture.name and found else "Fetch them whole"
    return (
        f"{where} ({layout}) does not fit {model.architecture.name}: {'; '.join(parts)}. "
        f"{fix}, or load what fits with partial=True."
    )


def variant_of(converted: Converted) -> str | None:
    """Return the name of the SegFormer that has these channels and depths."""
    for name, variant in VARIANTS.items():
        embeddings = [converted.get(f"encoder.embeddings.{i}.projection.weight") for i in range(4)]
        channels = tuple(len(pair[1]) if pair is not None and pair[1].ndim else 0 for pair in embeddings)
        depths = tuple(sum(f"encoder.stages.{i}.{j}.norm1.weight" in converted for j in range(99)) for i in range(4))
        if (channels, depths) == (variant.channels, variant.depths):
            return f"segformer-{name}"
    return None
