"""A style that QGIS takes up by itself: it opens NAME.qml together with NAME.gpkg."""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from pixelwise.files import replacing

OURS = "made by pixelwise, which replaces this file; QGIS leaves this line out when it saves a style"


def write_style(vector: Path, colours: Mapping[str, tuple[int, int, int]], *, column: str) -> Path:
    """Write the style beside a vector file and return its path. A style that is not from here is left as it is.

    Args:
        vector: the file whose polygons are drawn.
        colours: red, green and blue of each value of the column, in the order of the legend.
        column: a text column.
    """
    path = vector.with_suffix(".qml")
    if path.exists() and OURS not in path.read_text(encoding="utf-8", errors="replace"):
        return path
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
    ElementTree.indent(root)
    with replacing(path) as temporary:
        text = ElementTree.tostring(root, encoding="unicode")
        temporary.write_text(
            f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n<!-- {OURS} -->\n{text}\n", encoding="utf-8"
        )
    return path
