"""Styles that QGIS takes up by itself: it opens NAME.qml together with NAME.tif or NAME.gpkg."""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from pixelwise.files import replacing
from pixelwise.labels import Classes

MAP = "style of a map, made by pixelwise, which replaces this file; QGIS leaves this line out when it saves a style"
PARCELS = MAP.replace("a map", "parcels")


def write_map_style(raster: Path, classes: Classes) -> Path:
    """Write the colours and names of a map's classes beside it and return the path. Another's style is left as it is.

    Raises:
        ConfigError: a folder that cannot be written.
    """
    root = ElementTree.Element("qgis", version="3.0", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.palette, strict=True)):
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        ElementTree.SubElement(entries, "paletteEntry", value=str(value), color=colour, alpha="255", label=name)
    return _write(raster.with_suffix(".qml"), root, MAP)


def write_parcel_style(vector: Path, colours: Mapping[str, tuple[int, int, int]], *, column: str) -> Path:
    """Write the style beside a vector file and return its path. A style that is not from here is left as it is.

    Args:
        vector: the file whose polygons are drawn.
        colours: red, green and blue of each value of the column, in the order of the legend.
        column: a text column.
    """
    root = ElementTree.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=column)
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for i, (value, (red, green, blue)) in enumerate(colours.items()):
        ElementTree.SubElement(
            categories, "category", value=value, label=value, symbol=str(i), render="true", type="string"
        )
        symbol = ElementTree.SubElement(symbols, "symbol", name=str(i), type="fill", alpha="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0"})
        options = ElementTree.SubElement(layer, "Option", type="Map")
        for name, text in {
            "color": f"{red},{green},{blue},140",
            "style": "solid",
            # A darker rim of the same hue tells neighbours of one class apart.
            "outline_color": f"{red * 6 // 10},{green * 6 // 10},{blue * 6 // 10},255",
            "outline_style": "solid",
            "outline_width": "0.3",
            "outline_width_unit": "MM",
        }.items():
            ElementTree.SubElement(options, "Option", type="QString", name=name, value=text)
    return _write(vector.with_suffix(".qml"), root, PARCELS)


def _write(path: Path, root: ElementTree.Element, mark: str) -> Path:
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace"):
        return path
    ElementTree.indent(root)
    with replacing(path) as temporary:
        text = ElementTree.tostring(root, encoding="unicode")
        temporary.write_text(
            f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n<!-- {mark} -->\n{text}\n", encoding="utf-8"
        )
    return path
