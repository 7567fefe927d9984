"""How transformers is asked for an encoder: its configuration by name, its backbone, its weights, their licence."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.encoder_name import is_folder_name
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.models.library_recipe import Recipe, card_licence, folder_of, reason_of
from pixelwise.optional import optional_module

STEMS = 1
"""Maps before that of the first block."""
LEFT_OUT = (
    *("architectures", "id2label", "label2id", "transformers_version"),
    *("auto_map", "attn_implementation", "quantization_config"),
)
"""Of a configuration: what says nothing of the backbone, and what may bring the code of others. So may names that begin
with an underscore."""
AUTO = "transformers.models.auto.modeling_auto"
SIDE = 224
"""Of images, where a configuration does not say."""


def version() -> str:
    """Return the version that is installed."""
    return optional_module("transformers").__version__


def recipe(encoder: str) -> Recipe:
    """Read the configuration of a backbone by its name.

    Raises:
        ConfigError: there is none, or it is of a network that transformers has no backbone of.
    """
    transformers = optional_module("transformers")
    name = encoder.partition(":")[2]
    try:
        with _quiet(transformers):
            about = transformers.AutoConfig.from_pretrained(_place(name), trust_remote_code=False).to_dict()
    except ConfigError:
        raise
    except Exception as error:  # errors of the hub, of files and of the library
        raise ConfigError(
            f"transformers does not find the configuration of encoder = {encoder!r} ({reason_of(error)}). "
            f"{_advice(name)}",
            code="PW309",
        ) from None
    _require_backbone(encoder, about.get("model_type", ""))
    about = _kept(about)
    side = about.get("image_size")
    side = max(side) if isinstance(side, list | tuple) and side else side
    return Recipe(encoder, version(), about, side if isinstance(side, int) and side > 0 else SIDE)


def with_drop_path(recipe: Recipe, drop_path: float) -> dict[str, Any]:
    """Return what a recipe is about, with another chance of the last block to be left out.

    Raises:
        ConfigError: the network leaves no block out.
    """
    if "drop_path_rate" not in recipe.about:
        raise ConfigError(f"{recipe.encoder} has no drop_path. Leave it out.", code="PW306")
    return {**recipe.about, "drop_path_rate": drop_path}


def build(recipe: Recipe, bands: int, taken: Sequence[int] | None) -> nn.Module:
    """Build a backbone with fresh weights.

    Args:
        taken: its maps, as transformers counts them; None: all.

    Raises:
        ConfigError: maps that it does not have, or a configuration that this version does not know.
    """
    transformers = optional_module("transformers")
    config = _config(transformers, recipe, taken)
    if getattr(config, "num_channels", 3) != bands:
        config.num_channels = bands
    try:
        with _quiet(transformers):
            return transformers.AutoBackbone.from_config(config, dtype=torch.float32)
    except Exception as error:  # whatever the library meets in a configuration of another version
        raise ConfigError(
            f"transformers {version()} does not build {recipe.encoder} ({reason_of(error)}); its configuration was "
            f"read by {recipe.version}. Install transformers=={recipe.version}.",
            code="PW309",
        ) from None


def pretrained(recipe: Recipe, taken: Sequence[int]) -> tuple[nn.Module, set[str]]:
    """Return a backbone with its weights, and the names of what they lack or have in another shape.

    Raises:
        WeightsError: they cannot be had.
    """
    transformers = optional_module("transformers")
    config = _config(transformers, recipe, taken)
    # AutoBackbone asks the hub before it looks into a folder or the cache; the class that it would take does not.
    backbone_class = optional_module(AUTO).MODEL_FOR_BACKBONE_MAPPING[type(config)]
    try:
        with _quiet(transformers):
            backbone, found = backbone_class.from_pretrained(
                _place(recipe.name),
                config=config,
                dtype=torch.float32,
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are among those that are missing, and counted
            )
    except ConfigError:
        raise
    except Exception as error:  # as above
        raise WeightsError(
            f"transformers does not find the weights of {recipe.encoder} ({reason_of(error)}). {_advice(recipe.name)}",
            code="PW309",
        ) from None
    mismatched = {each if isinstance(each, str) else each[0] for each in found["mismatched_keys"]}
    return backbone.train(), {*found["missing_keys"], *mismatched}


def maps(backbone: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Return the maps of a batch."""
    return backbone(image).feature_maps


def channels(backbone: Any) -> Sequence[int]:
    """Return the channels of each map."""
    return backbone.channels


def strides(recipe: Recipe, bands: int) -> list[int]:
    """Return the stride of every map that a backbone has."""
    count = len(_config(optional_module("transformers"), recipe, None).stage_names)
    with torch.device("meta"), torch.no_grad():
        try:
            backbone = build(recipe, bands, None)
        except ConfigError:  # a few do not give the map before their first block
            backbone = build(recipe, bands, range(1, count))
        every = maps(backbone.eval(), torch.zeros(1, bands, recipe.side, recipe.side))
    found = [recipe.side // each.shape[-1] for each in every]
    return found[:1] * (count - len(found)) + found


def licence(recipe: Recipe) -> str | None:
    """Return the licence that the card beside the weights names, or None."""
    return card_licence(recipe.name)


def _config(transformers: ModuleType, recipe: Recipe, taken: Sequence[int] | None) -> Any:
    about = {key: value for key, value in _kept(recipe.about).items() if key not in ("out_features", "out_indices")}
    kind = str(about.get("model_type"))
    _require_backbone(recipe.encoder, kind)
    config = transformers.CONFIG_MAPPING[kind].from_dict(about)
    if hasattr(config, "reshape_hidden_states"):
        config.reshape_hidden_states = True
    if not getattr(config, "stage_names", None):
        raise ConfigError(
            f"{recipe.encoder} is of several networks, and its whole gives no maps. Take another encoder.", code="PW309"
        )
    count = len(config.stage_names)
    wanted = list(range(count) if taken is None else taken)
    if wanted != sorted(set(wanted)) or wanted[-1] >= count:
        raise ConfigError(
            f"{recipe.encoder}: out_indices = {wanted} do not fit. It has the maps 0 to {count - 1}; name some of them "
            "in their order.",
            code="PW306",
        )
    config.out_indices = wanted
    return config


def _kept(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in about.items() if key not in LEFT_OUT and not key.startswith("_")}


def _require_backbone(encoder: str, kind: str) -> None:
    known = optional_module(AUTO).MODEL_FOR_BACKBONE_MAPPING_NAMES
    if kind == "timm_backbone" or kind == "timm_wrapper":
        raise ConfigError(f"{encoder} is a network of timm. Ask that: encoder = 'timm:NAME'.", code="PW309")
    if kind not in known:
        listed = ", ".join(sorted(name for name in known if name != "timm_backbone"))
        raise ConfigError(
            f"{encoder} is of the type {kind!r}, of which transformers {version()} has no backbone. It has {listed}. "
            "Take one of these, or the network's name in timm.",
            code="PW309",
        )


def _place(name: str) -> str:
    return str(folder_of(name)) if is_folder_name(name) else name


def _advice(name: str) -> str:
    if is_folder_name(name):
        return "The folder needs config.json and model.safetensors, as save_pretrained writes them."
    return (
        f"Correct the name, or fetch it first where there is a network (`hf download {name}`); a folder is named "
        "with its path: 'transformers:./folder'."
    )


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Leave out what transformers prints of a loading; `WeightsError` says what is wrong with one."""
    logging = transformers.logging
    said, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(said)
        if bars:
            logging.enable_progress_bar()
