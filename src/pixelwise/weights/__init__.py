"""Weights of any known layout, into our networks; one file per layout."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from pixelwise.errors import WeightsError
from pixelwise.files import replacing
from pixelwise.models import Segmenter
from pixelwise.models.segformer import VARIANTS, MixTransformer, adopt_release
from pixelwise.weights import segformer_mmsegmentation, segformer_paper, segformer_transformers
from pixelwise.weights.files import RELEASE_KEY, own_release, plain_state, read_state

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
        try:
            converted, unused = layout.convert(state)
        except (RuntimeError, IndexError, TypeError):
            raise WeightsError(
                f"{where} has the names of {name}, but tensors of shapes that it cannot have. Fetch it again."
            ) from None
    elif any(key.startswith(("encoder.", "decoder.")) for key in state):
        release, name, unused = None if isinstance(source, Mapping) else own_release(source), OWN_LAYOUT, ()
        if release is None and "decoder.projections.0.0.weight" in state:
            release = segformer_mmsegmentation.RELEASE  # the only one with a convolution and a norm there
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
            wrong.sort(key=lambda key: not key.startswith("encoder.embeddings."))
            raise WeightsError(_wrong_shape(wrong, converted, ours[wrong[0]], model, where))
        lacking = [key for key in missing if not (encoder_only and key.startswith("decoder."))]
        if lacking or unexpected:
            found = _variant(converted)
            raise WeightsError(_incomplete(lacking, unexpected, name, found, model, where))
    if not fitting:
        raise WeightsError(f"No tensor of {where} ({name}) fits {model.architecture.name}.")
    if release is not None and isinstance(model.encoder, MixTransformer):
        adopt_release(model, release)
    model.load_state_dict(fitting, strict=False)
    return Report(
        tuple(fitting), tuple(missing), tuple(unexpected), unused, f"{name} (encoder only)" if encoder_only else name
    )


def save_weights(model: Segmenter, path: str | Path) -> None:
    """Write the weights of a network to a ``.safetensors`` file; an older file stays until the new one is whole.

    The file's header keeps the release whose norms the network has, and `load_weights` reads it.
    """
    release = model.architecture.options.get("release")
    header = {"format": "pt"} if release is None else {"format": "pt", RELEASE_KEY: str(release)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata=header)


def _require_segformer(model: Segmenter, layout: str) -> None:
    if not isinstance(model.encoder, MixTransformer):
        raise WeightsError(f"The weights are of {layout}, but the network is {model.architecture.name}.")


def _wrong_shape(
    wrong: list[str], converted: dict[str, tuple[str, Tensor]], wanted: Tensor, model: Segmenter, where: str
) -> str:
    ours, (name, tensor) = wrong[0], converted[wrong[0]]
    others = f" ({len(wrong) - 1} others differ too)" if len(wrong) > 1 else ""
    if ours.startswith("decoder.classifier."):
        mend = f"create the model with classes={len(tensor)}, or load with partial=True to start the classifier fresh"
    elif ours.startswith("encoder.embeddings.0.projection.") and tensor.ndim == 4 and len(tensor) == len(wanted):
        mend = f"create the model with bands={tensor.shape[1]}, or load with partial=True to start that layer fresh"
    elif found := _variant(converted):
        mend = f"these are weights of another variant, {found}; create that one"
    else:
        mend = "these are weights of another variant or network; create that one"
    return (
        f"{where}: {name} has the shape {list(tensor.shape)}, but {model.architecture.name} "
        f"has {list(wanted.shape)} there{others}. Mend: {mend}."
    )


def _incomplete(
    missing: list[str], unexpected: list[str], layout: str, found: str | None, model: Segmenter, where: str
) -> str:
    parts = [
        f"{kind} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    mend = f"They look like {found}: create that" if found != model.architecture.name and found else "Fetch them whole"
    return (
        f"{where} ({layout}) does not fit {model.architecture.name}: {'; '.join(parts)}. "
        f"{mend}, or load what fits with partial=True."
    )


def _variant(converted: dict[str, tuple[str, Tensor]]) -> str | None:
    """Return the name of the SegFormer that has these channels and depths."""
    for name, variant in VARIANTS.items():
        embeddings = [converted.get(f"encoder.embeddings.{i}.projection.weight") for i in range(4)]
        channels = tuple(len(pair[1]) if pair is not None and pair[1].ndim else 0 for pair in embeddings)
        depths = tuple(sum(f"encoder.stages.{i}.{j}.norm1.weight" in converted for j in range(99)) for i in range(4))
        if (channels, depths) == (variant.channels, variant.depths):
            return f"segformer-{name}"
    return None
