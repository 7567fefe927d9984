"""The Open Inference Protocol, spoken by Triton's own client."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_server import photo

import pixelwise as pw
from pixelwise.serve.refusals import Refusal
from pixelwise.serve.tensors import DATATYPES, parse, written

triton = pytest.importorskip("tritonclient.http")


@pytest.fixture(scope="module")
def client(served):
    return triton.InferenceServerClient(f"127.0.0.1:{served.port}")


def batch(*seeds):
    return np.stack([np.moveaxis(photo(seed), -1, 0) for seed in seeds])


def given_image(values, *, binary):
    tensor = triton.InferInput("image", list(values.shape), "UINT8")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def test_a_client_finds_the_server_and_its_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fields", "2")
    assert not client.is_model_ready("fields", "9")
    assert client.get_server_metadata()["name"] == "pixelwise"
    found = client.get_model_metadata("fields")
    assert found["versions"] == ["1", "2"]
    assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, -1, -1]}]
    index = [(each["name"], each["version"], each["state"]) for each in client.get_model_repository_index()]
    assert index == [("fields", "1", "READY"), ("fields", "2", "READY"), ("other", "1", "READY")]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_a_batch_gets_the_predictors_classes(client, model, binary, packed):
    values = batch(1, 2)
    predictor = pw.load(model, device="cpu")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("labels", "confidence")]
    answer = client.infer(
        "fields",
        [given_image(values, binary=binary)],
        outputs=outputs,
        request_id="7",
        request_compression_algorithm=packed,
    )
    assert answer.get_response()["id"] == "7"
    assert answer.get_response()["model_version"] == "2"
    for i, seed in enumerate((1, 2)):
        expected = predictor.segment(photo(seed))
        assert np.array_equal(answer.as_numpy("labels")[i], expected.labels)
        assert np.abs(answer.as_numpy("confidence")[i] - expected.confidence).max() < 1e-6


def test_one_output_comes_alone(client):
    outputs = [triton.InferRequestedOutput("labels")]
    answer = client.infer("fields", [given_image(batch(1), binary=True)], outputs=outputs)
    assert [each["name"] for each in answer.get_response()["outputs"]] == ["labels"]


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (
            triton.InferInput("image", [1, 3, 32, 32], "FP32").set_data_from_numpy(
                np.zeros((1, 3, 32, 32), np.float32)
            ),
            "UINT8",
        ),
        (given_image(np.zeros((1, 4, 32, 32), np.uint8), binary=True), "must be"),
        (
            triton.InferInput("x", [1, 3, 32, 32], "UINT8").set_data_from_numpy(np.zeros((1, 3, 32, 32), np.uint8)),
            "'image'",
        ),
        (given_image(np.zeros((1, 3, 200, 200), np.uint8), binary=True), "20,000"),
    ],
)
def test_a_client_is_told_what_is_wrong(client, tensor, said):
    with pytest.raises(triton.InferenceServerException, match=said):
        client.infer("fields", [tensor])


def ask(served, body, **headers):
    return served.ask("POST", "/v2/models/fields/infer", body=body, headers=headers)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 60_000,
        b'{"inputs": 3}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": "image", "shape": [1, -3], "datatype": "UINT8", "data": []}]}',
        b'{"inputs": [{"name": "image", "shape": [1,3,4,4], "datatype": "UINT8", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [256]}]}',
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": ["a"]}]}',
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}',
        b'{"inputs": [{"name": "image", "shape": [2], "datatype": "UINT8", "data": [[1], [2, 3]]}]}',
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 9}}]}',
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [1]}], "outputs": [3]}',
    ],
)
def test_what_is_not_of_the_protocol_is_a_bad_request(served, body):
    answer = ask(served, body)
    assert answer.status == 400
    assert set(answer.json()) == {"error"}


def test_bytes_that_are_announced_wrongly_are_a_bad_request(served):
    table = {
        "inputs": [
            {"name": "image", "shape": [1, 3, 2, 2], "datatype": "UINT8", "parameters": {"binary_data_size": 12}}
        ]
    }
    head = json.dumps(table).encode()
    for length, tail in ((str(len(head) + 99), b"x" * 12), ("-1", b"x" * 12), ("a", b""), (str(len(head)), b"x" * 13)):
        assert ask(served, head + tail, **{"Inference-Header-Content-Length": length}).status == 400


def test_what_is_small_only_while_it_is_packed_is_refused(served):
    assert ask(served, gzip.compress(bytes(5 << 20)), **{"Content-Encoding": "gzip"}).status == 413
    assert ask(served, b"no gzip", **{"Content-Encoding": "gzip"}).status == 400
    assert ask(served, b"x", **{"Content-Encoding": "br"}).status == 415


def test_a_shape_beyond_all_memory_is_refused(served):
    table = {"inputs": [{"name": "image", "shape": [1, 3, 2**30, 2**30], "datatype": "UINT8", "data": []}]}
    assert ask(served, json.dumps(table)).status == 413


@given(
    st.data(), st.sampled_from(sorted(DATATYPES)), st.booleans(), st.lists(st.integers(1, 4), min_size=1, max_size=4)
)
def test_a_tensor_comes_back_as_it_was_written(data, kind, binary, shape):
    dtype = np.dtype(DATATYPES[kind])
    raw = data.draw(
        st.binary(min_size=int(np.prod(shape)) * dtype.itemsize, max_size=int(np.prod(shape)) * dtype.itemsize)
    )
    values = (
        np.frombuffer(raw, dtype).reshape(shape) if dtype.kind != "b" else np.frombuffer(raw, "u1").reshape(shape) > 99
    )
    # JSON has neither infinities nor NaN, and fewer digits than 64 bits in some readers.
    values = np.nan_to_num(values, posinf=1, neginf=1) if dtype.kind == "f" else values
    body, length = written({}, {"image": values}, {"image": binary})
    table = json.loads(body[:length])
    request = json.dumps({"inputs": table["outputs"]}).encode()
    tail = body[length:] if length is not None else b""
    found = parse(request + tail, str(len(request)), most_json=1 << 20, most_values=1000)
    assert found.tensors["image"].dtype == dtype
    assert np.array_equal(found.tensors["image"], values)


def test_json_above_its_limit_is_refused_before_it_is_read():
    with pytest.raises(Refusal, match="JSON"):
        parse(b"{" * 100, None, most_json=99, most_values=1)
