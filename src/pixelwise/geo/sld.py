"""Styles for GeoServer, MapServer, ArcGIS and all else that reads OGC's Styled Layer Descriptor 1.0, as NAME.sld."""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from pixelwise.geo.qgis import MAP, PARCELS, SHARE_COLOURS, hexadecimal, write_marked
from pixelwise.labels import Classes

Colour = tuple[int, int, int]


def write_map_sld(raster: Path, classes: Classes) -> Path:
    """Write the colours and names of a map's classes. Another's style is left as it is, as by `write_map_style`."""
    named = enumerate(zip(classes.names, classes.palette, strict=True))
    entries = [(value, colour, name) for value, (name, colour) in named]
    return _write_raster(raster, entries, "values")


def write_share_sld(raster: Path) -> Path:
    """Write the style of a raster of probabilities, 0 to 254 for 0 to 1."""
    return _write_raster(raster, [(v, colour, f"{v / 254:g}") for v, colour in SHARE_COLOURS.items()], "ramp")


def write_parcel_sld(vector: Path, colours: Mapping[str, Colour], *, column: str) -> Path:
    """Write the style of polygons by the values of a text column."""
    root, style = _begun(vector)
    for value, colour in colours.items():
        rule = ElementTree.SubElement(style, "Rule")
        ElementTree.SubElement(rule, "Title").text = value
        equal = ElementTree.SubElement(ElementTree.SubElement(rule, "ogc:Filter"), "ogc:PropertyIsEqualTo")
        ElementTree.SubElement(equal, "ogc:PropertyName").text = column
        ElementTree.SubElement(equal, "ogc:Literal").text = value
        symbol = ElementTree.SubElement(rule, "PolygonSymbolizer")
        for part, settings in (
            ("Fill", {"fill": hexadecimal(colour), "fill-opacity": "0.55"}),
            ("Stroke", {"stroke": hexadecimal(tuple(c * 6 // 10 for c in colour)), "stroke-width": "1"}),
        ):
            drawn = ElementTree.SubElement(symbol, part)
            for name, text in settings.items():
                ElementTree.SubElement(drawn, "CssParameter", name=name).text = text
    return write_marked(vector.with_suffix(".sld"), root, PARCELS)


def _write_raster(raster: Path, entries: list[tuple[int, Colour, str]], kind: str) -> Path:
    root, style = _begun(raster)
    symbol = ElementTree.SubElement(ElementTree.SubElement(style, "Rule"), "RasterSymbolizer")
    colours = ElementTree.SubElement(symbol, "ColorMap", type=kind)
    for value, colour, label in entries:
        ElementTree.SubElement(
            colours, "ColorMapEntry", color=hexadecimal(colour), quantity=str(value), label=label, opacity="1"
        )
    return write_marked(raster.with_suffix(".sld"), root, MAP)


def _begun(path: Path) -> tuple[ElementTree.Element, ElementTree.Element]:
    """Return a style's document, and where its rules go."""
    root = ElementTree.Element(
        "StyledLayerDescriptor",
        {
            "version": "1.0.0",
            "xmlns": "http://www.opengis.net/sld",
            "xmlns:ogc": "http://www.opengis.net/ogc",
        },
    )
    layer = ElementTree.SubElement(root, "NamedLayer")
    ElementTree.SubElement(layer, "Name").text = path.stem
    style = ElementTree.SubElement(layer, "UserStyle")
    return root, ElementTree.SubElement(style, "FeatureTypeStyle")
