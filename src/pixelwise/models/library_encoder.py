"""Encoders that another library builds: any backbone of transformers or timm, by its name there.

``transformers:facebook/dinov2-base`` and ``timm:convnextv2_tiny`` are names of encoders. The library reads its own
cache, or a folder (``transformers:./folder``). What it read is kept as one text, the recipe, so that a saved network is
built again without files and without a network. Channels and strides are found by asking: the backbone maps an empty
image, whose numbers take no memory and are never computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError, PixelwiseError, WeightsError
from pixelwise.models import timm_library, transformers_library
from pixelwise.models.layers import fitted_to_bands
from pixelwise.models.library_recipe import Recipe, reason_of
from pixelwise.models.option_checks import require_chance, require_true_or_false, require_whole_numbers

LIBRARIES = {"timm": timm_library, "transformers": transformers_library}
"""What stands before the colon of a name -> how that library is asked."""
FRESH_SHARE = 0.1
"""Share of a backbone's numbers that its pretrained weights may lack: some backbones norm their maps once more."""
UNKNOWN = "unknown"
"""The licence of weights whose card names none."""
PLAIN_MAPS = 4
"""How many maps of a plain transformer are taken, at even distances."""
ROWS, COLUMNS = 11, 13
"""Height and width of an empty image, in strides of the coarsest map: no common number of channels."""


