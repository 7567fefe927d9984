"""An image with its labels as the examination sees them: headers, and facts of pixels that fit a cache."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.data.doctor.cache import FactCache
from pixelwise.data.scenes import Labels
from pixelwise.geo.raster import RasterInfo

Facts = dict
"""What was read of an image and its labels (`facts.py`), as JSON can hold it."""
WHOLE = "whole"
"""The name in the facts of all pixels of a scene, where no part of it is apart."""


@dataclass(slots=True)
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
    mask_header: RasterInfo | None = None
    """Of the mask, but for its path: thousands of masks share one."""
    sound: bool = True
    """The mask fits its image, so that classes of pixels can be counted."""
    parts: tuple[str, ...] = ()
    """Parts of the split that it is in: several with blocks."""
    facts_in: FactCache | None = None
    """Where its facts are, since those of all images would fill the memory; None where nothing could be read."""
    place: int = 0
    """Of the facts there."""

    @property
    def facts(self) -> Facts:
        """What was read of it; empty where nothing could be. Each call reads from the disk: keep what you look at."""
        if self.facts_in is None:
            return {}
        kept = self.facts_in.read(self.place)
        whole = kept["parts"].get(WHOLE)
        # A whole scene may be in another part today, or in none.
        return kept if whole is None else kept | {"parts": dict.fromkeys(self.parts, whole)}

    @property
    def mask_info(self) -> RasterInfo | None:
        """The mask's header; None where it has none, or its values say nothing."""
        if self.mask_header is None or self.mask is None:
            return None
        return replace(self.mask_header, path=self.mask)

    @property
    def readable(self) -> bool:
        """Whether the image was read to its end."""
        return "content" in self.facts

    @property
    def name(self) -> str:
        """The image's file name."""
        return self.image.name
