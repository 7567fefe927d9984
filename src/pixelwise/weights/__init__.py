"""Weights of any known layout, into our networks; one file per layout."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pixelwise.errors import WeightsError
from pixelwise.models import Segmenter
from pixelwise.models.segformer import MixTransformer, adopt_release
from pixelwise.weights import segformer_mmsegmentation, segformer_paper, segformer_transformers
from pixelwise.weights.files import own_release, plain_state, read_state

LAYOUTS = (segformer_paper, segformer_transformers, segformer_mmsegmentation)
OWN_LAYOUT = "pixelwise"


@dataclass(frozen=True)
class Report:
    """What became of the names."""

    matched: tuple[str, ...]
    """Our names that were filled."""
    missing: tuple[str, ...]
    """Our names that keep their fresh values."""
    unexpected: tuple[str, ...]
    """Names in the source that have no place here, or do not fit it."""
    unused: tuple[str, ...]
    """Names that the layout carries but its network never uses; they are left out."""
    layout: str


def load_weights(model: Segmenter, source: str | Path | Mapping[str, Tensor], *, partial: bool = False) -> Report:
    """Fill a network with weights; the layout is recognised by its names.

    Known layouts: ours, the paper's own release, transformers (4.x and 5.x), mmsegmentation 1.x. The network takes
    over the norm epsilons and the decoder of the layout's release. A checkpoint of an encoder alone fills the encoder;
    the decoder stays fresh, and its names are in ``missing``.

    Args:
        source: a file, a folder, or a state dict.
        partial: load what fits, and report the rest instead of refusing it.

    Raises:
        WeightsError: an unreadable file, an unknown layout or, unless ``partial``, a name that is missing, unexpected
            or of another shape. The network is then as it was.
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    state = plain_state(source, where) if isinstance(source, Mapping) else read_state(source)
    layout = next((known for known in LAYOUTS if known.recognises(set(state))), None)
    if layout is not None:
        _require_segformer(model, layout.LAYOUT)
        release, name = layout.RELEASE, layout.LAYOUT
        converted, unused = layout.convert(state)
    elif any(key.startswith(("encoder.", "decoder.")) for key in state):
        release, name, unused = None if isinstance(source, Mapping) else own_release(source), OWN_LAYOUT, ()
        converted = {key: (key, tensor) for key, tensor in state.items()}
    else:
        raise WeightsError(
            f"{where} has names of no known layout, such as {', '.join(sorted(state)[:3])}. Known are: {OWN_LAYOUT}, "
            + ", ".join(known.LAYOUT for known in LAYOUTS)
            + "."
        )
    target = copy.deepcopy(model)
    if release is not None and isinstance(target.encoder, MixTransformer):
        adopt_release(target, release)
    ours = target.state_dict()
    wrong = [key for key, (_, tensor) in converted.items() if key in ours and ours[key].shape != tensor.shape]
    fitting = {key: tensor for key, (_, tensor) in converted.items() if key in ours and key not in wrong}
    unexpected = [theirs for key, (theirs, _) in converted.items() if key not in fitting]
    # Old checkpoints lack this counter, which no forward pass reads.
    missing = [key for key in ours if key not in fitting and not key.endswith("num_batches_tracked")]
    encoder_only = not any(key.startswith("decoder.") for key in converted)
    if not partial:
        if wrong:
            raise WeightsError(_wrong_shape(wrong[0], converted[wrong[0]], ours[wrong[0]], len(wrong), model, where))
        lacking = [key for key in missing if not (encoder_only and key.startswith("decoder."))]
        if lacking or unexpected:
            raise WeightsError(_incomplete(lacking, unexpected, name, model, where))
    if not fitting:
        raise WeightsError(f"No tensor of {where} ({name}) fits {model.architecture.name}.")
    if release is not None and isinstance(model.encoder, MixTransformer):
        adopt_release(model, release)
    model.load_state_dict(fitting, strict=False)
    return Report(
        tuple(fitting), tuple(missing), tuple(unexpected), unused, f"{name} (encoder only)" if encoder_only else name
    )


def _require_segformer(model: Segmenter, layout: str) -> None:
    if not isinstance(model.encoder, MixTransformer):
        raise WeightsError(f"The weights are of {layout}, but the network is {model.architecture.name}.")


def _wrong_shape(ours: str, given: tuple[str, Tensor], wanted: Tensor, count: int, model: Segmenter, where: str) -> str:
    name, tensor = given
    others = f" ({count - 1} others differ too)" if count > 1 else ""
    if ours.startswith("decoder.classifier."):
        mend = f"create the model with classes={len(tensor)}, or load with partial=True to start the classifier fresh"
    elif ours.startswith("encoder.embeddings.0.projection.") and tensor.ndim == 4 and len(tensor) == len(wanted):
        mend = f"create the model with bands={tensor.shape[1]}, or load with partial=True to start that layer fresh"
    else:
        mend = "these are weights of another variant; create that one"
    return (
        f"{where}: {name} has the shape {list(tensor.shape)}, but {model.architecture.name} "
        f"has {list(wanted.shape)} there{others}. Mend: {mend}."
    )


def _incomplete(missing: list[str], unexpected: list[str], layout: str, model: Segmenter, where: str) -> str:
    parts = [
        f"{kind} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    return (
        f"{where} ({layout}) does not fit {model.architecture.name}: {'; '.join(parts)}. "
        "Create the variant that the weights are of, or load what fits with partial=True."
    )
