"""All numbers above which something is said. They were tuned on real sets, so that a clean one gives no warning."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """When the examination speaks."""

    rare_class: float = 0.0005
    """Share of the labelled training pixels below which a class is very rare."""
    small_objects: float = 0.5
    """Share of a class's pixels that lie in objects smaller than a cell of the network (stride x stride pixels)."""
    covered: float = 0.01
    """Share of a scene's pixels with a label below which it was drawn in part only."""
    usual_cover: float = 0.2
    """... if half of the scenes have at least so much."""
    saturated: float = 0.4
    """Share of valid pixels with the band's largest possible value."""
    units: float = 20.0
    """Largest value of a scene over that of another, where their units may differ."""
    outlier: float = 12.0
    """Distance of a scene's mean or deviation from the median over scenes, in median absolute deviations."""
    outlier_share: float = 0.05
    """More scenes than these are no outliers but a second kind."""
    outlier_scenes: int = 8
    """Fewer scenes than these have no usual statistics."""
    hash_distance: int = 8
    """Bits of 64 in which the perceptual hashes of two images that are compared pixel by pixel differ at most."""
    alike: float = 0.93
    """Correlation of their small pictures, 32 pixels a side, from which their pixels are compared."""
    correlation: float = 0.95
    """Correlation of the steps between the pixels of two images from which they are nearly the same."""
    copy: float = 0.995
    """The same for two images of one part of the split, where frames of a video are no mistake."""
    shared_ground: float = 0.001
    """Share of the smaller footprint from which an overlap counts; less is rounding."""
    same_place: float = 0.5
    """Share of the smaller footprint from which two scenes are of one place."""
    fixed_area: float = 0.05
    """Share of a polygon's area that may change when it is fixed."""
    few_outside: float = 0.1
    """Share of polygons outside of all scenes up to which they are strays; more: a file of a larger place."""
    mixed_values: float = 0.3
    """Share of a mask's pixels with unknown values up to which these may come from smooth edges."""
    turned: float = 3.0
    """How many times better a mask fits its image in one orientation than in the other."""


LIMITS = Thresholds()
