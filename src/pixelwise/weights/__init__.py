"""Weights of any known layout, into our networks; one file per layout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from pixelwise.errors import WeightsError
from pixelwise.files import replacing
from pixelwise.models import Segmenter, rebuilt
from pixelwise.models.layers import fitted_to_bands
from pixelwise.weights import (
    deeplab,
    depict,
    dinov2,
    efficientnet,
    eomt,
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
from pixelwise.weights.checkpoint import state_in, unwrapped
from pixelwise.weights.files import ARCHITECTURE_KEY, own_architecture, read_state, write_state
from pixelwise.weights.foreign import FOREIGN
from pixelwise.weights.layout import Converted, Layout
from pixelwise.weights.options import adapted
from pixelwise.weights.paddle import as_torch, is_paddles
from pixelwise.weights.refusals import incomplete, require_numbers, variant_of, wrong_shape
from pixelwise.weights.report import Report

LAYOUTS = (
    *eomt.LAYOUTS,
    *dinov2.LAYOUTS,
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
OWN = Layout(
    OWN_LAYOUT,
    signature=(
        r"encoder\.(network\.)?(backbone|embeddings\.\d\.(projection|norm|convolution|0\.convolution)|stem\.(\d\.)?(convolution|norm)"
        r"|patches|stages\.\d\.(first|second|(\d+\.)+(layers|branches|attention|norm1|expand|depthwise|first|second)))\.",
    ),
    absent=(r"segmentation_head\.",),
    rules=(),
)


def load_weights(model: Segmenter, source: str | Path | Mapping[str, object], *, partial: bool = False) -> Report:
    """Fill a network with weights; the layout is recognised by its names.

    Known layouts: ours, and those in `LAYOUTS`. The network takes over what the layout's release does otherwise (norm
    epsilons, stems, how corners are aligned ...), unless `create` was asked for something else: that stands where the
    weights fill such a network, and is refused where they do not. Its parts are then new objects, so an optimiser is
    made afterwards. A checkpoint of an encoder alone fills the encoder; the decoder stays fresh, and its names are in
    ``missing``.

    Args:
        source: a file, a folder, or a state dict: of tensors, of numpy arrays, or a checkpoint that has one in it.
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
    part: str = ""
    others: tuple[str, ...] = ()


def _read(model: Segmenter, source: str | Path | Mapping[str, object]) -> Source:
    """Return the weights under our names, and what they ask of the network.

    Raises:
        WeightsError: an unreadable file, or names that are not known.
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    found = state_in(source, where) if isinstance(source, Mapping) else read_state(source)
    found = unwrapped(found, _recognised, where)
    of_paddle = is_paddles(found.tensors)
    state = as_torch(found.tensors) if of_paddle else found.tensors
    names = set(state)
    foreign = next((release for release in FOREIGN if release.recognises(names)), None)
    if foreign is not None:
        raise WeightsError(
            f"{where} holds weights of {foreign.name}, which are not read: {foreign.advice}.", code="PW504"
        )
    layout = next((known for known in LAYOUTS if known.recognises(names)), None)
    if layout is not None:
        options, converted, unused = _converted(layout, state, where)
        by_paddle = of_paddle and "PaddleSeg" not in layout.name
        name = f"{layout.name} (as PaddlePaddle saves it)" if by_paddle else layout.name
        return Source(where, name, converted, unused, options, part=found.part, others=found.others)
    if OWN.recognises(names):
        network, options = ("", {}) if isinstance(source, Mapping) else _own_options(model, source)
        if "release" not in options and "decoder.projections.0.0.weight" in state:
            options["release"] = "mmsegmentation"  # the only one with a convolution and a norm there
        own = {key: (key, tensor) for key, tensor in state.items()}
        return Source(where, OWN_LAYOUT, own, (), options, network, found.part, found.others)
    raise WeightsError(
        f"{where} has names of no known layout, such as {', '.join(sorted(state)[:3])}. Known are: {OWN_LAYOUT}, "
        + ", ".join(known.name for known in LAYOUTS)
        + ".",
        code="PW504",
    )


def _converted(
    layout: Layout, state: Mapping[str, Tensor], where: str
) -> tuple[dict[str, object], Converted, tuple[str, ...]]:
    """Return what the weights ask of the network, the tensors under our names, and the names that are left out."""
    try:
        return layout.options(state), *layout.convert(state)
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError):
        raise WeightsError(
            f"{where} has the names of {layout.name}, but tensors of impossible shapes. Fetch it again.", code="PW502"
        ) from None


def _recognised(names: set[str]) -> bool:
    return any(known.recognises(names) for known in (*LAYOUTS, OWN, *FOREIGN))


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
            raise WeightsError(wrong_shape(wrong, converted, ours, model, where), code="PW503")
        lacking = [key for key in missing if not (encoder_only and key.startswith("decoder."))]
        if lacking or unexpected:
            found = variant_of(converted)
            raise WeightsError(incomplete(lacking, unexpected, name, found, model, where), code="PW503")
    if not fitting:
        raise WeightsError(f"No tensor of {where} ({name}) fits {model.architecture.name}.", code="PW503")
    require_numbers(fitting, ours, where)
    if target is not model:
        _take_over(model, target)
    model.load_state_dict(fitting, strict=False)
    return Report(
        matched=tuple(fitting),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        unused=tuple(unused),
        layout=f"{name} (encoder only)" if encoder_only else name,
        widened=widened,
        adopted=fit.adopted,
        kept=fit.kept,
        network=source.network,
        part=source.part,
        others=source.others,
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
            converted[name] = (theirs, fitted_to_bands(tensor, bands))
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
