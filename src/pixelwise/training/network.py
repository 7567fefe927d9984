"""The network that a run begins with, and its first weights."""

from collections.abc import Callable, Sequence

from pixelwise.config import Config
from pixelwise.errors import WeightsError
from pixelwise.models import Architecture, Segmenter, create
from pixelwise.models.library_encoder import LibraryEncoder
from pixelwise.training.first_weights import FirstWeights
from pixelwise.training.training_data import TrainingData
from pixelwise.weights import load_weights

FRESH_SHARE = 0.1
"""At most this share of an encoder's numbers may be missing from the weights that it starts from."""


def first_network(
    config: Config, data: TrainingData, start: FirstWeights | None, state: dict | None, say: Callable[[str], None]
) -> Segmenter:
    """Build the network, with the weights that the configuration names or fresh ones.

    Args:
        start: the weights that [model].weights names.
        state: of a resumed run. It says which network the run has; `Training.restore` fills in its weights.
        say: called with sentences about the weights.

    Raises:
        ConfigError: an unknown network or option.
        WeightsError: weights that do not fit the network.
    """
    classes, bands = len(data.classes), len(data.training[0].reader.bands)
    if state is not None and "architecture" in state:
        kept = state["architecture"]
        model = create(kept["name"], classes=classes, bands=bands, **kept["options"])
        model.architecture = Architecture(**kept)
        return model
    model = create(config.model.name, classes=classes, bands=bands, **config.model.options)
    if isinstance(model.encoder, LibraryEncoder):
        say(_about(model.encoder))
    if start is None:
        return model
    loaded = load_weights(model, start.path, partial=True)
    require_encoder(model, config, loaded.missing)
    say(f"Weights: {loaded.layout}, {len(loaded.matched)} tensors; {len(loaded.missing)} start fresh.")
    for note in loaded.notes:
        say(note)
    if loaded.widened:
        say(
            f"{loaded.widened} is fitted to {bands} bands: the first {bands} bands of the weights are kept and others "
            "are dropped; bands that the weights lack start at 0."
        )
    return model


def require_encoder(model: Segmenter, config: Config, missing: Sequence[str]) -> None:
    """Check that weights fill the encoder, because fine-tuning needs a trained one.

    Other classes or bands leave single tensors fresh. Of another network's weights only a few fit, by chance.

    Raises:
        WeightsError: more than `FRESH_SHARE` of the encoder's numbers start fresh.
    """
    state = {name: tensor.numel() for name, tensor in model.encoder.state_dict().items()}
    fresh = [name for name in state if f"encoder.{name}" in set(missing)]
    share = sum(state[name] for name in fresh) / sum(state.values())
    if share > FRESH_SHARE:
        raise WeightsError(
            f"[model].weights = {config.model.weights} fill {len(state) - len(fresh)} of the {len(state)} tensors of "
            f"{config.model.name}'s encoder, so they are of another network ({share:.0%} of its numbers would start "
            "fresh, at a rate that is meant for trained ones). Name the network that they are of, or leave weights "
            "out.",
            code="PW503",
        )


def _about(encoder: LibraryEncoder) -> str:
    """Say where a library's encoder is from, and under which licence its weights are."""
    recipe = encoder.recipe
    made = f"The encoder {recipe.name} is built by {recipe.library} {recipe.version}; its maps have the strides "
    made += ", ".join(map(str, encoder.strides))
    if recipe.licence is None:
        return f"{made}. It starts fresh; options.pretrained = true fills it with the weights of its name."
    return f"{made}. It starts with the weights of its name, whose licence is {recipe.licence}."
