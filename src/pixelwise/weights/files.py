"""Files that hold weights, read without running any code that may be in them."""

import json
import pickle
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pixelwise.errors import WeightsError

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside their own state."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers (data parallel, torch.compile, Lightning) put before every name."""
ARCHITECTURE_KEY = "pixelwise.architecture"
"""Of the header of our .safetensors files: a JSON object of the network's name and options."""
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")


def write_state(module: nn.Module, path: Path, header: dict[str, str] | None = None) -> None:
    """Write the tensors of a module to a ``.safetensors`` file, which others may read as any file of its maker."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    path.touch()
    mode = path.stat().st_mode
    # safetensors makes a file that nobody else can read.
    save_file(state, path, metadata=header)
    path.chmod(mode)


def read_state(source: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file or folder, under their names in it.

    Takes ``.safetensors``, ``.pth``, ``.pt``, ``.bin``, a folder of transformers (whole or in shards), a model
    folder of ours, and a run.

    Raises:
        WeightsError: nothing there, a damaged file, or one that would have to run code to be read.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise WeightsError(f"There is no file {path}. Mend the path of the weights.")
    if path.suffix == ".safetensors":
        try:
            return plain_state(load_file(path), str(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or no safetensors file ({error}). Fetch it again.") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch names what it refused to run; noise has no such name.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise WeightsError(
                f"{path} holds more than tensors ({refused[1]}), and reading that could run foreign code. "
                "Save its state_dict alone, best as .safetensors."
            ) from None
        raise WeightsError(
            f"{path} is damaged, or no file that torch.save wrote. Fetch it again, or save it anew as .safetensors."
        ) from None
    except Exception as error:
        raise WeightsError(
            f"{path} is damaged or holds no weights ({str(error)[:200] or type(error).__name__}). Fetch it again."
        ) from None
    return plain_state(loaded, str(path))


def plain_state(loaded: object, where: str) -> dict[str, Tensor]:
    """Unwrap a checkpoint to its tensors: ``{"state_dict": ...}`` and the like, and what wrappers put before names.

    Raises:
        WeightsError: no tensors in it.
    """
    for key in CONTAINERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{where} holds a {type(loaded).__name__}, not a state_dict. Save model.state_dict().")
    state = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{where} holds no tensors. Save model.state_dict().")
    for prefix in (*PREFIXES, *PREFIXES):  # twice: wrappers nest in any order
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for name in FOLDER_FILES:
        if (folder / name).exists():
            return read_state(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError):
                raise WeightsError(f"{index} is damaged: it has no weight_map. Fetch the folder again.") from None
            return {key: value for shard in sorted(shards) for key, value in read_state(folder / shard).items()}
    if (folder / "model" / FOLDER_FILES[0]).exists():
        return read_state(folder / "model" / FOLDER_FILES[0])
    raise WeightsError(
        f"The folder {folder} has no {' or '.join(FOLDER_FILES)}. Name the folder or file of the weights."
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
                return json.loads(recorded)["name"], json.loads(recorded)["options"]
        if cards:
            architecture = tomllib.loads(cards[0].read_text(encoding="utf-8"))["architecture"]
            return architecture["name"], architecture.get("options", {})
    except (ValueError, KeyError, AttributeError, TypeError):  # all errors of decoding are ValueErrors
        damaged = cards[0] if cards else path
        raise WeightsError(f"{damaged} is damaged: it names no architecture. Restore it, or train again.") from None
    return None
