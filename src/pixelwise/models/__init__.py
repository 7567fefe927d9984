"""Networks, one file per paper.

Every network is an encoder and a decoder. `ENCODERS` and `DECODERS` say who builds them, `MODELS` which two make a
network, and any other two that fit can be joined too. The three tables are the whole list.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from pixelwise.encoder_name import is_library_name
from pixelwise.errors import ConfigError
from pixelwise.models import (
    deeplab,
    depict,
    dinov2,
    efficientnet,
    eomt,
    hardnet,
    hmsa,
    hrnet,
    library_encoder,
    linknet,
    ocr,
    pspnet,
    resnet,
    segformer,
    segmenter_vit,
    segnext,
    setr,
    unet,
    unet3p,
    unetpp,
    vit,
)
from pixelwise.models.option_checks import require_true_or_false
from pixelwise.models.segmenter import MINIMUM_SIZE, Architecture, Decoded, Segmenter

__all__ = [
    "DECODERS",
    "ENCODERS",
    "MODELS",
    "Architecture",
    "Decoded",
    "Segmenter",
    "answers_with_masks",
    "create",
    "list_models",
    "rebuilt",
]


@dataclass(frozen=True)
class Design:
    """The encoder and decoder of a network, and its options where they differ from those two's defaults."""

    encoder: str
    decoder: str
    options: Mapping[str, object] = field(default_factory=dict)


ENCODERS: dict[str, Callable[..., nn.Module]] = {
    # (bands, *, options) -> encoder
    **{f"dinov2-{variant}": partial(dinov2.dinov2, variant) for variant in dinov2.VARIANTS},
    **{f"efficientnet-{variant}": partial(efficientnet.efficientnet, variant) for variant in efficientnet.VARIANTS},
    **{variant: partial(hardnet.hardnet, variant) for variant in hardnet.VARIANTS},
    **{f"hrnet-w{width}": partial(hrnet.hrnet, width) for width in hrnet.WIDTHS},
    **{f"mit-{variant}": partial(segformer.mix_transformer, variant) for variant in segformer.VARIANTS},
    **{f"mscan-{variant}": partial(segnext.mscan, variant) for variant in segnext.VARIANTS},
    **{f"resnet{variant}": partial(resnet.resnet, variant) for variant in resnet.VARIANTS},
    "unet": unet.unet_encoder,
    **{f"vit-{variant}": partial(vit.vit, variant) for variant in vit.VARIANTS},
}

DECODERS: dict[str, Callable[..., nn.Module]] = {
    # (channels and strides of the encoder's maps, classes, *, options) -> decoder
    "all-mlp": segformer.all_mlp,
    "aspp": deeplab.aspp,
    "cascade": deeplab.cascade,
    "deeplabv3plus": deeplab.deeplabv3plus,
    "depict-ca": depict.depict_ca,
    "depict-sa": depict.depict_sa,
    "eomt": eomt.eomt,
    "ham": segnext.ham,
    "hardnet": hardnet.fc_hardnet,
    "hrnet-v1": hrnet.hrnet_v1,
    "hrnet-v2": hrnet.hrnet_v2,
    "hrnet-v2p": hrnet.hrnet_v2p,
    "linknet": linknet.linknet,
    "ocr": ocr.ocr,
    "psp": pspnet.psp,
    "segmenter-linear": segmenter_vit.linear,
    "segmenter-mask": segmenter_vit.mask_transformer,
    "setr-mla": setr.setr_mla,
    "setr-naive": setr.setr_naive,
    "setr-pup": setr.setr_pup,
    "unet": unet.unet,
    "unet3p": unet3p.unet3p,
    "unetpp": unetpp.unetpp,
}

_EOMT = {"image_size": 512, "patch": 16, "registers": 4, "position_resize": "antialias"}
"""Of EoMT's encoders: DINOv2 with registers, brought to patches of 16 pixels (paper, appendix)."""

