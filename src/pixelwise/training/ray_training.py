"""Training by processes on the machines of a Ray cluster, through Ray Train."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pixelwise.config import Config
from pixelwise.errors import ConfigError, MissingExtraError, PixelwiseError
from pixelwise.mapping.ray_cluster import cluster_device, connected
from pixelwise.runs.run_folder import Run, open_run
from pixelwise.training.joining import minutes_to_wait
from pixelwise.training.train import Say, train


@dataclass(frozen=True)
class _Failed:
    """Why a process ended: a mistake that the user can fix."""

    rank: int
    host: str
    reason: str
    code: str = PixelwiseError.code


def train_on_ray(config: Config, *, processes: int, resume: bool = False, report: Say | None = None) -> Run:
    """Train as `train` does, by processes on a Ray cluster; the first of them writes the run's folder.

    Every machine must see the data and the run's folder under the same paths, and have the same pixelwise, torch and
    Python.

    Args:
        processes: how many; with GPUs in the cluster one for each.
        resume: go on with the run that is in the folder.
        report: as in `train`.

    Raises:
        ConfigError: the cluster does not answer or has no room for so many; or as `train` says.
        PixelwiseError: as `train` says, of any process; or one of them was lost.
        MissingExtraError: the extra ``ray`` is not installed.
    """
    ray, on_gpu = connected(), cluster_device() == "cuda" and config.train.device != "cpu"
    _require_room(ray, processes, on_gpu)
    # What is wrong with the folder is said before processes start.
    run = open_run(config, resume=resume)
    trainer_of = _ray_train()
    from ray.util.queue import Queue

    said = Queue(actor_options={"num_cpus": 0})
    task = {"config": config, "resume": resume, "folder": os.getcwd(), "said": said}
    failure: list[Exception] = []
    # Ray Train wants a folder that all machines see, as they see the run's.
    with tempfile.TemporaryDirectory(prefix=".ray-", dir=run.folder.resolve().parent) as folder:
        trainer = trainer_of(task, processes, on_gpu, Path(folder))

        def fit() -> None:
            try:
                trainer.fit()
            except Exception as error:
                failure.append(error)
            finally:
                with suppress(ray.exceptions.RayError):
                    said.put(None)

        thread = threading.Thread(target=fit, name="Ray Train", daemon=True)
        thread.start()
        failed = _heard(ray, said, report or (lambda _: None))
        thread.join()
    with suppress(ray.exceptions.RayError):
        said.shutdown()
    if failed is not None:
        where = "" if failed.rank == 0 else f"Process {failed.rank} (of {processes}, on {failed.host}) has failed: "
        raise PixelwiseError(f"{where}{failed.reason}", code=failed.code)
    if failure:
        reason = " ".join(str(failure[0]).split())[-300:]
        raise PixelwiseError(
            f"Training on the Ray cluster ended: {reason}. A process was lost, or the cluster has gone; `ray status` "
            "shows its machines. `--resume` goes on from the last saved step, with any number of processes.",
            code="PW611",
        ) from failure[0]
    return run


def _heard(ray: ModuleType, said: Any, report: Say) -> _Failed | None:
    """Hand on what the first process says until all have ended; return the first failure."""
    failed = None
    while True:
        try:
            event = said.get()
        except ray.exceptions.RayError:
            # The cluster is gone, and what it says is lost.
            return failed
        if event is None:
            return failed
        if not isinstance(event, _Failed):
            report(event)
        elif failed is None:
            failed = event


def _require_room(ray: ModuleType, count: int, on_gpu: bool) -> None:
    kind, name = ("GPU", "GPUs") if on_gpu else ("CPU", "processors")
    there = int(ray.cluster_resources().get(kind, 0))
    if there < count:
        raise ConfigError(
            f"The Ray cluster has {there} {name}, and --processes {count} wants {count}. Ask for {max(1, there)}, or "
            "start more machines (`ray start --address=...`).",
            code="PW611",
        )


def _ray_train() -> Callable[[dict, int, bool, Path], Any]:
    """Return what makes Ray Train's trainer.

    Raises:
        MissingExtraError: what Ray Train itself needs is not installed.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError:
        raise MissingExtraError(
            "Training on Ray needs Ray Train. Install it with: pip install 'pixelwise[ray]'"
        ) from None

    def made(task: dict, count: int, on_gpu: bool, folder: Path) -> Any:
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        return TorchTrainer(
            _work,
            train_loop_config=task,
            scaling_config=ScalingConfig(
                num_workers=count, use_gpu=on_gpu, placement_strategy="PACK" if on_gpu else "SPREAD"
            ),
            run_config=RunConfig(
                name="pixelwise", storage_path=str(folder), failure_config=FailureConfig(max_failures=0)
            ),
            torch_config=TorchConfig(backend=backend, timeout_s=round(60 * minutes_to_wait())),
        )

    return made


def _work(task: dict) -> None:
    """Train in a process of the cluster."""
    if Path(task["folder"]).is_dir():
        # Relative paths count from where the command was given.
        os.chdir(task["folder"])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    try:
        train(task["config"], resume=task["resume"], report=task["said"].put)
    except PixelwiseError as error:
        number = int(os.environ.get("RANK", "0"))
        task["said"].put(_Failed(number, socket.gethostname(), str(error), error.code))
        raise
