"""How an image is cut into tiles and what is averaged: the options that all of prediction takes."""

from dataclasses import dataclass

from pixelwise.config import LARGEST_SCALE
from pixelwise.errors import ConfigError
from pixelwise.runs.model_card import ModelCard


@dataclass(frozen=True)
class Fit:
    """What is done with an image that differs from the training images.

    Raises:
        ConfigError: a word that is not known.
    """

    units: str = "refuse"
    """Other units, such as reflectance 0 to 1 for a model of 0 to 10,000: 'refuse' or 'convert' them."""
    resolution: str = "own"
    """'own': map the image's own pixels, with a warning where they are of another size on the ground; 'model': resample
    to the model's ground resolution, which is then that of the map."""

    def __post_init__(self) -> None:
        if self.units not in ("refuse", "convert"):
            raise ConfigError(f"Other units can be 'refuse'd or 'convert'ed; {self.units!r} is neither.")
        if self.resolution not in ("own", "model"):
            raise ConfigError(
                f"The resolution is the image's 'own' or that of the 'model'; {self.resolution!r} is neither."
            )


@dataclass(frozen=True)
class TileOptions:
    """What a user says of tiles. `grid` fills in the rest from the model.

    Raises:
        ConfigError: a scale or a batch that does not work.
    """

    tile: int | None = None
    """Side in pixels, a multiple of 32; None: as in training's evaluation."""
    overlap: int | None = None
    """Pixels that tiles share, a multiple of 32, at most half a tile; None: as in training's evaluation."""
    flips: bool = False
    """Average with the mirrored image (left and right)."""
    scales: tuple[float, ...] = (1.0,)
    """Average over zoomed copies."""
    batch: int | None = None
    """Scenes: tiles that go through the network together; changes no byte. None: on a GPU as many as there is memory
    for, on a CPU one, with one for each thread at the same time (`fitting_streams`)."""
    fit: Fit = Fit()
    """What is done before an image is cut, if it differs from the training images."""

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= LARGEST_SCALE for scale in self.scales):
            raise ConfigError(
                f"The scales {list(self.scales)} do not work: give one or more numbers above 0 and up to "
                f"{LARGEST_SCALE}; 1 is the image's own size.",
                code="PW316",
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"A batch of {self.batch} tiles does not work: give 1 or more.")

    def grid(self, card: ModelCard) -> tuple[int, int]:
        """Return the tile and the overlap for a model.

        Raises:
            ConfigError: they do not work.
        """
        tile = card.tile if self.tile is None else self.tile
        overlap = min(card.overlap, tile // 64 * 32) if self.overlap is None else self.overlap
        if tile < 64 or tile % 32 or overlap % 32 or not 0 <= overlap <= tile // 2:
            raise ConfigError(
                f"A tile of {tile} pixels with an overlap of {overlap} does not work: both are multiples of 32, the "
                "tile is at least 64, the overlap at most half of it.",
                code="PW316",
            )
        return tile, overlap
