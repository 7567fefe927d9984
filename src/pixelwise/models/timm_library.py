"""How timm is asked for an encoder: its network by name, its maps, its weights, their licence."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.encoder_name import is_folder_name
from pixelwise.errors import ConfigError, MissingExtraError, WeightsError
from pixelwise.models.library_recipe import Recipe, card_licence, folder_of, reason_of
from pixelwise.optional import optional_module

STEMS = 0
"""Maps before that of the first block."""
FLEXIBLE = {"dynamic_img_size": True}
"""The argument that lets some families take images of any size; others need none, or take one size alone."""
SIZE = (3, 224, 224)
"""Of images, where a network does not say."""
OURS = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only"} | {
    *("in_chans", "out_indices", "num_classes", "scriptable", "exportable", "no_jit")
}
"""Arguments of timm.create_model that a recipe does not give."""
REGISTERED = re.compile(r"\w+(\.\w+)?")
"""A name of timm.list_models, with or without the tag of its weights."""


def version() -> str:
    """Return the version that is installed."""
    return _timm().__version__


def recipe(encoder: str) -> Recipe:
    """Find out what builds the network of a name.

    Raises:
        ConfigError: timm does not know the name, or gives no maps of that network.
    """
    architecture, arguments, made_for = _named(encoder)
    bare = Recipe(encoder, version(), {"architecture": architecture, "arguments": arguments}, 1)
    backbone = _on_meta(bare)
    made_for = made_for or getattr(backbone, "pretrained_cfg", None) or {}
    known = {
        "strides": [each["reduction"] for each in backbone.feature_info.info],
        "licence": made_for.get("license") or "",
    }
    found = replace(bare, about={**bare.about, **known}, side=int(max(made_for.get("input_size", SIZE)[-2:])))
    if _takes(backbone, 2 * found.side, 3 * found.side):
        return found
    flexible = replace(found, about={**found.about, "arguments": {**arguments, **FLEXIBLE}})
    try:
        return flexible if _takes(_on_meta(flexible), 2 * found.side, 3 * found.side) else found
    except ConfigError:  # the family does not have this argument
        return found


def _takes(backbone: nn.Module, height: int, width: int) -> bool:
    """Return whether a backbone on the meta device takes images of a size."""
    try:
        with torch.device("meta"), torch.no_grad():
            maps(backbone, torch.zeros(1, 3, height, width))
    except Exception:  # whatever a network says of an image that it does not take
        return False
    return True


def with_drop_path(recipe: Recipe, drop_path: float) -> dict[str, Any]:
    """Return what a recipe is about, with another chance of the last block to be left out."""
    return {**recipe.about, "arguments": {**recipe.about["arguments"], "drop_path_rate": drop_path}}


def build(recipe: Recipe, bands: int, taken: Sequence[int] | None) -> nn.Module:
    """Build a backbone with fresh weights.

    Args:
        taken: its maps, as timm counts them; None: timm's own choice.

    Raises:
        ConfigError: maps that it does not have, or a network that this version does not know.
    """
    return _created(recipe, str(recipe.about["architecture"]), taken, pretrained=False, in_chans=bands)


def pretrained(recipe: Recipe, taken: Sequence[int]) -> tuple[nn.Module, set[str]]:
    """Return a backbone with its weights, of which timm lets none be lacking.

    Raises:
        WeightsError: they cannot be had.
    """
    name = recipe.name
    try:
        return _created(recipe, _place(name), taken, pretrained=True), set()
    except ConfigError as error:
        advice = "The folder needs config.json and model.safetensors, as timm.models.save_for_hf writes them."
        if not is_folder_name(name):
            advice = "Without a network, they must be in the cache of huggingface_hub; start once where there is one."
        raise WeightsError(
            f"timm does not find the weights of {recipe.encoder}: {error} {advice}", code="PW309"
        ) from None


def maps(backbone: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Return the maps of a batch; some networks give [B,h,w,D]."""
    return backbone(image)


def channels(backbone: Any) -> Sequence[int]:
    """Return the channels of each map."""
    return backbone.feature_info.channels()


def strides(recipe: Recipe, bands: int) -> list[int]:
    """Return the stride of every map that a backbone has."""
    return recipe.about["strides"]


def licence(recipe: Recipe) -> str | None:
    """Return the licence that timm has for the weights, or their card; or None."""
    own = None if REGISTERED.fullmatch(recipe.name) else card_licence(recipe.name.removeprefix("hf-hub:"))
    return recipe.about["licence"] or own


def _on_meta(recipe: Recipe) -> Any:
    with torch.device("meta"):
        return build(recipe, 3, None).eval()


def _created(recipe: Recipe, name: str, taken: Sequence[int] | None, **arguments: Any) -> nn.Module:
    timm = _timm()
    chosen = {} if taken is None else {"out_indices": tuple(taken)}
    own = {key: value for key, value in recipe.about["arguments"].items() if key not in OURS}
    try:
        return timm.create_model(name, features_only=True, **chosen, **own, **arguments)
    except Exception as error:  # whatever the library meets
        asked = f" with out_indices = {list(taken)}" if taken is not None else ""
        raise ConfigError(
            f"timm {timm.__version__} does not build {recipe.encoder}{asked} ({reason_of(error)}). Correct the name or "
            f"the option; timm.list_models() has all names. The network was looked up with timm {recipe.version}.",
            code="PW309",
        ) from None


def _named(encoder: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the network's name in timm, its arguments, and what is known of its weights.

    The last two are in the config.json of a folder or a repository; for a name of timm's they are empty.
    """
    name = encoder.partition(":")[2]
    if REGISTERED.fullmatch(name):
        return name, {}, {}
    try:
        if is_folder_name(name):
            path = folder_of(name) / "config.json"
        else:
            repository, _, revision = name.removeprefix("hf-hub:").partition("@")
            hub = optional_module("huggingface_hub")
            path = hub.hf_hub_download(repository, "config.json", revision=revision or None)
        with open(path, encoding="utf-8") as opened:
            about = json.load(opened)
        architecture, arguments = about["architecture"], about.get("model_args") or {}
        made_for = about.get("pretrained_cfg") or {}
        sound = REGISTERED.fullmatch(architecture) and isinstance(arguments, dict) and isinstance(made_for, dict)
    except ConfigError:
        raise
    except Exception as error:  # of the hub, of files, of what is in them
        raise ConfigError(
            f"timm does not find the configuration of encoder = {encoder!r} ({reason_of(error)}). Correct the name, or "
            "fetch it first where there is a network; a folder is named with its path: 'timm:./folder'.",
            code="PW309",
        ) from None
    if not sound:
        raise ConfigError(
            f"The config.json of encoder = {encoder!r} names no network of timm. Take another.", code="PW309"
        )
    return architecture, arguments, made_for


def _place(name: str) -> str:
    """Return what timm calls a name, a folder or a repository."""
    if REGISTERED.fullmatch(name):
        return name
    return f"local-dir:{folder_of(name)}" if is_folder_name(name) else f"hf-hub:{name.removeprefix('hf-hub:')}"


def _timm() -> ModuleType:
    try:
        return optional_module("timm")
    except Exception as error:  # torchvision of another torch fails with a RuntimeError
        if find_spec("timm") is None:
            raise
        raise MissingExtraError(
            f"timm is installed but does not start ({reason_of(error.__context__ or error)}). It needs torchvision of "
            "the same source and version as torch; install both together."
        ) from None
