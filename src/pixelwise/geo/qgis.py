"""The style by which QGIS shows a map: colours and names of its classes."""

from pathlib import Path
from xml.etree import ElementTree as Xml

from pixelwise.files import replacing
from pixelwise.labels import Classes


def write_style(path: str | Path, classes: Classes) -> None:
    """Write a QML style; QGIS takes it by itself where it lies beside the map and bears its name.

    Raises:
        ConfigError: a folder that cannot be written.
    """
    root = Xml.Element("qgis", version="3.0", styleCategories="Symbology")
    renderer = Xml.SubElement(
        Xml.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    entries = Xml.SubElement(renderer, "colorPalette")
    for value, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.palette, strict=True)):
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        Xml.SubElement(entries, "paletteEntry", value=str(value), color=colour, alpha="255", label=name)
    Xml.indent(root)
    with replacing(path) as temporary:
        text = Xml.tostring(root, encoding="unicode")
        temporary.write_text(f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n", encoding="utf-8")
