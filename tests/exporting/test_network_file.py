"""An exported file in the place of a run."""

import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from zipfile import ZipFile

import numpy as np
import onnx
import pytest
import rasterio
import torch
from click.testing import CliRunner
from PIL import Image
from small_network import noise, write_scene
from test_export import SEGFORMER, normalised, raw, saved

import pixelwise as pw
from pixelwise import optional
from pixelwise.cli import commands
from pixelwise.exported.network_file import NetworkFile
from pixelwise.exported.runtimes import SIZES, OpenVinoFile, open_runtime
from pixelwise.exporting.torch_program import save_torch_program
from pixelwise.predictor import Predictor

CLASSES = ["class 0", "class 1", "class 2", "class 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    saved(folder / "model", *SEGFORMER)
    pw.export(folder / "model", folder / "model.onnx")
    saved(folder / "unet", "unet", {"filters": [4, 8]})
    pw.export(folder / "unet", folder / "unet.xml")
    pw.export(folder / "unet", folder / "unet.pt2")
    pw.export(folder / "model", folder / "sized.onnx", size=(96, 96))
    return folder


@pytest.mark.parametrize(
    ("name", "source", "tile"),
    [("model.onnx", "model", 64), ("unet.xml", "unet", 64), ("unet.pt2", "unet", 64), ("sized.onnx", "model", 96)],
)
def test_a_photo_gets_the_same_classes(folder, name, source, tile):
    image = np.moveaxis(noise(3, 110, 130), 0, -1)
    wanted, found = pw.load(folder / source).segment(image, tile=tile), pw.load(folder / name).segment(image)
    assert found.classes == wanted.classes
    assert (found.labels == wanted.labels).mean() >= 0.9999
    np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-5)


def test_openvino_answers_for_more_sizes_than_it_compiles_each_alone_and_for_several_threads(folder):
    network = pw.load(folder / "unet").model
    assert isinstance(network, torch.nn.Module)
    file = open_runtime(folder / "unet.xml")
    assert isinstance(file, OpenVinoFile)
    card = pw.load(folder / "unet").card
    shapes = [(1, 32 + 16 * i, 48) for i in range(SIZES + 2)] + [(2, 32, 48)]
    images = [np.stack([noise(3, height, width)] * batch) for batch, height, width in shapes] * 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(file.run, images))
    for image, answer in zip(images, found, strict=True):
        wanted = network.decode(normalised(image, card)).logits.numpy()
        np.testing.assert_allclose(answer["logits"], wanted, atol=1e-4 * np.abs(wanted).max())
    alone = {size for _, size in file.compiled.made}
    assert len(alone - {None}) == SIZES
    assert None in alone


def test_openvino_compiles_eight_bits_for_no_more_than_one_size_at_once(folder):
    # For all sizes, 2026.4.1 gives wrong logits of a U-Net in int8.
    file = open_runtime(folder / "unet.xml")
    assert isinstance(file, OpenVinoFile)
    file.metadata = {**file.metadata, "precision": "int8"}
    shapes = [(1, 3, 32 + 16 * i, 32) for i in range(SIZES + 2)]
    for shape in shapes:
        file.run(np.zeros(shape, np.float32))
    assert {size for _, size in file.compiled.made} == set(shapes)


def test_the_confidence_of_a_file_is_calibrated_and_its_classes_stay(folder, tmp_path):
    # A fresh network hardly knows, so that only a small temperature shows.
    network, card = saved(tmp_path / "hot", *SEGFORMER, temperature=0.01)
    file = pw.load(pw.export(tmp_path / "hot", tmp_path / "hot.onnx").path)
    values = noise(3, 64, 64)
    found = file.segment(np.moveaxis(values, 0, -1))
    logits = network.decode(normalised(values[None], card)).logits
    full = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    np.testing.assert_allclose(found.confidence, (full / 0.01).softmax(1).amax(1)[0].numpy(), atol=1e-5)
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    maps = {}
    for name, predictor in (("hot", file), ("plain", pw.load(folder / "model.onnx"))):
        predictor.map_scene(scene, tmp_path / f"{name}.tif", confidence=True, probabilities=True)
        for kind in ("", ".confidence", ".probabilities"):
            with rasterio.open(tmp_path / f"{name}{kind}.tif") as opened:
                maps[name + kind] = opened.read().astype(int)
    np.testing.assert_array_equal(maps["hot"], maps["plain"])
    # Of 254 steps.
    sure = 254 * file.segment(scene).confidence
    assert np.abs(maps["hot.confidence"][0] - sure).max() <= 0.51
    assert np.abs(maps["hot.probabilities"].max(axis=0) - sure).max() <= 0.51
    assert (maps["hot.confidence"] > maps["plain.confidence"]).mean() > 0.5


