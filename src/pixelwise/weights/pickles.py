"""Pickles of tensors and arrays (torch's, PaddlePaddle's), read without running or importing anything they name.

A pickle names the functions that make its objects again. Those of tensors, arrays and plain containers have a
counterpart here; an object of any other kind becomes a `Skipped`, which does nothing. Tensors are `Stored` until
somebody loads them, so that an optimiser's state beside the weights is never read.
"""

import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file that torch.save wrote before it wrote zip archives."""
ZIP_START = b"PK\x03\x04"
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
KEYS = (str, int, float, bytes, type(None))
"""Kinds of keys of a mapping that are read; to hash a nest of tuples may take for ever."""
ARRAY_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "b1")


class Skipped:
    """What stands for an object that is not read; whatever its pickle does to it is without effect."""

    name = ""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object) -> "Skipped":
        """Return another one."""
        return Skipped()

    def __setitem__(self, key: object, value: object) -> None: ...
    def __ior__(self, other: object) -> "Skipped":
        return self

    def append(self, value: object) -> None:
        """Do nothing, as all of these do."""

    extend = add = append


@dataclass(frozen=True)
class Stored:
    """A tensor or an array that is still in its file."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


class Storage:
    """Numbers in a file; where, is known only after the pickle, in torch's older files."""

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.read: Callable[[], bytes] | None = None
        self.tensors = 0
        """How many tensors lie in it."""
        self._data = bytearray()

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """Read them, as numbers of ``dtype``."""
        data = self._data or bytearray(self.read() if self.read is not None else b"")
        if len(data) != self.count * self.dtype.itemsize:
            raise EOFError("the file ends within a tensor")
        if self.tensors > 1:
            # Read once for all: else a small file of many tensors in one place would fill any memory.
            self._data = data
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


