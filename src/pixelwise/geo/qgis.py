"""Styles that QGIS takes up by itself: it opens NAME.qml together with NAME.tif or NAME.gpkg."""

import os
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from pixelwise.files import replacing
from pixelwise.labels import Classes

MAP = "style of a map, made by pixelwise, which replaces this file; QGIS leaves this line out when it saves a style"
PARCELS = MAP.replace("a map", "parcels")
SHARE_COLOURS = {0: (68, 1, 84), 127: (33, 145, 140), 254: (253, 231, 37)}
"""Of probabilities on disk, 0 to 254 for 0 to 1: dark to light, and told apart by the colour-blind (viridis)."""


def write_map_style(raster: Path, classes: Classes) -> Path:
    """Write the colours and names of a map's classes beside it and return the path. Another's style is left as it is.

    Raises:
        ConfigError: a folder that cannot be written.
    """
    root = ElementTree.Element("qgis", version="3.0", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        ElementTree.SubElement(
            entries, "paletteEntry", value=str(value), color=hexadecimal(colour), alpha="255", label=name
        )
    return write_marked(raster.with_suffix(".qml"), root, MAP)


def write_share_style(raster: Path) -> Path:
    """Write the style of a raster of probabilities, 0 to 254 for 0 to 1; of several bands it shows the first."""
    root = ElementTree.Element("qgis", version="3.0", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    limits = {"classificationMin": "0", "classificationMax": "254"}
    kind = {"type": "singlebandpseudocolor", "band": "1", "opacity": "1", "alphaBand": "-1"}
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", kind | limits)
    shader = ElementTree.SubElement(renderer, "rastershader")
    ramp = ElementTree.SubElement(
        shader, "colorrampshader", colorRampType="INTERPOLATED", minimumValue="0", maximumValue="254"
    )
    for value, colour in SHARE_COLOURS.items():
        entry = {"value": str(value), "label": f"{value / 254:g}", "color": hexadecimal(colour), "alpha": "255"}
        ElementTree.SubElement(ramp, "item", entry)
    return write_marked(raster.with_suffix(".qml"), root, MAP)


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
    return write_marked(vector.with_suffix(".qml"), root, PARCELS)


def hexadecimal(colour: tuple[int, ...]) -> str:
    """Return red, green and blue as '#rrggbb'."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def write_marked(path: Path, root: ElementTree.Element, mark: str) -> Path:
    """Write a style with a mark, by which it is known again; one without that mark is left as it is."""
    if path.is_dir() or (os.path.lexists(path) and not _is_ours(path, mark)):
        return path
    ElementTree.indent(root)
    kind = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" if root.tag == "qgis" else ""
    text = ElementTree.tostring(root, encoding="unicode")
    with replacing(path) as temporary:
        temporary.write_text(f"{kind}<!-- {mark} -->\n{text}\n", encoding="utf-8")
    return path


def forget_styles(raster: Path) -> None:
    """Remove the styles of a raster that is gone, if they are ours."""
    for path in (raster.with_suffix(".qml"), raster.with_suffix(".sld")):
        if os.path.lexists(path) and _is_ours(path, MAP):
            path.unlink()


def _is_ours(path: Path, mark: str) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return mark in path.read_text(encoding="utf-8", errors="replace")
