"""Names and colours of classes as GDAL keeps them: category names and a raster attribute table, in NAME.tif.aux.xml."""

from pathlib import Path
from xml.etree import ElementTree

from pixelwise.files import replacing
from pixelwise.labels import Classes

WHOLE_NUMBER, TEXT = "0", "2"
"""GDAL's GRA types of columns (https://gdal.org/doxygen/gdal_8h.html)."""
NAME, VALUE, RED, GREEN, BLUE = "2", "5", "6", "7", "8"
"""GDAL's GFU usages of columns."""
COLUMNS = (
    ("value", WHOLE_NUMBER, VALUE),
    ("class", TEXT, NAME),
    ("red", WHOLE_NUMBER, RED),
    ("green", WHOLE_NUMBER, GREEN),
    ("blue", WHOLE_NUMBER, BLUE),
)


def categories_path(raster: Path) -> Path:
    """Return where GDAL looks for them: a GeoTIFF itself has no place for them."""
    return raster.with_name(f"{raster.name}.aux.xml")


def write_categories(raster: Path, classes: Classes) -> Path:
    """Write the names and colours of a map's classes beside it, for GDAL and all that reads with it.

    Raises:
        ConfigError: a folder that cannot be written.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for i, described in enumerate(COLUMNS):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(i))
        for key, text in zip(("Name", "Type", "Usage"), described, strict=True):
            ElementTree.SubElement(column, key).text = text
    for value, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        ElementTree.SubElement(categories, "Category").text = name
        row = ElementTree.SubElement(table, "Row", index=str(value))
        for cell in (value, name, *colour):
            ElementTree.SubElement(row, "F").text = str(cell)
    ElementTree.indent(root)
    path = categories_path(raster)
    with replacing(path) as temporary:
        temporary.write_text(ElementTree.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
    return path