class ArrayType:
    """A numpy dtype: its code and the order of its bytes."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = code if isinstance(code, str) else "", "<"

    def build(self, state: Any) -> None:
        """Take the order from what numpy pickles beside the code."""
        self.order = ">" if state[1] == ">" else "<"

    def numpy(self) -> np.dtype:
        """Return the dtype; numbers alone are read."""
        code = self.code.lstrip("<>|=")
        if code not in ARRAY_TYPES:
            raise ValueError(f"an array of {self.code}")
        return np.dtype(self.order + code)


class Array:
    """A numpy array, as its pickle builds it."""

    def __init__(self, *_: object) -> None:
        self.made: Stored | Skipped = Skipped()

    def build(self, state: Any) -> None:
        """Take shape, type and data from what numpy pickles."""
        _, shape, kind, fortran, data = state[-5:]
        self.made = _stored_array(data, kind, shape, "F" if fortran else "C")


def _stored_array(data: Any, kind: Any, shape: Any, order: Any) -> Stored | Skipped:
    if not isinstance(kind, ArrayType) or not isinstance(data, str | bytes | bytearray):
        return Skipped()  # an array of objects
    data = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
    size = _sizes(shape)
    array = np.frombuffer(data, kind.numpy())
    if len(array) != math.prod(size):
        raise ValueError("an array of another size than its data")

    def load() -> Tensor:
        native = array.astype(array.dtype.newbyteorder("="), copy=True).reshape(size, order=order)
        if native.dtype == np.uint16:  # PaddlePaddle's bfloat16; nothing else has this type
            return torch.from_numpy(np.array(native, order="C").view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.array(native, order="C"))

    return Stored(size, load)


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if len(sizes) > 16 or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("a tensor of impossible size")
    return sizes


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Stored:
    dtype = next((value for value in more if isinstance(value, torch.dtype)), storage.dtype)
    sizes, strides = _sizes(size), _sizes(stride)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) if math.prod(sizes) else -1
    count = storage.count * storage.dtype.itemsize // dtype.itemsize
    if offset < 0 or last >= count or math.prod(sizes) > count:
        raise ValueError("a tensor beyond its data")
    storage.tensors += 1
    return Stored(sizes, lambda: storage.numbers(dtype).as_strided(sizes, strides, offset))


def _first(value: Any, *_: Any) -> Any:
    return value


def _from_type(function: Any, _type: Any, args: Any, _state: Any) -> Any:
    return function(*args) if function in (_tensor, _first) else Skipped()


def _bytes(*args: Any) -> bytes:
    return bytes(args[0]) if args and isinstance(args[0], bytes | bytearray | list) else b""


def _encoded(text: Any, *_: Any) -> bytes:
    return text.encode("latin1") if isinstance(text, str) else b""


def _empty(*_: Any) -> dict:
    return {}


def _mapping(pairs: Any = (), *_: Any) -> dict:
    pairs = pairs.items() if isinstance(pairs, Mapping) else pairs
    return {key: value for key, value in pairs if isinstance(key, KEYS)}


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): _empty,
    ("_codecs", "encode"): _encoded,
    ("builtins", "dict"): _mapping,
    ("builtins", "list"): list,
    ("builtins", "tuple"): tuple,
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytes,
    ("numpy", "dtype"): ArrayType,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _stored_array for core in ("core", "_core")},
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
}


class _File:
    """A file that never reads more than it has, whatever a pickle declares."""

    def __init__(self, opened: Any, size: int) -> None:
        self.opened, self.size = opened, size

    def read(self, count: int) -> bytes:
        if count > self.size - self.opened.tell():
            raise EOFError("it ends too early")
        return self.opened.read(count)

    def readline(self) -> bytes:
        return self.opened.readline()

    def readinto(self, buffer: Any) -> int:
        return self.opened.readinto(buffer)


_Machine: Any = pickle._Unpickler  # the one in Python: that in C allocates whatever a pickle declares


class _Reader(_Machine):
    def __init__(self, file: _File, storages: dict[str, Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if module.split(".")[0] == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type("Skipped", (Skipped,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return Skipped()
        _, dtype, key, _, count, *_ = pid
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and type(count) is int and count >= 0):
            return Skipped()
        return self.storages.setdefault(key, Storage(dtype, count))

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        known = function in KNOWN.values() or (isinstance(function, type) and issubclass(function, Skipped))
        self.stack[-1] = function(*args) if known else Skipped()

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Array | ArrayType):
            made.build(state)

    def load_newobj(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        self.stack[-1] = function(*args) if isinstance(function, type) and issubclass(function, Skipped) else Skipped()

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if isinstance(key, KEYS):
            self.stack[-1][key] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.stack[-1] |= _mapping(zip(items[::2], items[1::2], strict=False))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(_mapping(zip(items[::2], items[1::2], strict=False)))

    def load_set(self) -> None:
        self.pop_mark()

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.stack.append(Skipped())

    # The parent keeps its table of operations in the class, too.
    dispatch = {  # noqa: RUF012
        **_Machine.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_set,
        pickle.FROZENSET[0]: load_frozenset,
    }


def read_pickle(path: Path) -> object:
    """Return what is in a file of torch.save or of PaddlePaddle, with each tensor as a `Stored`.

    Raises:
        ValueError, EOFError and others: damaged, or no such file; the message says why.
    """
    if zipfile.is_zipfile(path):
        return _read_archive(path)
    size = path.stat().st_size
    if size == 0:
        raise EOFError("it is empty")
    with open(path, "rb") as opened:
        file, storages = _File(opened, size), {}
        found = _Reader(file, storages).load()
        if found != MAGIC:
            return plain(found)
        for _ in range(2):  # the protocol, and what the machine was
            _Reader(file, storages).load()
        found = _Reader(file, storages).load()
        for key in _Reader(file, storages).load():
            storage = storages.get(key) if isinstance(key, str) else None
            declared = int.from_bytes(file.read(8), "little")
            if storage is None or declared != storage.count:
                raise ValueError("a tensor of another size than its data")
            length = declared * storage.dtype.itemsize
            storage.read = _part(path, opened.tell(), length)
            opened.seek(length, 1)
    return plain(found)


def _part(path: Path, start: int, length: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as opened:
            opened.seek(start)
            return opened.read(min(length, path.stat().st_size))

    return read


def _read_archive(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickled = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if not pickled:
            raise ValueError("it is a zip archive, but not one of torch.save")
        prefix = pickled[0].removesuffix("data.pkl")
        if f"{prefix}constants.pkl" in members:
            raise ValueError("it is a TorchScript program; save the state_dict of its model")
        if f"{prefix}byteorder" in members and archive.read(f"{prefix}byteorder") == b"big":
            raise ValueError("its numbers have the order of another kind of machine; save it again on this one")
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError("it is compressed, which torch.save never does")
        storages: dict[str, Storage] = {}
        size = members[pickled[0]].file_size
        with archive.open(pickled[0]) as opened:
            found = _Reader(_File(opened, size), storages).load()
    for key, storage in storages.items():
        storage.read = _member(path, f"{prefix}data/{key}")
    return plain(found)


def _member(path: Path, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    return read


def plain(value: Any) -> Any:
    """Return a pickled value with its arrays as `Stored`; pairs of a name and an array (PaddlePaddle's) are the array.

    Only mappings are looked into, and each once.
    """
    seen: dict[int, dict] = {}

    def made(part: Any, depth: int) -> Any:
        if isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str):
            part = part[1] if isinstance(part[1], Array | Stored) else part
        if isinstance(part, Array):
            return part.made
        if isinstance(part, Mapping) and depth < 8:
            if id(part) not in seen:
                seen[id(part)] = {}
                seen[id(part)].update({key: made(inner, depth + 1) for key, inner in part.items()})
            return seen[id(part)]
        return part

    return made(value, 0)
