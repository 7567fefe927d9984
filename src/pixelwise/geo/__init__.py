"""Rasters, polygons and tiles: windows, coordinate systems, nodata."""
