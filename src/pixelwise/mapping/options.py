"""What a map of a scene is: the files beside it, where it is made, and how much of the scene it covers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError


@dataclass(frozen=True)
class MapOptions:
    """What a user says of a map.

    Raises:
        ConfigError: a place to compute that is not known.
    """

    confidence: bool = False
    """Write NAME.confidence.tif: the probability of the class."""
    probabilities: bool = False
    """Write NAME.probabilities.tif: that of every class, a band each."""
    cog: bool = False
    """Write these two as cloud-optimised GeoTIFFs too; the map of classes always is one."""
    aoi: str | Path | None = None
    """A file of polygons, the area of interest; elsewhere the map has nodata, and nothing is computed."""
    on: str | None = None
    """'ray' for the machines of a Ray cluster; None: this machine."""
    devices: tuple[Any, ...] = ()
    """Devices of torch, of this machine that share the scene; none: the one that the network is on."""

    def __post_init__(self) -> None:
        if self.on is not None and len(self.devices) > 1:
            raise ConfigError("A Ray cluster chooses its devices itself. Leave out --on ray, or name one device.")
        if self.on not in (None, "ray"):
            raise ConfigError(f"A map cannot be made on {self.on!r}. Leave it out for this machine, or take 'ray'.")
