from xml.etree import ElementTree

from pixelwise.geo.qgis import write_parcel_style

COLOURS = {"water": (10, 20, 30), "field & wood": (127, 176, 105)}


def test_each_class_has_its_colour(tmp_path):
    path = write_parcel_style(tmp_path / "p.gpkg", COLOURS, column="class")
    root = ElementTree.parse(path).getroot()
    renderer = root.find("renderer-v2")
    assert path == tmp_path / "p.qml"
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
    fills = {
        symbol.get("name"): symbol.find(".//Option[@name='color']").get("value")
        for symbol in renderer.iter("symbol")
        if symbol.get("type") == "fill"
    }
    shown = {each.get("value"): fills[each.get("symbol")] for each in renderer.iter("category")}
    assert {name: tuple(map(int, fill.split(",")))[:3] for name, fill in shown.items()} == COLOURS


def test_our_own_style_is_replaced_and_someone_elses_is_kept(tmp_path):
    path = write_parcel_style(tmp_path / "p.gpkg", COLOURS, column="class")
    write_parcel_style(tmp_path / "p.gpkg", {"road": (1, 2, 3)}, column="class")
    assert "road" in path.read_text()
    path.write_text("<qgis>by hand</qgis>")
    write_parcel_style(tmp_path / "p.gpkg", COLOURS, column="class")
    assert path.read_text() == "<qgis>by hand</qgis>"
