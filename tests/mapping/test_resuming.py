"""Maps that were killed, stopped or disturbed, and go on."""

import json
import os
import random
import signal
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from killed_map import fork_server, map_until_killed, wait_for
from small_network import noise, predictor_of, runs, write_scene

from pixelwise.errors import ConfigError, DataError
from pixelwise.inference.tile_grid import plan_strips
from pixelwise.mapping import capacity
from pixelwise.mapping import map_scene as scenes
from pixelwise.mapping.journal import Journal, journal_folder
from pixelwise.mapping.pieces import make_pieces, places

PRODUCTS = (
    *("map.tif", "map.confidence.tif", "map.probabilities.tif", "map.tif.aux.xml"),
    *(f"{name}.{style}" for name in ("map", "map.confidence", "map.probabilities") for style in ("qml", "sld")),
)


class Mapping:
    """A process that maps a scene, with a log of the tiles that went through its network."""

    def __init__(self, folder: Path, context: ForkServerContext) -> None:
        self.piece = 4096
        self.folder, self.context, self.log = folder, context, folder / "log"
        self.scene = write_scene(folder / "scene.tif", noise(3, 300, 200))

    def start(self, *, fatal: int = 0, pause: float = 0.0) -> BaseProcess:
        arguments = (self.scene, self.folder / "out/map.tif", self.log, fatal, pause, self.piece)
        process = self.context.Process(target=map_until_killed, args=arguments)
        process.start()
        return process

    def finished(self) -> list[str]:
        return sorted(path.name for path in journal_folder(self.folder / "out/map.tif").glob("piece-*"))

    def tiles(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def outputs(self) -> dict[str, bytes]:
        return {name: (self.folder / "out" / name).read_bytes() for name in PRODUCTS}


@pytest.fixture(scope="module")
def context():
    with pytest.MonkeyPatch.context() as patched:
        yield fork_server(patched)


@pytest.fixture
def mapping(tmp_path, context):
    return Mapping(tmp_path, context)


def undisturbed(mapping: Mapping) -> dict[str, bytes]:
    assert wait_for(mapping.start()) == 0
    expected = mapping.outputs()
    for path in (mapping.folder / "out").iterdir():
        path.unlink()
    mapping.log.unlink()
    return expected


def test_a_process_that_is_killed_around_any_rename_leaves_what_its_successor_needs(mapping):
    """The lock's holder and the journal; of nine strips a file each, of cells too, and 8 carries; then ten products."""
    expected = undisturbed(mapping)
    for fatal in (2, -14, 15, 16, -38, 38):
        process = mapping.start(fatal=fatal)
        assert wait_for(process) == -signal.SIGKILL, f"the process had no {fatal} renames"
        assert (mapping.folder / "out/map.tif").exists() == (fatal == 38), "the map gets its name last"
        kept, before = mapping.finished(), mapping.tiles()
        assert wait_for(mapping.start()) == 0
        assert mapping.outputs() == expected, f"after the death at rename {fatal}"
        # What was finished is not computed again.
        assert mapping.tiles() - before == 6 * (9 - len(kept))
        assert not journal_folder(mapping.folder / "out/map.tif").exists()
        for path in (mapping.folder / "out").iterdir():
            path.unlink()


def test_a_process_that_is_killed_around_any_rename_computes_no_tile_of_a_finished_piece_again(mapping):
    """Nine strips of three pieces: lock and journal, then cells, carry and piece 27 times, but for the last carry."""
    mapping.piece = 96
    expected = undisturbed(mapping)
    plan = plan_strips(300, 200, 64, 32, 4, piece=96)
    assert len(places(plan)) == 27
    for fatal in (-5, 5, 6, -7, 41, 42, 43, -82, 82, 83):
        assert wait_for(mapping.start(fatal=fatal)) == -signal.SIGKILL, f"the process had no {fatal} renames"
        kept, before = mapping.finished(), mapping.tiles()
        assert len(kept) == max(0, (abs(fatal) - 2 - (fatal < 0) + (fatal > 80)) // 3)
        assert wait_for(mapping.start()) == 0
        assert mapping.outputs() == expected, f"after the death at rename {fatal}"
        missing = [place for place in places(plan) if "piece-{:06}-{:04}.npz".format(*place) not in kept]
        assert mapping.tiles() - before == sum(len(plan.tiles(*place, begun=True)) for place in missing)
        for path in (mapping.folder / "out").iterdir():
            path.unlink()


@pytest.mark.parametrize("piece", [4096, 96])
def test_a_process_that_is_killed_again_and_again_at_random_moments_gets_there(mapping, piece):
    mapping.piece = piece
    expected = undisturbed(mapping)
    moments, kills = random.Random(0), 0
    while True:
        process, fatal = mapping.start(pause=0.005), mapping.tiles() + moments.randint(1, 25)
        while process.is_alive() and mapping.tiles() < fatal:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        if wait_for(process) == 0:
            break
        kills += 1
        # Each start finishes a strip or more, unless it dies before.
        assert kills < 60
    assert kills > 2
    assert mapping.outputs() == expected


def test_a_map_that_goes_on_computes_with_as_many_threads_as_it_began_with(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 300, 200))
    seen = set()

    def noted(tiling, *arguments, **options):
        for made in make_pieces(tiling, *arguments, **options):
            seen.add((tiling.streams, torch.get_num_threads()))
            yield made

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "make_pieces", noted)
    # For five networks at the same time.
    monkeypatch.setattr(capacity, "PIXEL_BYTES", capacity.SHARE * 2**30 / 64**2 / 5.5)
    monkeypatch.setattr(scenes, "free_memory", lambda: 2**30)
    with capacity.threads(11):
        with pytest.raises(KeyboardInterrupt):
            predictor_of().map_scene(scene, tmp_path / "map.tif", advance=stop)
        assert torch.get_num_threads() == 11
    with capacity.threads(1):
        predictor_of().map_scene(scene, tmp_path / "map.tif")
        assert torch.get_num_threads() == 1
    assert seen == {(5, 2)}


