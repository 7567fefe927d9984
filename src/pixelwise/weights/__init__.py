"""Weights of any known layout, into our networks; one file per layout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from pixelwise.errors import WeightsError
from pixelwise.files import replacing
from pixelwise.models import Segmenter, rebuilt
from pixelwise.models.segformer import VARIANTS
from pixelwise.weights import (
    deeplab,
    depict,
    efficientnet,
    hardnet,
    hrnet,
    linknet,
    ocr,
    pspnet,
    resnet,
    segformer,
    segmenter_vit,
    segnext,
    setr,
    unet,
    vit,
)
from pixelwise.weights.files import ARCHITECTURE_KEY, own_architecture, plain_state, read_state, write_state
from pixelwise.weights.layout import Converted
from pixelwise.weights.options import Change, adapted

LAYOUTS = (
    *efficientnet.LAYOUTS,
    *hardnet.LAYOUTS,
    *deeplab.LAYOUTS,
    *hrnet.LAYOUTS,
    *linknet.LAYOUTS,
    *ocr.LAYOUTS,
    *pspnet.LAYOUTS,
    *resnet.LAYOUTS,
    *segformer.LAYOUTS,
    *segnext.LAYOUTS,
    *setr.LAYOUTS,
    *segmenter_vit.LAYOUTS,
    *depict.LAYOUTS,
    *unet.LAYOUTS,
    *vit.LAYOUTS,
)
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
    """Names that the layout carries but its network never uses, or that the network asked for does without."""
    layout: str
    widened: str = ""
    """Our name of the first convolution, where it was fitted to another number of bands."""
    adopted: Mapping[str, Change] = field(default_factory=dict)
    """Options that nobody asked for and that are the weights' now: name -> (the network's before, the weights')."""
    kept: Mapping[str, Change] = field(default_factory=dict)
    """Options that were asked for and stand, though the weights were trained with others: name -> (asked, theirs)."""
    network: str = ""
    """Name of the network that a file of ours says it is of."""

    @property
    def encoder_complete(self) -> bool:
        """True if every tensor of the encoder was filled."""
        return not any(name.startswith("encoder.") for name in self.missing)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should read of it, as sentences."""
        sentences = []
        if self.adopted:
            changes = ", ".join(f"{key} = {theirs!r} (was {own!r})" for key, (own, theirs) in self.adopted.items())
            sentences.append(f"Taken over from the weights: {changes}.")
        if self.kept:
            changes = ", ".join(f"{key} = {own!r} (theirs: {theirs!r})" for key, (own, theirs) in self.kept.items())
            sentences.append(f"As asked for, other than the weights were trained with: {changes}.")
        return tuple(sentences)


def load_weights(model: Segmenter, source: str | Path | Mapping[str, Tensor], *, partial: bool = False) -> Report:
    """Fill a network with weights; the layout is recognised by its names.

    Known layouts: ours, and those in `LAYOUTS`. The network takes over what the layout's release does otherwise (norm
    epsilons, stems, how corners are aligned ...), unless `create` was asked for something else: that stands where the
    weights fill such a network, and is refused where they do not. Its parts are then new objects, so an optimiser is
    made afterwards. A checkpoint of an encoder alone fills the encoder; the decoder stays fresh, and its names are in
    ``missing``.

    Args:
        source: a file, a folder, or a state dict.
        partial: load what fits, and report the rest instead of refusing it. If only the number of bands differs, the
            first convolution is fitted: the bands of the weights come first and new ones start at 0, so that the
            answer is at first that of the old bands; of fewer bands the first are kept, and a single one takes the sum
            over all, so that a grey image is answered as its copies were.

    Raises:
        WeightsError: an unreadable file, an unknown layout or, unless ``partial``, a name that is missing, unexpected
            or of another shape, or an option that was asked for and that the weights cannot serve. The network is then
            as it was.
    """
    return _fill(model, _read(model, source), partial=partial)


def with_options(model: Segmenter, options: Mapping[str, object], where: str) -> Segmenter:
    """Return a network with some options changed and the same weights, in the same mode.

    Args:
        where: the weights' name in messages.

    Raises:
        ConfigError: an unknown option, or a value that the network cannot have.
        WeightsError: an option that needs other tensors; the message has both values.
    """
    changed = rebuilt(replace(model.architecture, asked=()), options, asked=True)
    names = {name: (name, tensor) for name, tensor in model.state_dict().items()}
    _fill(changed, Source(where, OWN_LAYOUT, names, (), dict(model.architecture.options)), partial=False)
    return changed.train(model.training)


@dataclass(frozen=True)
class Source:
    """Weights under our names, before they meet a network."""

    where: str
    layout: str
    converted: Converted
    unused: tuple[str, ...]
    options: dict[str, object]
    network: str = ""


def _read(model: Segmenter, source: str | Path | Mapping[str, Tensor]) -> Source:
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    state = plain_state(source, where) if isinstance(source, Mapping) else read_state(source)
    layout = next((known for known in LAYOUTS if known.recognises(set(state))), None)
    if layout is not None:
        try:
            options = layout.options(state)
            converted, unused = layout.convert(state)
        except (RuntimeError, IndexError, KeyError, TypeError, ValueError):
            raise WeightsError(
                f"{where} has the names of {layout.name}, but tensors of shapes that it cannot have. Fetch it again."
            ) from None
        return Source(where, layout.name, converted, unused, options)
    if any(key.startswith(("encoder.", "decoder.")) for key in state):
        network, options = ("", {}) if isinstance(source, Mapping) else _own_options(model, source)
        if "release" not in options and "decoder.projections.0.0.weight" in state:
            options["release"] = "mmsegmentation"  # the only one with a convolution and a norm there
        return Source(where, OWN_LAYOUT, {key: (key, tensor) for key, tensor in state.items()}, (), options, network)
    raise WeightsError(
        f"{where} has names of no known layout, such as {', '.join(sorted(state)[:3])}. Known are: {OWN_LAYOUT}, "
        + ", ".join(known.name for known in LAYOUTS)
        + "."
    )


def _fill(model: Segmenter, source: Source, *, partial: bool) -> Report:
    where, name, converted = source.where, source.layout, source.converted
    fit = adapted(model, source.options, converted, layout=name, where=where, partial=partial)
    target, unused = fit.target, [*source.unused, *(converted[key][0] for key in fit.dropped)]
    for key in fit.dropped:
        del converted[key]
    ours = target.state_dict()
    widened = _fit_bands(converted, ours, target.architecture.bands) if partial else ""
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
    if target is not model:
        _take_over(model, target)
    model.load_state_dict(fitting, strict=False)
    return Report(
        tuple(fitting),
        tuple(missing),
        tuple(unexpected),
        tuple(unused),
        f"{name} (encoder only)" if encoder_only else name,
        widened,
        fit.adopted,
        fit.kept,
        source.network,
    )


def save_weights(model: Segmenter, path: str | Path) -> None:
    """Write the weights of a network to a ``.safetensors`` file; an older file stays until the new one is whole.

    The file's header keeps the network's name and options, and `load_weights` reads them.
    """
    about = {"name": model.architecture.name, "options": dict(model.architecture.options)}
    header = {"format": "pt", ARCHITECTURE_KEY: json.dumps(about)}
    with replacing(path) as temporary:
        write_state(model, temporary, header)


def _own_options(model: Segmenter, source: str | Path) -> tuple[str, dict[str, object]]:
    """Return the network that a file of ours is of, and its options; of another network, only its release."""
    found = own_architecture(source)
    if found is None:
        return "", {}
    name, options = found
    own = model.architecture
    if name != own.name:
        options = {key: value for key, value in options.items() if key == "release" and key in own.options}
    return name, dict(options)


def _fit_bands(converted: Converted, ours: dict[str, Tensor], bands: int) -> str:
    """Fit the first convolution to other bands; return its name, or nothing if its bands are those of the weights."""
    for name, (theirs, tensor) in converted.items():
        if not name.startswith("encoder.") or name not in ours or tensor.ndim != 4 or ours[name].ndim != 4:
            continue
        wanted = ours[name].shape
        if wanted[1] == bands != tensor.shape[1] and wanted[:1] + wanted[2:] == tensor[:, 0].shape:
            fitted = tensor.new_zeros(wanted)
            shared = min(bands, tensor.shape[1])
            fitted[:, :shared] = tensor.sum(dim=1, keepdim=True) if bands == 1 else tensor[:, :shared]
            converted[name] = (theirs, fitted)
            return name
    return ""


def _take_over(model: Segmenter, target: Segmenter) -> None:
    """Give a network the parts of another, where it is and as it trains; what fits there keeps its values."""
    like = next(model.parameters())
    wanted = target.state_dict()
    kept = {k: v for k, v in model.state_dict().items() if k in wanted and wanted[k].shape == v.shape}
    target.load_state_dict(kept, strict=False)
    target.to(like).train(model.training)
    model.encoder, model.decoder, model.architecture = target.encoder, target.decoder, target.architecture
    model.multiple, model.align_corners, model.aux_weights = target.multiple, target.align_corners, target.aux_weights


def _wrong_shape(wrong: list[str], converted: Converted, wanted: Tensor, model: Segmenter, where: str) -> str:
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


def _variant(converted: Converted) -> str | None:
    """Return the name of the SegFormer that has these channels and depths."""
    for name, variant in VARIANTS.items():
        embeddings = [converted.get(f"encoder.embeddings.{i}.projection.weight") for i in range(4)]
        channels = tuple(len(pair[1]) if pair is not None and pair[1].ndim else 0 for pair in embeddings)
        depths = tuple(sum(f"encoder.stages.{i}.{j}.norm1.weight" in converted for j in range(99)) for i in range(4))
        if (channels, depths) == (variant.channels, variant.depths):
            return f"segformer-{name}"
    return None
