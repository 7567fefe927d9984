"""Tensors of the Open Inference Protocol, as JSON and as bytes behind it.

The protocol: https://github.com/kserve/open-inference-protocol, `inference_rest.md`. Bytes: the extension for binary
tensors (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension).
"""

import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.serve.refusals import Refusal, too_large

DATATYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""The protocol's names of types -> numpy's, little-endian."""
NAMES = {np.dtype(kind): name for name, kind in DATATYPES.items()}


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    id: str | None
    tensors: dict[str, np.ndarray]
    outputs: dict[str, bool]
    """Name -> whether it comes as bytes; empty: all."""
    binary: bool
    """Whether outputs that say nothing come as bytes."""


def wrong(message: str, fix: str = "See the Open Inference Protocol.") -> Refusal:
    """Refuse a request that is not of the protocol."""
    return Refusal(400, "wrong_request", message, fix)


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Return a body that may be compressed, of at most so many bytes.

    Raises:
        Refusal: 413 for more; 400 for damage; 415 for another encoding.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(415, "wrong_encoding", f"The encoding is {encoding[:50]!r}.", "Send gzip, deflate or none.")
    machine = zlib.decompressobj(31 if encoding == "gzip" else 15)
    try:
        found = machine.decompress(body, most)
    except zlib.error:
        raise wrong(f"The body is no {encoding}.") from None
    if machine.unconsumed_tail:
        raise too_large("The request is larger once it is unpacked", f"{most:,} bytes", "Send a smaller image.")
    return found


def parse(body: bytes, header: str | None, *, most_json: int, most_values: int) -> Request:
    """Read an inference request.

    Args:
        header: the value of Inference-Header-Content-Length: how many bytes of the body are JSON; None: all.
        most_json: bytes.
        most_values: of a tensor.

    Raises:
        Refusal: 400 for a request that is not of the protocol, 413 for one that is too large.
    """
    length = len(body)
    if header is not None:
        if not header.isdecimal() or int(header) > length:
            raise wrong(f"Inference-Header-Content-Length is {header[:50]!r}, and the body has {length} bytes.")
        length = int(header)
    if length > most_json:
        raise too_large(f"The JSON has {length:,} bytes", f"{most_json:,}", "Send the tensor as binary data.")
    try:
        table = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise wrong("The body is no JSON.") from None
    if not isinstance(table, dict) or not isinstance(table.get("inputs"), list) or not table["inputs"]:
        raise wrong("The request has no list of inputs.")
    tensors: dict[str, np.ndarray] = {}
    rest = memoryview(body)[length:]
    for each in table["inputs"]:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise wrong("An input has no name.")
        tensors[each["name"]], rest = _tensor(each, rest, most_values)
    if len(rest):
        raise wrong(f"{len(rest)} bytes of the body belong to no input.")
    parameters = _parameters(table)
    binary = parameters.get("binary_data_output") is True
    number = table.get("id")
    return Request(None if number is None else str(number), tensors, _outputs(table, binary), binary)


def _tensor(table: dict[str, Any], rest: memoryview, most: int) -> tuple[np.ndarray, memoryview]:
    """Return an input, and the bytes that belong to later ones."""
    name, shape, kind = table["name"][:50], table.get("shape"), table.get("datatype")
    if kind not in DATATYPES:
        raise wrong(f"The input {name!r} has the datatype {str(kind)[:50]!r}, which is none of {', '.join(DATATYPES)}.")
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side < 2**31 for side in shape):
        raise wrong(f"The input {name!r} has no shape of whole numbers above 0.")
    count, dtype = math.prod(shape), np.dtype(DATATYPES[kind])
    if count > most:
        raise too_large(f"The input {name!r} has {count:,} values", f"{most:,}", "Send a smaller image, or a job.")
    size = _parameters(table).get("binary_data_size")
    if size is not None:
        if type(size) is not int or size != count * dtype.itemsize or size > len(rest):
            wanted = count * dtype.itemsize
            raise wrong(f"The input {name!r} needs {wanted} bytes; {str(size)[:30]} are announced, {len(rest)} left.")
        return np.frombuffer(rest[:size], dtype).reshape(shape), rest[size:]
    try:
        # Numbers that the type does not hold are refused, rather than wrapped around.
        values = np.array(table.get("data"))
        if values.dtype.kind not in "buif" or values.size != count:
            raise ValueError
        cast = values.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(cast, values):
            raise ValueError
        return cast.reshape(shape), rest
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise wrong(f"The data of the input {name!r} are not {count} numbers of {kind}.") from None


def _outputs(table: dict[str, Any], binary: bool) -> dict[str, bool]:
    asked = table.get("outputs") or []
    if not isinstance(asked, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in asked
    ):
        raise wrong("The outputs are no list of objects with names.")
    return {each["name"]: bool(_parameters(each).get("binary_data", binary)) for each in asked}


def _parameters(table: dict[str, Any]) -> dict[str, Any]:
    parameters = table.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise wrong("The parameters are no object.")
    return parameters


def written(table: dict[str, Any], outputs: dict[str, np.ndarray], binary: dict[str, bool]) -> tuple[bytes, int | None]:
    """Return an answer's body, and how many bytes of it are JSON; None where it is nothing else.

    Args:
        table: what it says besides.
        binary: name -> whether it comes as bytes.
    """
    described, tails = [], []
    for name, values in outputs.items():
        each: dict[str, Any] = {"name": name, "shape": list(values.shape), "datatype": NAMES[values.dtype]}
        if binary[name]:
            tails.append(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
            each["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            each["data"] = values.ravel().tolist()
        described.append(each)
    head = json.dumps({**table, "outputs": described}, separators=(",", ":")).encode()
    return b"".join([head, *tails]), len(head) if tails else None