def interrupted(scene: Path, output: Path, **options: object) -> None:
    """Begin a map, and stop it half way."""

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor_of().map_scene(scene, output, advance=stop, **options)
    assert list(journal_folder(output).glob("piece-*"))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"overlap": 0}, "overlap"), ({"flips": True}, "flips"), ({"confidence": True}, "confidence")],
)
def test_strips_of_other_options_are_set_aside_and_the_user_is_told(tmp_path, options, named):
    scene, output, said = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), tmp_path / "map.tif", []
    interrupted(scene, output)
    predictor_of().map_scene(scene, output, say=said.append, **options)
    assert f"another {named}" in said[0]
    assert ".map.tif.parts.old1" in said[0]
    assert list((tmp_path / ".map.tif.parts.old1").glob("piece-*"))
    made = output.read_bytes()
    predictor_of().map_scene(scene, output, **options)
    assert output.read_bytes() == made


def test_strips_of_a_scene_that_has_changed_since_are_set_aside(tmp_path):
    scene, output, said = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), tmp_path / "map.tif", []
    interrupted(scene, output)
    write_scene(scene, noise(3, 300, 200, seed=1))
    predictor_of().map_scene(scene, output, say=said.append)
    assert any("another scene, which has changed" in text for text in said)
    made = output.read_bytes()
    predictor_of().map_scene(scene, output)
    assert output.read_bytes() == made


def test_a_map_with_confidence_does_not_mix_two_temperatures(tmp_path):
    scene, said = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), []
    for name, wanted in (("map.tif", False), ("sure.tif", True)):
        interrupted(scene, tmp_path / name, confidence=wanted)
        predictor_of(temperature=1.7).map_scene(scene, tmp_path / name, confidence=wanted, say=said.append)
    assert sum("another temperature" in text for text in said) == 1
    predictor_of(temperature=1.7).map_scene(scene, tmp_path / "whole.tif", confidence=True)
    sure, whole = (tmp_path / f"{name}.confidence.tif" for name in ("sure", "whole"))
    with rasterio.open(sure) as found, rasterio.open(whole) as plain:
        np.testing.assert_array_equal(found.read(), plain.read())


def test_strips_of_another_model_are_set_aside(tmp_path):
    scene, output, said = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), tmp_path / "map.tif", []
    interrupted(scene, output)
    other = predictor_of(seed=1)
    other.model_hash = "ffff"
    other.map_scene(scene, output, say=said.append)
    assert "another model" in said[0]


def test_a_full_disk_is_named_and_what_is_finished_is_kept(tmp_path, monkeypatch):
    scene, output = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), tmp_path / "map.tif"
    predictor_of().map_scene(scene, output)
    expected = output.read_bytes()
    output.unlink()
    savez = np.savez

    def full(file, **arrays):
        savez(file, **arrays)
        if len(list(journal_folder(output).glob("piece-*"))) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ConfigError, match=r"No space left on device.* 4 of 9 pieces are finished and kept"):
        predictor_of().map_scene(scene, output)
    monkeypatch.undo()
    predictor = predictor_of()
    predictor.map_scene(scene, output)
    assert output.read_bytes() == expected
    assert runs(predictor) == 6 * 5 + 1, "the five other strips, and the probe of the stride"