MODELS: dict[str, Design] = {
    **{f"segformer-{variant}": Design(f"mit-{variant}", "all-mlp") for variant in ("b0", "b1")},
    **{
        f"segformer-{variant}": Design(f"mit-{variant}", "all-mlp", {"decoder_channels": 768})
        for variant in ("b2", "b3", "b4", "b5")
    },
    "segnext-t": Design("mscan-t", "ham"),
    "segnext-s": Design("mscan-s", "ham"),
    "segnext-b": Design("mscan-b", "ham", {"decoder_channels": 512, "rank": 64}),
    "segnext-l": Design("mscan-l", "ham", {"decoder_channels": 1024, "rank": 64}),
    **{f"hrnet-w{width}": Design(f"hrnet-w{width}", "hrnet-v2") for width in ("18", "32", "40", "48")},
    **{
        f"hrnet-w{width}-ocr": Design(f"hrnet-w{width}", "ocr", {"align_corners": True})
        for width in ("18", "32", "40", "48")
    },
    **{
        f"hrnetv1-w{width}": Design(f"hrnet-w{width}", "hrnet-v1", {"fuse_upsampling": "nearest", "finest_only": True})
        for width in ("18", "32", "40", "48")
    },
    **{
        f"hrnetv2p-w{width}": Design(f"hrnet-w{width}", "hrnet-v2p", {"fuse_upsampling": "nearest"})
        for width in ("18", "32", "40", "48")
    },
    "pspnet": Design("resnet50", "psp", {"output_stride": 8, "stem": "deep-64", "dilation": "whole"}),
    "deeplabv3": Design("resnet50", "aspp", {"output_stride": 16}),
    "deeplabv3-cascade": Design("resnet50", "cascade", {"output_stride": 16, "multi_grid": [1, 2, 1]}),
    "deeplabv3plus": Design("resnet50", "deeplabv3plus", {"output_stride": 16}),
    "linknet": Design("resnet18", "linknet"),
    "fchardnet-70": Design("fchardnet-70", "hardnet"),
    "unet": Design("unet", "unet"),
    "unetpp": Design("unet", "unetpp", {"release": "nested"}),
    "unet3p": Design("unet", "unet3p", {"release": "unet3p"}),
    "setr-naive": Design("vit-large", "setr-naive", {"final_norm": False}),
    "setr-pup": Design("vit-large", "setr-pup", {"final_norm": False}),
    "setr-mla": Design("vit-large", "setr-mla", {"final_norm": False, "taps": "even", "class_token": "dropped"}),
    "segmenter-linear": Design("vit-large", "segmenter-linear", {"epsilon": 1e-5}),
    "segmenter-mask": Design("vit-large", "segmenter-mask", {"epsilon": 1e-5}),
    "depict-sa": Design("vit-large", "depict-sa", {"epsilon": 1e-5}),
    "depict-ca": Design("vit-large", "depict-ca", {"epsilon": 1e-5}),
    "eomt-s": Design("dinov2-small", "eomt", _EOMT),
    "eomt-b": Design("dinov2-base", "eomt", _EOMT),
    "eomt-l": Design("dinov2-large", "eomt", {**_EOMT, "query_blocks": 4}),
}


def list_models() -> list[str]:
    """Return every name that `create` takes."""
    return [*MODELS, "hmsa"]


