"""The keys of [sampling] and [augment]: where crops are taken from, and what is changed in them at random."""

from pydantic import Field, model_validator

from pixelwise.config_table import ConfigTable

LARGEST_SIGMA = 5.0
"""Pixels. A crop that is blurred by more shows nothing."""


class SamplingConfig(ConfigTable):
    """Where crops are taken from. What is left of the two shares is taken from anywhere."""

    balanced: float = Field(
        default=0.0, ge=0, le=1, description="share of the crops that hold pixels of a class that was drawn first"
    )
    rarity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="how much more often that draw gives rare classes; 0: all alike, 1: by the inverse frequency",
    )
    hard: float = Field(
        default=0.0, ge=0, le=1, description="share of the crops from places where the network errs, the worse the more"
    )

    @model_validator(mode="after")
    def _shares(self) -> "SamplingConfig":
        if self.balanced + self.hard > 1:
            raise ValueError(f"balanced = {self.balanced} and hard = {self.hard} are more than all crops; lower one")
        return self


class AugmentConfig(ConfigTable):
    """Random changes to each crop; masks are always resampled by nearest neighbour."""

    flip: bool = Field(default=True, description="mirror left and right")
    rotate90: bool | None = Field(
        default=None, description="turn by quarters and mirror up and down; default: for scenes, not for photos"
    )
    scale: tuple[float, float] = Field(default=(0.75, 1.5), description="zoom between these factors")
    rotate: float = Field(default=0.0, ge=0, le=180, description="turn by up to so many degrees")
    elastic: float = Field(
        default=0.0, ge=0, le=64, description="bend: pixels move smoothly by about so many pixels (standard deviation)"
    )
    elastic_scale: float = Field(
        default=32.0, ge=8, description="distance in pixels over which that movement changes; large: wide waves"
    )
    brightness: float = Field(default=0.2, ge=0, description="shift by up to so many standard deviations of the band")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="stretch by up to this share")
    band_jitter: float = Field(
        default=0.1, ge=0, description="the same shift and stretch again, for each band by itself"
    )
    noise: float = Field(
        default=0.0, ge=0, description="add noise of up to so many standard deviations of the band to each pixel"
    )
    blur: float = Field(
        default=0.0, ge=0, le=LARGEST_SIGMA, description="blur by up to so many pixels (standard deviation)"
    )
    cutout: int = Field(
        default=0, ge=0, le=64, description="up to so many rectangles are emptied in all bands; their labels stay"
    )
    cutout_size: float = Field(
        default=0.25, gt=0, le=1, description="largest side of such a rectangle, as a share of the crop's"
    )
    classmix: float = Field(
        default=0.0, ge=0, le=1, description="share of the crops that get half of the classes of another crop pasted in"
    )
    cutmix: float = Field(
        default=0.0, ge=0, le=1, description="share of the crops that get a rectangle of another crop pasted in"
    )

    @model_validator(mode="after")
    def _scale_in_order(self) -> "AugmentConfig":
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError("scale needs two positive factors, the smaller first")
        return self

    @model_validator(mode="after")
    def _one_mix(self) -> "AugmentConfig":
        if self.classmix + self.cutmix > 1:
            raise ValueError(
                f"classmix = {self.classmix} and cutmix = {self.cutmix} are more than all crops; lower one"
            )
        return self
