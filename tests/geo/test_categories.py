"""Names and colours of classes, as GDAL and other programs read them."""

from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.shutil import copy

from pixelwise.geo.label_map import LabelMapWriter
from pixelwise.geo.qgis import forget_styles, write_map_style, write_share_style
from pixelwise.geo.raster import RasterInfo
from pixelwise.geo.sld import write_map_sld, write_parcel_sld, write_share_sld
from pixelwise.labels import make_classes

CLASSES = make_classes(["water & ice", "Wald <alt>", "поле"])
SLD = {"sld": "http://www.opengis.net/sld", "ogc": "http://www.opengis.net/ogc"}


def hexadecimal(colour):
    return "#" + bytes(colour).hex()


def test_gdal_reads_names_and_colours_as_categories_and_as_an_attribute_table(tmp_path):
    header = RasterInfo(
        tmp_path / "s.tif", 4, 5, 1, None, "uint8", None, CRS.from_epsg(32633), rasterio.Affine.identity(), False
    )
    with LabelMapWriter(tmp_path / "m.tif", header, CLASSES, tags={}) as writer:
        writer.write(0, np.zeros((4, 5), np.uint8), None, np.ones((4, 5), bool))
    # A VRT holds what GDAL has understood of its source.
    copy(tmp_path / "m.tif", tmp_path / "m.vrt", driver="VRT")
    band = ElementTree.parse(tmp_path / "m.vrt").getroot().find("VRTRasterBand")
    assert [each.text for each in band.find("CategoryNames")] == list(CLASSES.names)
    table = band.find("GDALRasterAttributeTable")
    usages = [column.findtext("Usage") for column in table.iter("FieldDefn")]
    assert usages == ["5", "2", "6", "7", "8"], "value, name, red, green, blue, as gdal.h counts them"
    rows = [[cell.text for cell in row] for row in table.iter("Row")]
    expected = [
        [str(i), name, *map(str, colour)]
        for i, (name, colour) in enumerate(zip(CLASSES.names, CLASSES.palette, strict=True))
    ]
    assert rows == expected


def test_an_sld_of_a_map_has_each_value_in_its_colour(tmp_path):
    root = ElementTree.parse(write_map_sld(tmp_path / "m.tif", CLASSES)).getroot()
    colours = root.find(".//sld:ColorMap", SLD)
    assert colours.get("type") == "values"
    found = [(each.get("quantity"), each.get("label"), each.get("color")) for each in colours]
    named = enumerate(zip(CLASSES.names, CLASSES.palette, strict=True))
    assert found == [(str(i), name, hexadecimal(colour)) for i, (name, colour) in named]


def test_an_sld_of_parcels_chooses_by_the_column(tmp_path):
    colours = {"water & ice": (1, 2, 3), "field": (200, 100, 50)}
    root = ElementTree.parse(write_parcel_sld(tmp_path / "p.gpkg", colours, column="class")).getroot()
    rules = root.findall(".//sld:Rule", SLD)
    assert [rule.findtext(".//ogc:Literal", namespaces=SLD) for rule in rules] == list(colours)
    assert {rule.findtext(".//ogc:PropertyName", namespaces=SLD) for rule in rules} == {"class"}
    fills = [rule.findtext(".//sld:CssParameter[@name='fill']", namespaces=SLD) for rule in rules]
    assert fills == [hexadecimal(colour) for colour in colours.values()]


def test_styles_of_probabilities_run_from_0_to_1(tmp_path):
    items = list(ElementTree.parse(write_share_style(tmp_path / "m.confidence.tif")).iter("item"))
    entries = ElementTree.parse(write_share_sld(tmp_path / "m.confidence.tif")).findall(".//sld:ColorMapEntry", SLD)
    for found, key in ((items, "value"), (entries, "quantity")):
        assert (found[0].get(key), found[0].get("label")) == ("0", "0")
        assert (found[-1].get(key), found[-1].get("label")) == ("254", "1")
    assert (tmp_path / "m.confidence.qml").exists()
    assert (tmp_path / "m.confidence.sld").exists()


@pytest.mark.parametrize("write", [write_map_style, write_map_sld])
def test_only_styles_of_ours_are_replaced_or_removed(tmp_path, write):
    path = write(tmp_path / "m.tif", CLASSES)
    write(tmp_path / "m.tif", make_classes(["other"]))
    assert "other" in path.read_text()
    path.write_text("by hand")
    write(tmp_path / "m.tif", CLASSES)
    forget_styles(tmp_path / "m.tif")
    assert path.read_text() == "by hand"
    path.unlink()
    write(tmp_path / "m.tif", CLASSES)
    forget_styles(tmp_path / "m.tif")
    assert not path.exists()
