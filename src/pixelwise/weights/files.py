"""Files that hold weights, read without running any code that may be in them."""

import json
import tomllib
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from pixelwise.errors import WeightsError
from pixelwise.weights.checkpoint import State, state_in
from pixelwise.weights.pickles import read_pickle

ARCHITECTURE_KEY = "pixelwise.architecture"
"""Of the header of our .safetensors files: a JSON object of the network's name and options."""
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
OTHER_KINDS = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"II*\x00": "an image",
    b"MM\x00*": "an image",
    b"\x93NUMPY": "a single array of numpy",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page or XML",
    b"version ": "a pointer of Git LFS (`git lfs pull` fetches the file)",
}
"""First bytes of files that people take for weights."""


def write_state(module: nn.Module, path: Path, header: dict[str, str] | None = None) -> None:
    """Write the tensors of a module to a ``.safetensors`` file, which others may read as any file of its maker."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    path.touch()
    mode = path.stat().st_mode
    # safetensors makes a file that nobody else can read.
    save_file(state, path, metadata=header)
    path.chmod(mode)
    if header:
        _sort_header(path)


def _sort_header(path: Path) -> None:
    """Sort what a header says besides tensors, since the library writes it in any order: equal weights, equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(text) == length, "the same in another order"
        file.seek(8)
        file.write(text)


def read_state(source: str | Path) -> State:
    """Read the tensors of a file or folder, under their names in it.

    Takes ``.safetensors``, what torch.save wrote (``.pth``, ``.pt``, ``.bin``, ``.ckpt``), PaddlePaddle's
    ``.pdparams``, a folder of transformers (whole or in shards), a model folder of ours, and a run.

    Raises:
        WeightsError: nothing there, a damaged file, or one that holds no weights.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"There is no file {path}. Correct the path of the weights.", code="PW501")
    with open(path, "rb") as opened:
        start = opened.read(8)
    if path.suffix == ".safetensors":
        try:
            return state_in(load_file(path), str(path))
        except WeightsError:
            raise
        except Exception as error:  # whatever the library meets in a damaged file
            # A sound one may begin with any byte, since it begins with a number.
            _require_no_other_kind(path, start)
            raise WeightsError(
                f"{path} is damaged or no safetensors file ({_short(error)}). Fetch it again.", code="PW502"
            ) from None
    _require_no_other_kind(path, start)
    try:
        loaded = read_pickle(path)
    except Exception as error:  # whatever the machine that reads a pickle meets in a damaged one
        raise WeightsError(
            f"{path} is damaged, or no file that torch.save or PaddlePaddle wrote ({_short(error)}). Fetch it again, "
            "or save it again as .safetensors.",
            code="PW502",
        ) from None
    return state_in(loaded, str(path))


def _require_no_other_kind(path: Path, start: bytes) -> None:
    for beginning, kind in OTHER_KINDS.items():
        if start.startswith(beginning):
            raise WeightsError(
                f"{path} is {kind}, and holds no weights that are read here. Save a state_dict of torch.", code="PW502"
            ) from None


def _short(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _read_folder(folder: Path) -> State:
    for name in FOLDER_FILES:
        if (folder / name).exists():
            return read_state(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                shards = {str(shard) for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise WeightsError(
                    f"{index} is damaged: it has no weight_map. Fetch the folder again.", code="PW502"
                ) from None
            outside = [shard for shard in shards if Path(shard).name != shard]
            if outside:
                raise WeightsError(
                    f"{index} names a file in another folder, {outside[0]!r}. Fetch the folder again.", code="PW502"
                )
            tensors = {}
            for shard in sorted(shards):
                tensors |= read_state(folder / shard).tensors
            return State(tensors)
    if (folder / "model" / FOLDER_FILES[0]).exists():
        return read_state(folder / "model" / FOLDER_FILES[0])
    raise WeightsError(
        f"The folder {folder} has no {' or '.join(FOLDER_FILES)}. Name the folder or file of the weights.", code="PW501"
    )


def own_architecture(source: str | Path) -> tuple[str, dict[str, object]] | None:
    """Return the name and options of the network that a file or folder of ours is of, or None."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    cards = [card for card in (folder / "model.toml", folder / "model" / "model.toml") if card.exists()]
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                recorded = (opened.metadata() or {}).get(ARCHITECTURE_KEY)
            if recorded:
                return _named(json.loads(recorded))
        if cards:
            return _named(tomllib.loads(cards[0].read_text(encoding="utf-8"))["architecture"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):  # all errors of decoding are ValueErrors
        damaged = cards[0] if cards else path
        raise WeightsError(
            f"{damaged} is damaged: it names no architecture. Restore it, or train again.", code="PW502"
        ) from None
    return None


def _named(about: dict) -> tuple[str, dict[str, object]]:
    name, options = about["name"], about.get("options", {})
    if not isinstance(name, str) or not isinstance(options, dict):
        raise TypeError
    return name, options
