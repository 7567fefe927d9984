"""Lower precisions: what stays float32, what they are calibrated on, and what is told of their cost."""

import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
from small_run import small_config, write_scenes

import pixelwise as pw
from pixelwise.commands.export import _cost
from pixelwise.exported.about import About
from pixelwise.exported.options import ExportOptions
from pixelwise.exporting import lowered as module
from pixelwise.exporting.calibration import calibration_crops, judged_samples
from pixelwise.exporting.certificate import Case, Certificate, Lowered
from pixelwise.exporting.layers import Kept, Layers, chosen, ladder, layers_of, module_of
from pixelwise.exporting.lowered import Lowering, Trial, lowered, require_precision
from pixelwise.exporting.quantize import quantized_onnx
from pixelwise.runs.model_folder import load_model

NETWORK = {"name": "unet", "options": {"filters": [4, 8]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on images in which brightness tells the class."""
    folder = tmp_path_factory.mktemp("lowered")
    scenes = write_scenes(folder / "data")
    pw.train(small_config(scenes, folder / "run", model=NETWORK, steps=30, evaluate_every=30, learning_rate=0.01))
    return folder / "run"


def images_of(run, part):
    names = (run / "split" / f"{part}.txt").read_text().split()
    found = {}
    for path in sorted((run.parent / "data" / "images").iterdir()):
        if any(path.stem == name or path.name == name for name in names):
            with rasterio.open(path) as source:
                found[path.name] = source.read()
    return found


@pytest.fixture(scope="module")
def int8(run):
    return pw.export(run, run.parent / "int8.onnx", precision="int8", calibration_images=4)


def test_int8_of_onnx_runtime_answers_nearly_as_torch_and_its_certificate_says_what_it_costs(run, int8):
    kept = json.loads((run.parent / "certificate.json").read_text())["int8.onnx"]
    assert kept["precision"] == "int8"
    assert kept["calibrated_on"] == "4 crops of the run's training part"
    assert kept["labelled_pixels"] == 64 * 64
    assert kept["loss"] == pytest.approx(kept["miou_torch"] - kept["miou_export"])
    assert kept["loss"] <= kept["bound_of_loss"] == 0.01
    scene = run.parent / "data" / "images" / "0.tif"
    ours, theirs = pw.load(run).segment(scene).labels, pw.load(int8.path).segment(scene).labels
    assert (ours == theirs).mean() > 0.97


def test_the_image_and_its_normalisation_are_float32_in_int8(int8):
    graph = onnx.load(int8.path).graph
    users = {name: [node for node in graph.node if name in node.input] for node in graph.node for name in node.input}
    value, passed = "image", []
    while not any(node.op_type == "QuantizeLinear" for node in users[value]):
        node = next(node for node in users[value] if node.op_type != "Shape")
        passed.append(node.op_type)
        value = node.output[0]
    assert [kind for kind in passed if kind in ("Sub", "Mul")] == ["Sub", "Mul"]
    products = [node for node in graph.node if node.op_type == "Conv"]
    scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert any(set(node.input[:2]) <= scaled for node in products)


def test_int8_of_openvino_is_written_by_nncf_and_loaded_like_a_run(run):
    pytest.importorskip("nncf")
    made = pw.export(run, run.parent / "int8.xml", precision="int8", calibration_images=4)
    assert "FakeQuantize" in made.path.read_text()
    assert made.certificate.loss is not None
    assert made.certificate.loss <= 0.01
    scene = run.parent / "data" / "images" / "1.tif"
    assert (pw.load(run).segment(scene).labels == pw.load(made.path).segment(scene).labels).mean() > 0.97


def test_float16_keeps_the_types_of_image_and_logits_and_the_exact_mean(run):
    made = pw.export(run, run.parent / "half.onnx", precision="float16")
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(float)"
    kinds = {each.name: each.data_type for each in onnx.load(made.path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds.values()
    card = load_model(run)[1]
    floats = [
        onnx.numpy_helper.to_array(each).ravel()
        for each in onnx.load(made.path).graph.initializer
        if each.data_type == onnx.TensorProto.FLOAT
    ]
    assert any(np.array_equal(each, np.float32(card.mean)) for each in floats)


def test_calibration_takes_the_same_crops_of_training_images_each_time(run):
    card = load_model(run)[1]
    first, told = calibration_crops(run, card, (32, 32), 6, None)
    again, _ = calibration_crops(run, card, (32, 32), 6, None)
    assert told == "6 crops of the run's training part"
    assert len(first) == 6
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    images = images_of(run, "train")
    assert 0 < len(images) < 4
    for crop in first:
        windows = [np.lib.stride_tricks.sliding_window_view(image, crop.shape)[0] for image in images.values()]
        assert any((each == crop).all(axis=(2, 3, 4)).any() for each in windows)


def test_the_validation_part_is_covered_by_crops_side_by_side(run):
    samples = judged_samples(run, load_model(run)[1], (32, 32))
    (image,) = images_of(run, "val").values()
    quarters = [image[:, top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32)]
    np.testing.assert_array_equal(np.stack([each.values for each in samples.images]), np.stack(quarters))


def test_without_training_images_the_place_is_named_and_a_folder_takes_their_place(run, tmp_path):
    card = load_model(run)[1]
    with pytest.raises(pw.ConfigError, match=r"model is not a run .*--calibration FOLDER"):
        calibration_crops(run / "model", card, None, 2, None)
    images = run.parent / "data" / "images"
    gone = images.rename(images.with_name("elsewhere"))
    try:
        with pytest.raises(pw.ConfigError, match=r"images.*--calibration FOLDER"):
            calibration_crops(run, card, None, 2, None)
        crops, told = calibration_crops(run, card, None, 2, gone)
    finally:
        gone.rename(images)
    assert told == f"2 crops of images of {gone}"
    with rasterio.open(images / "0.tif") as source:
        np.testing.assert_array_equal(crops[0], source.read())
    with pytest.raises(pw.ConfigError, match="no folder"):
        calibration_crops(run, card, None, 2, tmp_path / "nowhere")


LAYERS = Layers(
    outside=("/Sub", "/Mul"),
    products=(
        "/encoder/stem/Conv",
        "/encoder/stages.0/stages.0.1/attention/MatMul",
        "/encoder/stages.0/stages.0.1/query/MatMul",
        "/decoder/fuse/Conv",
        "/decoder/classifier/Conv",
    ),
    attention=("/encoder/stages.0/stages.0.1/attention/MatMul",),
)


def test_layers_are_named_as_modules_and_chosen_by_patterns():
    assert [module_of(node) for node in LAYERS.products] == [
        "encoder.stem",
        "encoder.stages.0.1.attention",
        "encoder.stages.0.1.query",
        "decoder.fuse",
        "decoder.classifier",
    ]
    assert chosen(LAYERS, ["decoder"]).nodes == LAYERS.products[3:]
    assert chosen(LAYERS, ["encoder.stages.*.attention", "encoder.stem"]).nodes == (
        LAYERS.products[1],
        LAYERS.products[0],
    )
    with pytest.raises(pw.ConfigError, match=r"No layer is called 'head'.*5 in all"):
        chosen(LAYERS, ["head"])


def test_more_and_more_stays_float32_and_nothing_twice():
    steps = ladder(LAYERS)
    assert [step.words for step in steps] == [
        ("the classifier",),
        ("the classifier", "attention"),
        ("the classifier", "attention", "the first layer"),
        ("the classifier", "attention", "the first layer", "the decoder"),
    ]
    for smaller, larger in pairwise(steps):
        assert set(smaller.nodes) < set(larger.nodes)
        assert len(set(larger.nodes)) == len(larger.nodes)
    assert set(LAYERS.products) - set(steps[-1].nodes) == {LAYERS.products[2]}


def test_a_graph_is_divided_by_names_constants_and_what_depends_on_sizes_alone():
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    nodes = [
        node("Sub", ["image", "mean"], ["a"], name="/Sub"),
        node("MatMul", ["a", "weight"], ["b"], name="/encoder/query/MatMul"),
        node("MatMul", ["b", "a"], ["c"], name="/encoder/MatMul"),
        node("Shape", ["c"], ["size"], name="/encoder/Shape"),
        node("Add", ["size", "one"], ["larger"], name="/encoder/Add"),
        node("Reshape", ["c", "larger"], ["d"], name="/encoder/Reshape"),
        node("Relu", ["d"], ["logits"], name="/decoder/Relu"),
    ]
    constants = [onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), name) for name in ("mean", "weight", "one")]
    image, logits = (value(name, onnx.TensorProto.FLOAT, [2, 2]) for name in ("image", "logits"))

    def divided(nodes):
        return layers_of(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [image], [logits], constants)))

    found = divided(nodes)
    assert found.outside == ("/Sub", "/encoder/Shape", "/encoder/Add")
    assert found.products == ("/encoder/query/MatMul", "/encoder/MatMul")
    assert found.attention == ("/encoder/MatMul",)
    assert found.rest == ("/encoder/Reshape", "/decoder/Relu")
    # Without attention, what lies between convolutions has eight bits too.
    assert divided([*nodes[:2], node("Relu", ["b"], ["logits"], name="/decoder/Relu")]).rest == ()


def test_quantising_leaves_the_graph_to_other_tries():
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        node("Conv", ["image", "weight"], ["a"], name="/encoder/Conv", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["logits"], name="/decoder/Relu"),
    ]
    sides = [value(name, onnx.TensorProto.FLOAT, [1, bands, 8, 8]) for name, bands in (("image", 3), ("logits", 4))]
    graph = onnx.helper.make_graph(nodes, "g", sides[:1], sides[1:], [onnx.numpy_helper.from_array(weight, "weight")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    before, image = model.SerializeToString(), np.ones((1, 3, 8, 8), np.float32)
    made = quantized_onnx(model, layers_of(model), Kept((), ()), [image])
    assert model.SerializeToString() == before
    kinds = {each.name: each.data_type for each in made.graph.initializer}
    assert kinds["weight_quantized"] == onnx.TensorProto.INT8
    # A scale for each channel.
    assert [list(each.dims) for each in made.graph.initializer if each.name == "weight_scale"] == [[4]]


def proof(loss, *, equal=0.98, labelled=True):
    cases = (Case(1, 64, 64, 0.5, 1.0, 10_000, int(10_000 * equal)),)
    scores = (0.8, 0.8 - loss) if labelled else (None, None)
    return Certificate("runtime", "pixelwise", "images", cases, 32, *scores, 4096 if labelled else 0)


def tried(monkeypatch, proofs, **how):
    """Return what comes of tries with these certificates, and what each kept in float32."""
    kept, left = [], iter(proofs)
    monkeypatch.setattr(module, "folded", lambda graph: graph)
    monkeypatch.setattr(module, "layers_of", lambda graph: LAYERS)
    monkeypatch.setattr(module, "calibration_crops", lambda *given: ([], "crops"))
    monkeypatch.setattr(module, "_made", lambda kind, precision, graph, layers, each, images: kept.append(each) or each)
    about = SimpleNamespace(options=ExportOptions(precision="int8"), card=None)
    trial = Trial(lambda graph: 1000, lambda: next(left))
    return lowered("onnx", "graph", about, "run", Lowering(**how), trial, print), kept


def test_layers_are_kept_until_the_loss_is_small(monkeypatch, capsys):
    (made, certificate), kept = tried(monkeypatch, [proof(0.03), proof(0.008), proof(0.004), proof(0.0)])
    assert [each.words for each in kept] == [each.words for each in ladder(LAYERS)[:3]]
    assert made == kept[2]
    assert certificate.lowered.kept_float == ("the classifier", "attention", "the first layer")
    assert certificate.sound
    said = capsys.readouterr().out
    assert "mIoU is 0.7700 so far, and 0.8000 in float32. Trying with the classifier, attention in float32" in said
    assert (
        "mIoU is 0.7920 so far, and 0.8000 in float32. Trying with the classifier, attention, the first layer" in said
    )


def test_the_best_try_is_taken_if_none_is_good_enough_to_stop_at(monkeypatch):
    losses = [0.03, 0.007, 0.009, 0.02]
    (made, certificate), kept = tried(monkeypatch, [proof(loss) for loss in losses])
    assert made == kept[1]
    assert certificate.loss == pytest.approx(0.007)


def test_layers_that_the_user_names_are_kept_in_each_try(monkeypatch):
    (_, certificate), kept = tried(monkeypatch, [proof(0.001)], keep_float=("encoder.stem",))
    assert kept == [Kept(("encoder.stem", "the classifier"), ("/encoder/stem/Conv", "/decoder/classifier/Conv"))]
    assert certificate.lowered.kept_float == ("encoder.stem", "the classifier")


def test_a_loss_above_one_point_is_refused_unless_it_is_allowed(monkeypatch):
    proofs = [proof(0.05), proof(0.04), proof(0.021), proof(0.02)]
    with pytest.raises(pw.PixelwiseError, match=r"int8 costs 2\.0 points of mIoU.*0\.8000.*0\.7800.*--allow"):
        tried(monkeypatch, proofs)
    (_, certificate), _ = tried(monkeypatch, proofs, allow=True)
    assert certificate.lowered.allowed
    assert certificate.to_dict()["loss"] == pytest.approx(0.02)


def test_without_labelled_images_99_of_100_labels_must_stay(monkeypatch):
    (_, certificate), _ = tried(monkeypatch, [proof(0, equal=0.995, labelled=False)])
    assert certificate.sound
    with pytest.raises(pw.PixelwiseError, match=r"unknown what int8 costs.*98\.00%.*--allow"):
        tried(monkeypatch, [proof(0, equal=0.98, labelled=False)] * 4)


def test_a_file_that_fails_is_refused_even_if_any_loss_is_allowed(monkeypatch):
    broken = replace(proof(0.0), cases=(Case(2, 64, 96, float("inf"), 1.0, 10, 0, "no kernel"),))
    with pytest.raises(pw.PixelwiseError, match=r"fails on 2 image\(s\) of 64 x 96 pixels \(no kernel\)"):
        tried(monkeypatch, [broken] * 4, allow=True)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("torch", {"precision": "int8"}, "float32 alone"),
        ("onnx", {"precision": "bfloat16"}, "no bfloat16 on processors"),
        ("onnx", {"precision": "int8", "outputs": ("confidence",)}, "Ask for labels or logits too"),
    ],
)
def test_what_a_runtime_has_not_is_said_in_a_sentence(kind, options, said):
    about = About(None, "0", ExportOptions(**options), 4, 32, False)
    with pytest.raises(pw.ConfigError, match=said):
        require_precision(kind, about, Lowering())


@pytest.mark.parametrize(
    ("loss", "labelled", "said"),
    [
        (0.004, True, "torch 0.8000, the file 0.7960, 0.40 points less; 98.00% of all labels are equal"),
        (-0.001, True, "0.10 points more"),
        (0.0, False, "no labelled image is at hand"),
    ],
)
def test_the_command_says_what_a_lower_precision_gives_and_costs(loss, labelled, said):
    facts = Lowered("int8", "64 crops", ("attention",), 4_000_000, 15_000_000, "AVX512-VNNI")
    lines = "\n".join(_cost("fields.xml", proof(loss, labelled=labelled), facts))
    assert "int8, calibrated on 64 crops. 4.0 MB instead of 15.0 MB in float32." in lines
    assert "Kept in float32: attention." in lines
    assert "processor with AVX512-VNNI" in lines
    assert said in lines


def test_options_of_a_precision_are_checked(run):
    with pytest.raises(pw.ConfigError, match="precision of an exported file is one of float32"):
        pw.export(run, run.parent / "a.onnx", precision="int4")
    with pytest.raises(pw.ConfigError, match="at least one crop"):
        pw.export(run, run.parent / "a.onnx", precision="int8", calibration_images=0)
    with pytest.raises(pw.ConfigError, match="for int8, not for float16"):
        pw.export(run, run.parent / "a.onnx", precision="float16", keep_float=["decoder"])
    assert not (run.parent / "a.onnx").exists()
