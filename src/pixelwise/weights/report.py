"""What a user hears about the weights that he loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pixelwise.weights.options import Change


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
    """Options that were asked for, or that the network's paper names, and stand, though the weights were trained with
    others: name -> (asked, theirs)."""
    network: str = ""
    """Name of the network that a file of ours says it is of."""
    part: str = ""
    """Key of the checkpoint's part that was taken, such as 'state_dict'; or nothing, if it is a state dict itself."""
    others: tuple[str, ...] = ()
    """Keys of its other parts that hold weights too, such as 'model_ema'; averaged ones are taken if alone."""

    @property
    def encoder_complete(self) -> bool:
        """True if every tensor of the encoder was filled."""
        return not any(name.startswith("encoder.") for name in self.missing)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should read of it, as sentences."""
        sentences = []
        if self.others:
            taken = repr(self.part) if self.part else "the network's own"
            sentences.append(
                f"Of the checkpoint's weights, {taken} were taken, not {', '.join(map(repr, self.others))}."
            )
        if self.adopted:
            # The configuration of a library's encoder is a page; its name says the same.
            shown = {key: change for key, change in self.adopted.items() if key != "library_config"}
            changes = ", ".join(f"{key} = {theirs!r} (was {own!r})" for key, (own, theirs) in shown.items())
            sentences.append(f"Taken over from the weights: {changes}.")
        if self.kept:
            changes = ", ".join(f"{key} = {own!r} (theirs: {theirs!r})" for key, (own, theirs) in self.kept.items())
            sentences.append(f"Kept, other than the weights were trained with: {changes}.")
        return tuple(sentences)