def create(name: str, *, classes: int, bands: int = 3, **options: object) -> Segmenter:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models`.
        classes: number of classes, at least 1.
        bands: number of input bands, at least 1.
        options: ``encoder`` and ``decoder`` (names in `ENCODERS` and `DECODERS`) in place of the network's own; and the
            options of the two functions that build them, which their docstrings list. An option that both have goes to
            both. But if one of the two is not the network's own kind, it goes to the decoder alone, and the encoder's
            is called ``encoder_...``. An encoder can also be one of another library, such as
            ``transformers:facebook/dinov2-base`` (`library_encoder`). ``hmsa`` has the option ``network``, a name of
            `list_models`, and takes all options of that network beside its own.

    Returns:
        the network; ``architecture.options`` has all options with their values, and ``architecture.asked`` the names of
        those that were given: these do not give way to weights.

    Raises:
        ConfigError: an unknown name or option, a value that the network cannot have, or an encoder that does not fit
            the decoder.
    """
    model = _built(name, classes, bands, options)
    model.architecture = replace(model.architecture, asked=tuple(options))
    return model


def rebuilt(architecture: Architecture, options: Mapping[str, object], *, asked: bool = False) -> Segmenter:
    """Build the network of an architecture with some options changed, and with fresh weights.

    Args:
        asked: the user wrote these options, so they do not give way to weights.

    Raises:
        ConfigError: an unknown option, or a value that the network cannot have.
    """
    chosen = {**architecture.options, **options}
    model = _built(architecture.name, architecture.classes, architecture.bands, chosen)
    names = dict.fromkeys([*architecture.asked, *(options if asked else ())])
    model.architecture = replace(model.architecture, asked=tuple(names))
    return model


def answers_with_masks(name: str, options: Mapping[str, object]) -> bool:
    """Return True if a network answers with masks and has the loss of these alone."""
    design = MODELS.get(name)
    return options.get("decoder", design and design.decoder) == "eomt"


def _built(name: str, classes: int, bands: int, options: dict[str, Any]) -> Segmenter:
    if name == "hmsa":
        return _create_hierarchical(classes, bands, options)
    design = MODELS[_known(name, MODELS, "network")]
    if classes < 1 or bands < 1:
        raise ConfigError(f"{name} needs at least one class and one band, not classes={classes}, bands={bands}.")
    encoder_name = str(options.get("encoder", design.encoder))
    decoder_name = _known(options.get("decoder", design.decoder), DECODERS, "decoder")
    given = {key: value for key, value in options.items() if key not in ("encoder", "decoder")}
    for_encoder, for_decoder = _shared_out(name, design, encoder_name, decoder_name, given)
    plain_names = {key.removeprefix("encoder_"): value for key, value in for_encoder.items()}
    encoder: Any = _made(_encoder_builder(encoder_name), bands, options=plain_names)
    if isinstance(encoder, library_encoder.LibraryEncoder):
        for_encoder = {key: encoder.kept[key.removeprefix("encoder_")] for key in for_encoder}
    decoder = _made(DECODERS[decoder_name], encoder.channels, encoder.strides, classes, options=for_decoder)
    if isinstance(decoder, eomt.QueryDecoder):
        eomt.require_transformer(name, encoder_name, encoder, decoder)
    # Defaults are recorded too: what is saved now must be built the same when they have changed.
    kept = {"encoder": encoder_name, "decoder": decoder_name, **for_encoder, **for_decoder}
    return Segmenter(encoder, decoder, Architecture(name, classes, bands, _plain(kept)))


def _shared_out(
    name: str, design: Design, encoder_name: str, decoder_name: str, given: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return all options of the encoder and of the decoder: what is given, the network's own, or the default.

    Raises:
        ConfigError: an option that neither has, or one that is true or false and was given something else.
    """
    build = _encoder_builder(encoder_name)
    kin = (_kin(build, ENCODERS[design.encoder]), _kin(DECODERS[decoder_name], DECODERS[design.decoder]))
    for_encoder, for_decoder = _defaults(build), _defaults(DECODERS[decoder_name])
    if not all(kin):
        # Two that were not made for each other may mean different things by one name.
        for_encoder = {f"encoder_{key}" if key in for_decoder else key: value for key, value in for_encoder.items()}
    for key, value in given.items():
        if key not in for_encoder and key not in for_decoder:
            listed = ", ".join(dict.fromkeys(["encoder", "decoder", *for_encoder, *for_decoder]))
            raise ConfigError(f"{name} has no option {key!r}. Its options: {listed}.", code="PW306")
        if isinstance({**for_encoder, **for_decoder}[key], bool):
            require_true_or_false(f"{name}: {key}", value)
    for known, is_kin in ((for_encoder, kin[0]), (for_decoder, kin[1])):
        # A network's own options are about its own kinds of encoder and decoder.
        chosen = {**(design.options if is_kin else {}), **given}
        known.update({key: value for key, value in chosen.items() if key in known})
    return for_encoder, for_decoder


def _create_hierarchical(classes: int, bands: int, options: dict[str, Any]) -> Segmenter:
    own = {key: options[key] for key in ("scales", "training_scales") if key in options}
    rest = {key: value for key, value in options.items() if key not in (*own, "network")}
    name = _known(options.get("network", "hrnet-w48-ocr"), MODELS, "network")
    network = create(name, classes=classes, bands=bands, **rest)
    if isinstance(network.decoder, eomt.QueryDecoder):
        raise ConfigError(
            f"hmsa weighs logits of several sizes, and {name} answers with masks. Take another network.", code="PW308"
        )
    # What the classifier sees has as many channels as an empty image shows, at no cost.
    with torch.device("meta"):
        probe = create(name, classes=classes, bands=bands, **rest).eval()
        maps = probe.encoder(torch.zeros(1, bands, 2 * MINIMUM_SIZE, 2 * MINIMUM_SIZE))
        seen = probe.decoder(maps).features
    if seen is None:
        raise ConfigError(
            f"hmsa needs a network that shows what its classifier sees, and {name} does not. Take another.",
            code="PW308",
        )
    kept = {"network": name, **_defaults(hmsa.hierarchical), **own, **network.architecture.options}
    del kept["features"], kept["maps"]
    architecture = Architecture("hmsa", classes, bands, _plain(kept))
    return hmsa.hierarchical(network, architecture, maps=len(maps), features=seen.shape[1], **own)


def _known(name: object, table: Mapping[str, object], kind: str) -> str:
    if name in table:
        return str(name)
    near = difflib.get_close_matches(str(name), table, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    known = "`pixelwise models` lists all names." if table is MODELS else f"There are {', '.join(table)}."
    known += " Others are 'transformers:NAME' and 'timm:NAME'." if table is ENCODERS else ""
    raise ConfigError(f"No {kind} is called {name!r}. {hint}{known}", code="PW307")


def _encoder_builder(name: str) -> Callable[..., nn.Module]:
    """Return what builds an encoder: our own, or one of another library.

    Raises:
        ConfigError: an unknown name.
    """
    if is_library_name(name):
        return partial(library_encoder.library_encoder, name)
    return ENCODERS[_known(name, ENCODERS, "encoder")]


def _kin(one: Callable[..., nn.Module], other: Callable[..., nn.Module]) -> bool:
    """Return True if one function builds both, such as all sizes of ResNet."""
    return getattr(one, "func", one) is getattr(other, "func", other)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as TOML gives them back: lists, and nothing where there is nothing."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in options.items() if v is not None}


def _defaults(build: Callable[..., nn.Module]) -> dict[str, object]:
    """Return the options of a builder and their defaults."""
    parameters = inspect.signature(_option_class(build) or build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _made(build: Callable[..., nn.Module], *about: object, options: Mapping[str, object]) -> nn.Module:
    """Call a builder with its options, each by itself or all in one object, as it takes them."""
    option_class = _option_class(build)
    return build(*about, **options) if option_class is None else build(*about, option_class(**options))


def _option_class(build: Callable[..., nn.Module]) -> Callable[..., object] | None:
    """Return the class of a builder's argument ``options``, or None if it takes each option by itself."""
    parameter = inspect.signature(build).parameters.get("options")
    return None if parameter is None else parameter.annotation