def test_a_scene_that_vanishes_is_named_and_the_rest_comes_when_it_is_back(tmp_path):
    """A mosaic opens its parts as it comes to them, and one is not there."""
    values = noise(3, 384, 200)
    for part, rows in enumerate((slice(0, 192), slice(192, 384))):
        place = rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000 - 384 * part)
        write_scene(tmp_path / f"part{part}.tif", values[:, rows], transform=place)
    scene = tmp_path / "scene.vrt"
    scene.write_text(mosaic(["part0.tif", "part1.tif"], 192, 200))
    predictor_of().map_scene(scene, tmp_path / "map.tif")
    expected = (tmp_path / "map.tif").read_bytes()
    whole = write_scene(tmp_path / "whole.tif", values)
    predictor_of().map_scene(whole, tmp_path / "other.tif")
    maps = [rasterio.open(tmp_path / name).read() for name in ("map.tif", "other.tif")]
    np.testing.assert_array_equal(*maps)

    (tmp_path / "map.tif").unlink()
    count = 0

    def vanish(share: float) -> None:
        nonlocal count
        count += 1
        if count == 12:
            os.rename(tmp_path / "part1.tif", tmp_path / "away.tif")

    with pytest.raises(DataError, match=r"scene\.vrt cannot be read.*pieces are finished and kept"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", advance=vanish)
    os.rename(tmp_path / "away.tif", tmp_path / "part1.tif")
    predictor = predictor_of()
    predictor.map_scene(scene, tmp_path / "map.tif")
    assert (tmp_path / "map.tif").read_bytes() == expected
    assert runs(predictor) < 12 * 6 - 6


@pytest.mark.parametrize("changed", [False, True])
def test_a_part_of_a_mosaic_that_was_written_to_is_noticed(tmp_path, changed):
    """The mosaic is within another one, and its own file stays as it was."""
    said: list[str] = []
    write_scene(tmp_path / "part.tif", noise(3, 300, 200))
    (tmp_path / "inner.vrt").write_text(mosaic(["part.tif"], 300, 200))
    scene, output = tmp_path / "scene.vrt", tmp_path / "map.tif"
    scene.write_text(mosaic(["inner.vrt"], 300, 200))
    interrupted(scene, output)
    write_scene(tmp_path / "part.tif", noise(3, 300, 200, seed=int(changed)))
    os.utime(tmp_path / "part.tif", ns=(0, 0))
    predictor = predictor_of()
    predictor.map_scene(scene, output, say=said.append)
    assert "was written to since the map began" in said[0]
    assert any("another scene, which has changed" in text for text in said) == changed
    assert (runs(predictor) == 6 * 9 + 1) == changed, "all strips again if it changed, and the probe of the stride"
    made = output.read_bytes()
    predictor_of().map_scene(scene, output)
    assert output.read_bytes() == made


def mosaic(names: list[str], height: int, width: int) -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="0" yOff="{i * height}" xSize="{width}" ySize="{height}"/></SimpleSource>'
            for i, name in enumerate(names)
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = "<SRS>EPSG:32616</SRS><GeoTransform>500000, 2, 0, 4600000, 0, -2</GeoTransform>"
    return f'<VRTDataset rasterXSize="{width}" rasterYSize="{len(names) * height}">{place}{bands}</VRTDataset>'


def test_two_processes_do_not_make_the_same_map(tmp_path):
    scene, output = write_scene(tmp_path / "scene.tif", noise(3, 100, 130)), tmp_path / "map.tif"
    with (
        Journal(output, {"noted": {"touched": None, "threads": 1}}, same=lambda _: True),
        pytest.raises(ConfigError, match="Another process is making"),
    ):
        predictor_of().map_scene(scene, output)
    predictor_of().map_scene(scene, output)


def test_a_damaged_strip_is_made_again(tmp_path):
    scene, output = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), tmp_path / "map.tif"
    predictor_of().map_scene(scene, output)
    expected = output.read_bytes()
    interrupted(scene, output)
    strip = journal_folder(output) / "piece-000001-0000.npz"
    content = bytearray(strip.read_bytes())
    content[300] ^= 1
    strip.write_bytes(content)
    said = []
    predictor_of().map_scene(scene, output, say=said.append)
    assert "1 pieces in" in said[0]
    assert "computed again" in said[0]
    assert output.read_bytes() == expected


def test_a_journal_says_what_its_strips_were_made_from(tmp_path):
    scene, output = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), tmp_path / "map.tif"
    interrupted(scene, output)
    settings = json.loads((journal_folder(output) / "journal.json").read_text())
    assert settings["model"] == "0123abcd"
    ((name, size, touched),) = settings["noted"]["touched"]
    assert settings["scene"] == name == "scene.tif"
    assert size == scene.stat().st_size
    assert str(tmp_path) not in (journal_folder(output) / "journal.json").read_text()
    assert time.time_ns() - touched < 60e9