@dataclass(frozen=True)
class Seen:
    """What the maps of an empty image show."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    channels_last: tuple[bool, ...]
    """Of each map: it is [B,h,w,D]."""
    window: int = 0
    """Side of the only images that the backbone takes; 0: it takes any."""


class LibraryEncoder(nn.Module):
    """A backbone of another library as an encoder: its maps are [B,D,H/s,W/s], finest first.

    A backbone that takes images of one size alone sees a larger image window by window, each by itself.
    """

    def __init__(self, backbone: nn.Module, recipe: Recipe, seen: Seen) -> None:
        super().__init__()
        self.backbone = backbone
        self.recipe = recipe
        self.channels, self.strides = seen.channels, seen.strides
        self.channels_last, self.window = seen.channels_last, seen.window
        self.multiple = seen.window or max(seen.strides)
        self.kept: dict[str, object] = {}
        """Options as a model's card has them: with what was left to the library, and without a wish for weights."""

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the maps; H and W are multiples of ``multiple``."""
        batch, windows = len(image), (1, 1)
        if self.window:
            windows = (image.shape[2] // self.window, image.shape[3] // self.window)
            image = in_windows(image, windows)
        maps = LIBRARIES[self.recipe.library].maps(self.backbone, image)
        # A channels-last map stays where it is in memory.
        maps = [each.permute(0, 3, 1, 2) if last else each for each, last in zip(maps, self.channels_last, strict=True)]
        return [joined_windows(each, batch, windows) for each in maps] if self.window else maps


def in_windows(image: Float[Tensor, "B C H W"], windows: tuple[int, int]) -> Float[Tensor, "N C h w"]:
    """Cut each image of a batch into windows, row by row."""
    cut = image.unflatten(3, (windows[1], -1)).unflatten(2, (windows[0], -1))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def joined_windows(cut: Float[Tensor, "N C h w"], batch: int, windows: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Put together what `in_windows` cut."""
    return cut.unflatten(0, (batch, *windows)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def library_encoder(
    name: str,
    bands: int,
    *,
    pretrained: bool = False,
    out_indices: Sequence[int] = (),
    drop_path: float | None = None,
    library_config: str = "",
) -> LibraryEncoder:
    """Build an encoder of a library.

    Args:
        name: ``transformers:`` or ``timm:``, and then a name on the hub, a folder (from ``./``, ``../``, ``/`` or
            ``~``) or, for timm, one of `timm.list_models`.
        bands: of the image.
        pretrained: fill it with the weights of that name. For other bands, the first convolution is fitted as
            `load_weights` does. On the meta device nothing is filled.
        out_indices: which maps are taken, as the library counts them; empty: of a pyramid the last of each stride, of a
            plain transformer four at even distances.
        drop_path: chance of the last block to be left out in training; None: the library's own.
        library_config: what the library needs to build it again; empty: it is read by the name.

    Raises:
        ConfigError: a name that the library does not know, an option that is wrong, or a network that gives no maps.
        WeightsError: pretrained weights that cannot be had, or do not fit.
        MissingExtraError: the library is not installed.
    """
    require_true_or_false(f"{name}: pretrained", pretrained)
    if drop_path is not None:
        require_chance(f"{name}: drop_path", drop_path)
    library = LIBRARIES[name.partition(":")[0]]
    recipe = Recipe.from_text(library_config, name) if library_config else library.recipe(name)
    recipe = recipe if drop_path is None else replace(recipe, about=library.with_drop_path(recipe, drop_path))
    if isinstance(out_indices, list | tuple) and not out_indices:
        taken = chosen_maps(_every_stride(recipe, bands), library.STEMS)
    else:
        taken = list(require_whole_numbers(f"{name}: out_indices", out_indices, least=0))
    with torch.device("meta"):
        twin = library.build(recipe, bands, taken).eval()
    # A builder asks on the meta device whether a network can be, and wants no weights.
    filled = pretrained and torch.empty(0).device.type != "meta"
    backbone = _pretrained(recipe, bands, taken, twin) if filled else library.build(recipe, bands, taken)
    if filled:
        recipe = replace(recipe, licence=library.licence(recipe) or UNKNOWN)
    encoder = LibraryEncoder(backbone, recipe, looked_at(twin, recipe, bands))
    encoder.kept = {"pretrained": None, "out_indices": taken, "drop_path": None, "library_config": recipe.to_text()}
    return encoder


def chosen_maps(strides: Sequence[int], stems: int) -> list[int]:
    """Return which of a backbone's maps are taken.

    Args:
        strides: of all its maps.
        stems: how many maps come before that of the first block.
    """
    if len(set(strides)) > 1:
        last = [i for i in range(len(strides)) if i + 1 == len(strides) or strides[i + 1] > strides[i]]
        # A map of the image's own size costs more than it tells, and some are the image itself.
        return [i for i in last if strides[i] > 1]
    blocks = len(strides) - stems
    count = min(PLAIN_MAPS, blocks)
    return [stems + blocks * (i + 1) // count - 1 for i in range(count)]


def looked_at(backbone: nn.Module, recipe: Recipe, bands: int) -> Seen:
    """Return what a backbone on the meta device makes of empty images.

    Raises:
        ConfigError: it takes other bands, or its maps have no whole stride.
    """
    with _taking(recipe, bands):
        own = _seen(backbone, recipe, bands, (recipe.side, recipe.side))
    try:
        return _seen(backbone, recipe, bands, (ROWS * max(own.strides), COLUMNS * max(own.strides)))
    except Exception:  # as above
        return replace(own, window=recipe.side)


def _every_stride(recipe: Recipe, bands: int) -> list[int]:
    with _taking(recipe, bands):
        return LIBRARIES[recipe.library].strides(recipe, bands)


@contextmanager
def _taking(recipe: Recipe, bands: int) -> Iterator[None]:
    """Turn what a network says of an image that it does not take into one paragraph."""
    try:
        yield
    except PixelwiseError:
        raise
    except Exception as error:  # networks say it in many ways
        raise ConfigError(
            f"{recipe.encoder} takes no images of {bands} bands and {recipe.side}x{recipe.side} pixels "
            f"({reason_of(error)}). Take another encoder, or [data].bands that it takes.",
            code="PW309",
        ) from None


def _seen(backbone: nn.Module, recipe: Recipe, bands: int, size: tuple[int, int]) -> Seen:
    library = LIBRARIES[recipe.library]
    with torch.device("meta"), torch.no_grad():
        maps = library.maps(backbone, torch.zeros(1, bands, *size))
    channels, strides, channels_last = [], [], []
    for each, width in zip(maps, library.channels(backbone), strict=True):
        last = each.ndim == 4 and each.shape[1] != width == each.shape[3]
        rows, columns = each.shape[1:3] if last else each.shape[2:4]
        if each.ndim != 4 or size[0] % rows or size[1] % columns or size[0] // rows != size[1] // columns:
            raise ConfigError(
                f"{recipe.encoder} makes a map of {list(each.shape)} of an image of {size[0]}x{size[1]} pixels, which "
                "is no map of a whole stride. Take another encoder, or other out_indices.",
                code="PW309",
            )
        channels.append(each.shape[3] if last else each.shape[1])
        strides.append(size[0] // rows)
        channels_last.append(last)
    return Seen(tuple(channels), tuple(strides), tuple(channels_last))


def _pretrained(recipe: Recipe, bands: int, taken: Sequence[int], twin: nn.Module) -> nn.Module:
    """Return a backbone filled with the weights of its name.

    Args:
        twin: the backbone that is wanted, on the meta device.

    Raises:
        WeightsError: they cannot be had, or do not fit.
    """
    library = LIBRARIES[recipe.library]
    source, missing = library.pretrained(recipe, taken)
    weights = source.state_dict()
    fresh = sum(weights[name].numel() for name in missing if name in weights)
    if fresh > FRESH_SHARE * sum(tensor.numel() for tensor in weights.values()):
        raise WeightsError(
            f"The weights of {recipe.encoder} lack {len(missing)} tensors of its backbone, such as "
            f"{', '.join(sorted(missing)[:3])}. Take another name or folder.",
            code="PW503",
        )
    wanted = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    if all(tensor.shape == wanted.get(name) for name, tensor in weights.items()):
        return source
    for name, shape in wanted.items():
        found = weights.get(name)
        if found is not None and found.ndim == 4 and len(shape) == 4 and shape[1] == bands != found.shape[1]:
            weights[name] = fitted_to_bands(found, bands)
    backbone = library.build(recipe, bands, taken)
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(
            f"The weights of {recipe.encoder} do not fit {bands} bands ({reason_of(error)}). Take as many bands as "
            "they were trained with.",
            code="PW503",
        ) from None
    return backbone


def versions_apart(model: nn.Module) -> str:
    """Return a sentence if a network's encoder was saved with another version of its library, or nothing."""
    for module in model.modules():
        if isinstance(module, LibraryEncoder):
            recipe, here = module.recipe, LIBRARIES[module.recipe.library].version()
            if recipe.version != here:
                return (
                    f" Its encoder is built by {recipe.library} {here}, and was saved with {recipe.version}, which may "
                    f"name tensors otherwise: install {recipe.library}=={recipe.version}."
                )
    return ""