def test_a_scene_with_nodata_gets_the_same_map(folder, tmp_path):
    values = noise(3, 150, 170)
    values[:, :40, :60] = 0
    scene = write_scene(tmp_path / "scene.tif", values, nodata=0)
    maps = []
    for name in ("model", "model.onnx"):
        pw.load(folder / name).map_scene(scene, tmp_path / f"{name}.tif")
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            maps.append(file.read(1))
            assert file.tags()["PIXELWISE_NETWORK"] == "segformer-b0"
    assert (maps[0] == maps[1]).mean() >= 0.9999
    assert (maps[1][:32, :32] == 255).all()


def test_a_file_travels_to_another_machine_with_its_bytes(folder):
    predictor = pw.load(folder / "model.onnx")
    image = normalised(raw(1, 3, 64, 80), predictor.card).numpy()
    there = pickle.loads(pickle.dumps(predictor.model))
    np.testing.assert_array_equal(there.logits(image), predictor.model.logits(image))


@pytest.mark.parametrize("name", ["model.onnx", "unet.xml", "unet.pt2"])
def test_a_truncated_file_is_named(folder, tmp_path, name):
    whole = (folder / name).read_bytes()
    path = (tmp_path / "cut").with_suffix((folder / name).suffix)
    path.write_bytes(whole[: len(whole) // 2])
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(pw.WeightsError, match=rf"{path.name} is damaged"):
        pw.load(path)


def test_a_file_of_a_newer_version_is_refused(folder, tmp_path):
    graph = onnx.load(folder / "model.onnx")
    entry = next(each for each in graph.metadata_props if each.key == "pixelwise")
    entry.value = json.dumps({**json.loads(entry.value), "format": 99})
    onnx.save(graph, tmp_path / "newer.onnx")
    with pytest.raises(pw.WeightsError, match="newer version"):
        pw.load(tmp_path / "newer.onnx")


def test_a_file_of_others_works_once_it_is_described(folder, tmp_path):
    graph = onnx.load(folder / "model.onnx")
    del graph.metadata_props[:]
    graph.graph.output[0].name = "out"
    for node in graph.graph.node:
        node.output[:] = ["out" if name == "logits" else name for name in node.output]
    onnx.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(
        pw.ConfigError, match=r"classes, mean, std missing\. Give --classes .* --mean 124,124,124 --std"
    ):
        pw.load(tmp_path / "foreign.onnx")
    with pytest.raises(pw.ConfigError, match=r"Give --mean 123\.67,.* --std 58\.3"):
        pw.load(
            tmp_path / "foreign.onnx",
            options={"classes": CLASSES, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        )
    with pytest.raises(pw.ConfigError, match="3 bands, so bands, mean and std"):
        pw.load(tmp_path / "foreign.onnx", options={"classes": CLASSES, "mean": [0.0], "std": [1.0]})
    with pytest.raises(pw.ConfigError, match="2 classes that were named"):
        pw.load(tmp_path / "foreign.onnx", options={"classes": CLASSES[:2], "mean": [0.0] * 3, "std": [1.0] * 3})
    # The file takes raw values, so to its user they are normalised by 0 and 1.
    described = {"classes": CLASSES, "mean": [0.0] * 3, "std": [1.0] * 3, "tile": 64, "overlap": 32}
    image = np.moveaxis(noise(3, 90, 130), 0, -1)
    found = pw.load(tmp_path / "foreign.onnx", options=described).segment(image)
    labels = pw.load(folder / "model.onnx").segment(image).labels
    np.testing.assert_array_equal(found.labels, labels)
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "photo.png")
    command = ["predict", str(tmp_path / "foreign.onnx"), str(tmp_path / "photo.png"), str(tmp_path / "labels.png")]
    said = ["--classes", ", ".join(CLASSES), "--mean", "0,0,0", "--std", "1, 1, 1", "--tile", "64", "--overlap", "32"]
    done = CliRunner().invoke(commands, [*command, *said], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)
    done = CliRunner().invoke(commands, [*command, "--mean", "0,a,0"])
    assert done.exit_code == 2
    assert "'0,a,0' is no list of numbers" in done.output


@pytest.mark.parametrize("key", ["classes", "output_stride"])
def test_what_a_file_of_ours_says_itself_is_not_said_again(folder, key):
    advice = "leave it out" if key == "classes" else "--option output_stride="
    with pytest.raises(pw.ConfigError, match=f"{key!r} cannot be changed.*{advice}"):
        pw.load(folder / "model.onnx", options={key: 8})


def test_machine_code_for_other_processors_is_refused_before_it_runs(tmp_path, monkeypatch):
    """`benchmarks/exports.py --to compiled.pt2` compiles; that takes too long here."""
    path = tmp_path / "code.pt2"
    content = io.BytesIO()
    with ZipFile(content, "w") as file:
        file.writestr("program/data/aotinductor/model/code.so", b"")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    save_torch_program(content.getvalue(), path, {}, names=["logits"], shape=[None, 3, None, None])
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    with pytest.raises(pw.WeightsError, match=r"code for processors with AVX512, and this one has AVX2\. Export"):
        pw.load(path, device="cpu")


def test_a_machine_without_a_compiler_says_so_and_only_programs_of_torch_are_compiled(folder, tmp_path, monkeypatch):
    def failed(*_, **__):
        raise RuntimeError("\nNo working C++ compiler found in cpp.cxx.")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", failed)
    with pytest.raises(pw.ConfigError, match=r"not be compiled \(No working C\+\+ compiler found .*without --compile"):
        pw.export(folder / "unet", tmp_path / "code.pt2", compile=True)
    assert not (tmp_path / "code.pt2").exists()
    with pytest.raises(pw.ConfigError, match=r"Only programs of torch \(\.pt2\) are compiled"):
        pw.export(folder / "unet", tmp_path / "code.onnx", compile=True)


@pytest.mark.parametrize(("name", "extra"), [("model.onnx", "onnx"), ("unet.xml", "openvino")])
def test_a_runtime_that_is_missing_names_its_extra(folder, monkeypatch, name, extra):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    with pytest.raises(pw.MissingExtraError, match=rf"pip install 'pixelwise\[{extra}\]'"):
        pw.load(folder / name)


def test_options_of_an_exported_network_cannot_be_changed(folder):
    with pytest.raises(pw.ConfigError, match="was exported with its options"):
        pw.load(folder / "model.onnx", options={"output_stride": 8})
    with pytest.raises(pw.WeightsError, match="There is no file"):
        pw.load(folder / "none.onnx")


def test_a_file_of_one_size_says_so_to_larger_tiles(folder):
    with pytest.raises(pw.DataError, match="--tile 96"):
        pw.load(folder / "sized.onnx").segment(np.moveaxis(noise(3, 140, 140), 0, -1), tile=128)


def test_images_that_are_too_small_for_the_file_are_refused(folder):
    predictor = pw.load(folder / "model.onnx")
    about = replace(predictor.model.about, smallest_side=64)
    small = Predictor(NetworkFile(predictor.model.runtime, about), predictor.card, predictor.model_hash)
    with pytest.raises(pw.DataError, match="50x40 pixels, and this file answers as its network does from 64x64 on"):
        small.segment(np.moveaxis(noise(3, 40, 50), 0, -1))
    assert small.segment(np.moveaxis(noise(3, 64, 70), 0, -1)).labels.shape == (64, 70)


def test_other_files_are_refused_in_a_sentence(folder):
    with pytest.raises(pw.WeightsError, match=r"Name .*unet.xml, to which it belongs"):
        pw.load(folder / "unet.bin")
    with pytest.raises(pw.WeightsError, match=r"is no exported file: those end in \.onnx, \.xml, \.pt2"):
        pw.load(folder / "model" / "model.safetensors")
    (folder / "alone.xml").write_bytes((folder / "unet.xml").read_bytes())
    with pytest.raises(pw.WeightsError, match=r"alone.bin is missing"):
        pw.load(folder / "alone.xml")
    (folder / "alone.bin").write_bytes((folder / "unet.bin").read_bytes()[:1000])
    with pytest.raises(pw.WeightsError, match=r"alone.xml is damaged"):
        pw.load(folder / "alone.xml")


@pytest.mark.parametrize(
    ("more", "said"),
    [({}, "Name a configuration"), ({"name": "mine"}, "keeps no scores"), ({"part": "test"}, "no data")],
)
def test_a_file_has_neither_data_nor_scores_of_its_own(folder, more, said):
    with pytest.raises(pw.ConfigError, match=said):
        pw.evaluate(folder / "model.onnx", None if not more else folder / "none.toml", **more)
