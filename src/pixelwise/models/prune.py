"""A UNet++ cut down to one of its inner networks (its paper: arXiv 1807.10165)."""

from pixelwise.errors import ConfigError
from pixelwise.models import create
from pixelwise.models.segmenter import Segmenter
from pixelwise.models.unetpp import NestedDecoder


def prune(model: Segmenter, level: int) -> Segmenter:
    """Return the smaller UNet++ that ends at a level: its logits are those of that head of the whole network.

    Nodes below and behind the head are gone (section 3.3 of the paper), and with the plain encoder its deeper levels
    too, so `pixelwise.cost` is lower. The copy has weights of its own and is in the same mode.

    Args:
        model: a UNet++ with deep supervision.
        level: 1 to the model's own.

    Raises:
        ConfigError: another network, one without deep supervision, or a level that it does not have.
    """
    decoder, about = model.decoder, model.architecture
    if not isinstance(decoder, NestedDecoder):
        raise ConfigError(f"Only a UNet++ can be pruned, and the network is {about.name}. Create one with 'unetpp'.")
    if str(level) not in decoder.heads:
        levels = ", ".join(decoder.heads)
        raise ConfigError(
            f"This UNet++ has heads at the levels {levels}, and none at {level!r}. Choose one of them; a network "
            "without deep_supervision has one head and nothing to prune."
        )
    options = {**about.options, "level": level, "deep_supervision": False, "averaged": False}
    smaller = create(about.name, classes=about.classes, bands=about.bands, **options)
    weights = model.state_dict()
    if any(name not in weights for name in smaller.state_dict()):
        raise ConfigError("This UNet++ is fused: its weights are merged. Prune first, then fuse the smaller network.")
    smaller.load_state_dict({name: weights[name] for name in smaller.state_dict()})
    return smaller.to(next(model.parameters())).train(model.training)
