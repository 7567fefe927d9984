"""One network trained by several processes: averaged gradients (DDP) or shared weights (FSDP2), as one process would.

Everything here does nothing in a process that is alone. The losses see to it that a share of a batch counts as in the
whole batch (`pixelwise.processes`); batch norms take their statistics over it; channels and branches that are left out
at random are drawn for it.
"""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from pixelwise.config import Config, PredictConfig
from pixelwise.data.scenes import Scene
from pixelwise.data.targets import Place
from pixelwise.device import choose_device
from pixelwise.errors import ConfigError
from pixelwise.evaluation.evaluate import Evaluation, evaluate_scenes
from pixelwise.evaluation.metrics import scores
from pixelwise.labels import Classes
from pixelwise.models import Decoded, Segmenter
from pixelwise.processes import collected, from_first, is_first, local_rank, rank, world
from pixelwise.runs.model_folder import ModelCard
from pixelwise.runs.run_folder import Run, locked_run
from pixelwise.training.checkpointing import blocks_of
from pixelwise.training.training_data import PARTS, TrainingData
from pixelwise.training.whole_batch import see_whole_batch

Add = Callable[[dict], None]


def require_shares(config: Config) -> None:
    """Check that the processes can share each batch, and how.

    Raises:
        ConfigError: they are too many, or do not divide it; or float16 with shared weights.
    """
    size, count, settings = config.train.batch_size, world(), config.train
    if size % count:
        fits = [each for each in (size // count * count, -(-size // count) * count) if each]
        raise ConfigError(
            f"[train].batch_size is {size}, which {count} processes cannot share evenly: it is the number of crops of "
            f"all processes together. Set it to {' or '.join(map(str, dict.fromkeys(fits)))}, or start another number "
            "of processes.",
            code="PW313",
        )
    if settings.accumulate > size // count:
        raise ConfigError(
            f"[train].accumulate is {settings.accumulate}, but each of {count} processes has {size // count} crops of "
            "a step. Set it lower, or start fewer processes.",
            code="PW313",
        )
    if count > 1 and settings.parallel == "fsdp" and settings.precision == "fp16":
        raise ConfigError(
            "[train].parallel = 'fsdp' and precision = 'fp16' do not go together. Set precision = 'bf16', "
            "or parallel = 'ddp'."
        )


def own_device(name: str) -> torch.device:
    """Return the device of this process: as `choose_device` says, and of several GPUs the one with its own number.

    Raises:
        ConfigError: as `choose_device` says; fewer GPUs than processes; or one GPU named for all processes.
    """
    device = choose_device(name)
    if world() == 1 or device.type != "cuda":
        return device
    number, there = local_rank(), torch.cuda.device_count()
    if device.index is not None:
        raise ConfigError(
            f"[train].device = '{name}' names one GPU for {world()} processes. Set it to 'cuda'.", code="PW314"
        )
    if number >= there:
        raise ConfigError(
            f"This machine has {there} GPU{'s' if there > 1 else ''}, and more processes were started on it. Start "
            f"{there} (--nproc-per-node {there}), or set [train].device = 'cpu'.",
            code="PW314",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


@contextmanager
def run_of_all(config: Config, *, resume: bool) -> Iterator[Run]:
    """Open a run as `locked_run` does, in the first process alone; the others wait for it.

    Raises:
        ConfigError: as `locked_run` says.
    """
    if is_first():
        with locked_run(config, resume=resume) as run:
            from_first(None)
            yield run
    else:
        from_first(None)
        assert config.run.folder is not None, "the first process has opened it"
        yield Run(config.run.folder)


def data_of_first(
    found: TrainingData | None, classes: Classes, training: Sequence[Scene], validation: Sequence[Scene]
) -> TrainingData:
    """Return the data of a run with what the first process has found in it, so that the others need not read it all.

    Args:
        found: in the first process; None in the others.
    """
    record = from_first(None if found is None else found.record)
    if found is not None:
        return found
    assert record is not None, "the first process has found it"
    mean, std, class_pixels = (tuple(record[name]) for name in ("mean", "std", "class_pixels"))
    contents = {part: record[part] for part in PARTS}
    return TrainingData(classes, list(training), list(validation), mean, std, class_pixels, contents)


@contextmanager
def log_of_first(run: Run) -> Iterator[Add]:
    """Give the function that adds a row to the log; in all processes but the first it does nothing."""
    with run.open_log() if is_first() else nullcontext(_nothing) as add:
        yield add


def _nothing(row: dict) -> None:
    """Write nothing."""


# The network.


@dataclass(frozen=True)
class Shared:
    """A network that is ready for its share of each batch."""

    decode: Callable[[Tensor], Decoded]
    """`Segmenter.decode`, whose gradients are averaged over the processes."""
    plain: Segmenter | None
    """With FSDP: a copy on the CPU that is no part of the training; `whole_network` fills it in."""


class _Decoding(nn.Module):
    """A network whose call is `Segmenter.decode`: DDP works in calls alone."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Float[Tensor, "B C H W"]) -> Decoded:
        return self.model.decode(image)


def share_network(
    model: Segmenter, average: Segmenter, groups: list[dict[str, Any]], config: Config, device: torch.device
) -> Shared:
    """Prepare a network and the average of its weights, both on their device, for the processes that train it.

    Args:
        groups: of the optimiser. With FSDP the parameters in it are replaced by their shares.
    """
    if world() == 1:
        return Shared(model.decode, None)
    see_whole_batch(model)
    if config.train.parallel == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        devices = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch renames broadcast_buffers; its own default would send statistics that all have already.
            warnings.simplefilter("ignore", FutureWarning)
            # Heads without a weight in the loss have no gradient.
            decode = DistributedDataParallel(
                _Decoding(model), device_ids=devices, broadcast_buffers=False, find_unused_parameters=True
            )
        return Shared(decode, None)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    plain = copy.deepcopy(average).to("cpu")
    names = {parameter: name for name, parameter in model.named_parameters()}
    of_groups = [[names[parameter] for parameter in group["params"]] for group in groups]
    mesh = init_device_mesh(device.type, (world(),))
    for network in (model, average):
        for block in blocks_of(network.encoder):
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
        register_fsdp_forward_method(network, "decode")
    shares = dict(model.named_parameters())
    for group, own in zip(groups, of_groups, strict=True):
        group["params"] = [shares[name] for name in own]
    return Shared(model.decode, plain)


def whole_network(network: Segmenter, shared: Shared, device: torch.device) -> Segmenter:
    """Return a network that this process can use by itself; with FSDP a copy, which all processes ask for."""
    if shared.plain is None:
        return network
    copied = copy.deepcopy(shared.plain).to(device)
    copied.load_state_dict(whole(network.state_dict()))
    return copied.eval()


# What a run keeps: always whole, whatever the processes hold.


def whole(state: Any, *, keep: bool = True) -> Any:
    """Return tensors, in dicts and lists, as one process would have them; all processes call this in one order.

    Args:
        keep: return what is gathered; else None takes its place, and its memory is free.
    """
    if world() == 1:
        return state
    if isinstance(state, Mapping):
        return {key: whole(value, keep=keep) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value, keep=keep) for value in state]
    if not _is_share(state):
        return state
    gathered = state.full_tensor()
    return gathered if keep else None


def as_shares(state: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """Return a network's whole weights as its own are: whole, or this process's shares of them."""
    return {name: _as(own, value) for name, value, own in _pairs(state, network.state_dict())}


def as_optimizer_shares(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimiser's whole state as its own is: whole, or this process's shares of it."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if not any(map(_is_share, parameters)):
        return state
    of_parameters = {
        number: {name: _as(parameters[number], value) for name, value in kept.items()}
        for number, kept in state["state"].items()
    }
    return {**state, "state": of_parameters}


def _pairs(state: Mapping[str, Any], own: Mapping[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    return ((name, value, own.get(name)) for name, value in state.items())


def _as(own: Any, value: Any) -> Any:
    if not _is_share(own) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def _is_share(tensor: Any) -> bool:
    # By the method, since a process without FSDP need not import what it is made of.
    return world() > 1 and isinstance(tensor, Tensor) and hasattr(tensor, "full_tensor")


# What processes tell each other.


def errors_of_all(steps: list[list[tuple[Place, float]]]) -> list[tuple[Place, float]]:
    """Return where the crops of some steps were and how wrong the network was there, in the order of whole batches.

    Args:
        steps: the same of this process's share of each step.
    """
    return [pair for shares in zip(*collected(steps), strict=True) for share in shares for pair in share]


def evaluate_together(
    model: Segmenter, scenes: Sequence[Scene], card: ModelCard, settings: PredictConfig
) -> Evaluation:
    """Evaluate as `evaluate_scenes` does; each process takes some of the scenes, and all get the whole result.

    Raises:
        DataError: as `evaluate_scenes` says.
    """
    if world() == 1:
        return evaluate_scenes(model, scenes, card, settings)
    own = even_shares([scene.info.height * scene.info.width for scene in scenes], world())[rank()]
    found = evaluate_scenes(model, [scenes[i] for i in own], card, settings)
    results = dict(pair for pairs in collected(list(zip(own, found.scenes, strict=True))) for pair in pairs)
    ordered = tuple(results[i] for i in range(len(scenes)))
    total = np.sum([each.matrix for each in ordered], axis=0)
    return Evaluation(scores(total, list(card.classes.names)), total, ordered, ())


def even_shares(sizes: Sequence[int], shares: int) -> list[list[int]]:
    """Divide work into shares of nearly the same size: the largest first, each to the share that has least so far.

    Returns:
        for each share the indices of its parts.
    """
    found: list[list[int]] = [[] for _ in range(shares)]
    taken = [0] * shares
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        least = taken.index(min(taken))
        found[least].append(i)
        taken[least] += sizes[i]
    return found
