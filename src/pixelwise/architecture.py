"""What a network is, in words: enough to build it again, and to know what a file of it takes."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Architecture:
    """All that `create` needs to build a network again; it is kept beside the weights."""

    name: str
    classes: int
    bands: int
    options: dict[str, object] = field(default_factory=dict)
    asked: tuple[str, ...] = field(default=(), compare=False)
    """Names of the options that the user wrote; the others are defaults, and give way to what weights ask for."""
