import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.env import get_gdal_config
from small_network import NORTH_UP, card_of, noise, predictor_of, runs, small_network, write_scene

from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.raster import RasterReader
from pixelwise.inference.tile_grid import plan_strips
from pixelwise.inference.tiling import Tiling
from pixelwise.mapping.write_map import cache_bytes

TRANSFORMS = {
    "north up": NORTH_UP,
    "south up": rasterio.Affine(2, 0, 500_000, 0, 2, 4_600_000),
    "rotated": rasterio.Affine.translation(5e5, 4.6e6) @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(2, -2),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_map_has_the_size_and_the_place_of_its_scene(tmp_path, name):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130), transform=TRANSFORMS[name])
    made = predictor_of().map_scene(scene, tmp_path / "maps/new/map.tif")
    with rasterio.open(made.path) as written, rasterio.open(scene) as source:
        assert (written.width, written.height, written.count) == (130, 100, 1)
        assert written.crs == source.crs
        assert written.transform.almost_equals(source.transform)
        assert written.dtypes == ("uint8",)
        assert written.nodata == 255
    assert (made.height, made.width) == (100, 130)
    assert made.seconds > 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([(64, 0), (64, 32), (96, 32)]), st.integers(0, 9))
def test_a_map_holds_what_segment_says_and_counts_its_shares(tmp_path, height, width, grid, seed):
    values = noise(4, height, width, seed)
    values[3] = np.where(np.random.default_rng(seed).random((height, width)) < 0.2, 0, 255)
    scene = write_scene(tmp_path / "scene.tif", values, photometric="rgb", alpha="yes")
    predictor = predictor_of(seed=seed)
    made = predictor.map_scene(scene, tmp_path / "map.tif", tile=grid[0], overlap=grid[1], confidence=True)
    result = predictor.segment(scene, tile=grid[0], overlap=grid[1])
    labels, confidence = (rasterio.open(tmp_path / f"map{end}.tif").read(1) for end in ("", ".confidence"))
    np.testing.assert_array_equal(labels, result.labels)
    np.testing.assert_array_equal(labels == 255, values[3] == 0)
    assert np.abs(confidence / 254 - result.confidence)[result.valid].max(initial=0) <= 0.5 / 254 + 1e-6
    counted = [int((labels == i).sum()) for i in range(3)]
    assert [made.shares[f"class {i}"] for i in range(3)] == pytest.approx([n / max(1, sum(counted)) for n in counted])


def test_a_map_tells_how_it_was_made(tmp_path):
    import pixelwise as pw

    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    predictor_of().map_scene(scene, tmp_path / "map.tif", tile=96)
    with rasterio.open(tmp_path / "map.tif") as written:
        tags = written.tags()
    assert tags["PIXELWISE_VERSION"] == pw.__version__
    assert tags["PIXELWISE_MODEL"] == "0123abcd"
    assert tags["PIXELWISE_NETWORK"] == "small"
    assert (tags["PIXELWISE_TILE"], tags["PIXELWISE_OVERLAP"]) == ("96", "32")
    assert "PIXELWISE_DATE" not in tags, "the same work gives the same bytes"


def test_a_map_may_replace_an_older_one_and_leaves_nothing_else(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    shares: list[float] = []
    for _ in range(2):
        predictor_of().map_scene(scene, tmp_path / "map.tif", advance=shares.append)
    assert shares[-1] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("map.qml", "map.sld", "map.tif", "map.tif.aux.xml", "scene.tif")
    ]


def test_a_truncated_scene_is_named_before_the_network_runs_and_an_older_map_stays(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 400, 400))
    scene.write_bytes(scene.read_bytes()[:300_000])
    (tmp_path / "map.tif").write_text("older")
    predictor = predictor_of()
    with pytest.raises(DataError, match=r"scene\.tif cannot be read.*truncated"):
        predictor.map_scene(scene, tmp_path / "map.tif")
    assert runs(predictor) == 0
    assert (tmp_path / "map.tif").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "scene.tif"]


