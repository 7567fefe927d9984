"""PROJ, which knows the coordinate systems: does it work here?"""

import os
from functools import cache

from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points

from pixelwise.errors import ConfigError


@cache
def degrees() -> CRS:
    """Return longitude and latitude of WGS 84.

    Raises:
        ConfigError: PROJ does not work here.
    """
    check_proj()
    return CRS.from_epsg(4326)


@cache
def check_proj() -> None:
    """See that PROJ finds its own database and puts a known point where it belongs.

    Raises:
        ConfigError: it does not; where an environment variable leads it astray, that is named.
    """
    try:
        # The central meridian of zone 33 is 15 degrees east.
        (x,), (y,) = transform_points(CRS.from_epsg(4326), CRS.from_epsg(32633), [15.0], [0.0])[:2]
        reason = "" if abs(x - 500_000) < 0.01 and abs(y) < 0.01 else "it puts 15 degrees east in another place"
    except (CRSError, RasterioError, CPLE_BaseError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
    if not reason:
        return
    set_here = [f"{name} = {os.environ[name]}" for name in ("PROJ_LIB", "PROJ_DATA") if os.environ.get(name)]
    cause = (
        f"the environment variable {' and '.join(set_here)} leads to the files of another PROJ. Unset it for "
        f"pixelwise, such as with: env {' '.join('-u ' + each.split(' ')[0] for each in set_here)} pixelwise ..."
        if set_here
        else "its files are missing. Install rasterio again."
    )
    raise ConfigError(f"PROJ, which knows the coordinate systems, does not work here ({reason}): {cause}", code="PW424")
