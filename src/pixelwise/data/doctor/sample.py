"""An image with its labels as the examination sees them: headers, and facts of pixels that fit a cache."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.scenes import Labels
from pixelwise.geo.raster import RasterInfo

Facts = dict
"""What was read of an image and its labels (`facts.py`), as JSON can hold it."""


@dataclass
class Sample:
    """An image and where its labels come from."""

    image: Path
    mask: Path | None = None
    """None: polygons or annotations, which are drawn."""
    drawn: Callable[[RasterInfo], Labels] | None = None
    """Opens labels that are drawn, given the image's header."""
    source: Path | None = None
    """The annotations that are drawn."""
    given: str | None = None
    """The part of the split that they say."""
    apart: bool = False
    """One of [data].validation_images."""
    info: RasterInfo | None = None
    """The image's header; None where it cannot be opened."""
    mask_info: RasterInfo | None = None
    sound: bool = True
    """The mask fits its image, so that classes of pixels can be counted."""
    facts: Facts = field(default_factory=dict)
    """Empty where nothing could be read."""
    parts: list[str] = field(default_factory=list)
    """Parts of the split that it is in: several with blocks."""

    @property
    def name(self) -> str:
        """The image's file name."""
        return self.image.name