def test_a_scene_that_is_corrupt_in_its_middle_is_named_and_what_is_finished_is_kept(tmp_path):
    scene = write_scene(
        tmp_path / "scene.tif", noise(3, 400, 400), tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    whole = scene.read_bytes()
    predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True)
    expected = (tmp_path / "map.tif").read_bytes()
    (tmp_path / "map.tif").unlink()
    scene.write_bytes(whole[:200_000] + bytes(50_000) + whole[250_000:])
    with pytest.raises(DataError, match=r"scene\.tif cannot be read at rows.* of 12 pieces are finished and kept in"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True)
    assert not (tmp_path / "map.tif").exists()
    # The mended scene has another date, but what was read of it is the same.
    scene.write_bytes(whole)
    predictor, said = predictor_of(), []
    predictor.map_scene(scene, tmp_path / "map.tif", confidence=True, say=said.append)
    assert any("reading its finished part again" in text for text in said)
    assert any("going on" in text for text in said)
    assert (tmp_path / "map.tif").read_bytes() == expected
    assert 20 < runs(predictor) < 120
    assert not (tmp_path / ".map.tif.parts").exists()


def test_a_missing_scene_or_one_that_is_no_image_is_named(tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    for name in ("none.tif", "text.tif"):
        with pytest.raises(DataError, match=name):
            predictor_of().map_scene(tmp_path / name, tmp_path / "map.tif")
        with pytest.raises(DataError, match=name):
            predictor_of().segment(tmp_path / name)


def test_an_output_that_cannot_be_is_refused_before_the_network_runs(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    before = scene.read_bytes()
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link.tif").symlink_to(scene)
    predictor = predictor_of()
    for output, says in (
        ("scene.tif", "is the scene itself"),
        ("../" + tmp_path.name + "/scene.tif", "is the scene itself"),
        ("link.tif", "is the scene itself"),
        ("map.png", r"map\.png.*\.tif"),
        ("folder.tif", "is a folder"),
        ("file/map.tif", "a file is in the way"),
    ):
        with pytest.raises(ConfigError, match=says):
            predictor.map_scene(scene, tmp_path / output)
    assert runs(predictor) == 0
    assert scene.read_bytes() == before


def test_confidence_is_not_written_over_the_scene(tmp_path):
    scene = write_scene(tmp_path / "map.confidence.tif", noise(3, 100, 130))
    with pytest.raises(ConfigError, match=r"map\.confidence\.tif is the scene itself"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True)


@pytest.mark.parametrize(
    "options",
    [{"tile": 100}, {"tile": 32}, {"tile": 0}, {"overlap": 48}, {"overlap": 64}, {"overlap": -32}, {"tile": -64}],
)
def test_a_tile_or_an_overlap_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError, match="multiples of 32"):
        predictor_of().segment(np.zeros((40, 50, 3), np.uint8), **options)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(ConfigError, match="scales"):
        predictor_of().segment(np.zeros((40, 50, 3), np.uint8), scales=scales)


def test_the_cache_grows_with_the_width_only_where_the_scene_is_stored_in_lines_or_tall_blocks(tmp_path):
    def cache(height: int, width: int, **stored: object) -> int:
        scene = write_scene(tmp_path / "scene.tif", np.zeros((3, height, width), np.uint8), **stored)
        plan = plan_strips(height, width, 512, 128, 4)
        return cache_bytes(Tiling(network, RasterReader(scene), card_of(network), plan))

    network, least = small_network(), 64 << 20
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
    assert cache(64, 8_000, **blocks) == cache(64, 64_000, **blocks) == least
    assert cache(64, 64_000, blockysize=8) == (2 * 512 + 8) * 64_000 * 6
    assert cache(64, 8_000, blockysize=8) == least
    tall = {**blocks, "blockysize": 2048}
    assert cache(64, 64_000, **tall) == (2 * 512 + 2048) * 64_000 * 6


def test_the_cache_is_limited_while_a_scene_is_mapped_and_given_back(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    limits: list[int] = []
    before = get_gdal_config("GDAL_CACHEMAX")
    predictor_of().map_scene(
        scene, tmp_path / "map.tif", advance=lambda _: limits.append(get_gdal_config("GDAL_CACHEMAX"))
    )
    assert set(limits) == {64 << 20}
    assert get_gdal_config("GDAL_CACHEMAX") == before
