"""All jobs of a server: one after the other, kept on disk, and taken up again after a restart."""

import os
import queue
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pixelwise.errors import PixelwiseError
from pixelwise.files import ensure_folder, flush_folder, flush_tree, locked_folder
from pixelwise.geo.raster import RasterInfo
from pixelwise.runs.model_card import ModelCard
from pixelwise.serve.job import (
    NUMBER,
    OPEN_STATES,
    Job,
    Wish,
    listed_classes,
    read_job,
    save_job,
    shown_job,
)
from pixelwise.serve.job_work import JobStoppedError, make
from pixelwise.serve.metrics import Metrics
from pixelwise.serve.options import Folders
from pixelwise.serve.refusals import Refusal, hidden
from pixelwise.serve.scenes import found_scene
from pixelwise.serve.shelf import Shelf
from pixelwise.serve.workers import yield_to_others

INCOMING = ".incoming-"
"""What the folder of a job that is not whole yet begins with."""
NICENESS = 10
"""Of the thread that maps, so that people who wait for a photo come first."""


class Jobs:
    """The jobs of one folder, which one server at a time works in."""

    def __init__(
        self, folders: Folders, shelf: Shelf, metrics: Metrics, names: Mapping[str, str], *, most: int
    ) -> None:
        """Prepare; nothing is written before the first job.

        Args:
            names: the machine's folders -> what they are called in answers.
            most: jobs that wait.
        """
        self.folder, self.scenes = folders.jobs.absolute(), folders.scenes
        self.shelf, self.metrics, self.names, self.most = shelf, metrics, names, most
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._line: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._stopping = threading.Event()
        self._held = ExitStack()
        self._thread: threading.Thread | None = None
        if self.folder.is_dir():
            self._begin()

    def _begin(self) -> None:
        """Take hold of the folder, find its jobs, and go on with those that are not finished."""
        ensure_folder(self.folder)
        held = locked_folder(self.folder, work=f"serves {self.folder}", instead="another folder with --jobs", wait=5.0)
        self._held.enter_context(held)
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(INCOMING):
                shutil.rmtree(path, ignore_errors=True)
            elif NUMBER.fullmatch(path.name):
                # What cannot be read is left as it is, for the operator.
                with suppress(ValueError, KeyError, TypeError, OSError):
                    self._jobs[path.name] = read_job(path)
        for job in sorted(self._jobs.values(), key=lambda job: job.created):
            if job.state in OPEN_STATES:
                job.state = "waiting"
                self._line.put(job.id)
        self._count()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Give a folder for a scene that is being sent; it goes if no job comes of it.

        Raises:
            Refusal: 429, if too many jobs wait.
        """
        with self._lock:
            if self._thread is None:
                self._begin()
            waiting = sum(job.state == "waiting" for job in self._jobs.values())
            if waiting >= self.most:
                fix = "Wait until some are done, or cancel some."
                raise Refusal(429, "too_many_jobs", f"{waiting} jobs wait.", fix, again=60)
        path = self.folder / f"{INCOMING}{secrets.token_hex(8)}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def add(self, incoming: Path, wish: Wish, info: RasterInfo, card: ModelCard) -> Job:
        """Make a job of what came; from then on it outlives the server.

        Args:
            info: the scene's header.
            card: of the model.
        """
        number = incoming.name.removeprefix(INCOMING)
        job = Job(number, wish, info.width, info.height, info.crs is not None, created=time.time())
        job.classes, job.bands = listed_classes(card.classes), list(card.bands)
        save_job(incoming, job)
        flush_tree(incoming)
        os.replace(incoming, self.folder / number)
        flush_folder(self.folder)
        with self._lock:
            self._jobs[number] = job
            self._count()
        self._line.put(number)
        return job

    def all(self) -> list[Job]:
        """Return all jobs, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.created, reverse=True)

    def find(self, number: str) -> Job:
        """Return a job.

        Raises:
            Refusal: 404.
        """
        job = self._jobs.get(number)
        if job is None:
            raise Refusal(404, "no_job", "There is no such job.", "GET /jobs lists them.")
        return job

    def folder_of(self, job: Job) -> Path:
        """Return where a job's files are."""
        return self.folder / job.id

    def scene_of(self, job: Job) -> Path:
        """Return the scene of a job.

        Raises:
            Refusal: it is no longer there.
        """
        if job.wish.sent is not None:
            return self.folder_of(job) / job.wish.sent
        return found_scene(self.scenes, job.wish.path or "")

    def shown(self, job: Job) -> dict[str, Any]:
        """Return what a client is told of a job."""
        return shown_job(job, self.folder_of(job))

    def remove(self, number: str) -> Job | None:
        """Cancel a job that is not finished, and return it; of another one, remove all files."""
        with self._lock:
            job = self.find(number)
            if job.state in OPEN_STATES:
                self._cancelled.add(number)
                if job.state == "waiting":
                    self._close(job, "cancelled")
                return job
            del self._jobs[number]
            self._count()
        shutil.rmtree(self.folder / number, ignore_errors=True)
        return None

    def close(self) -> None:
        """Stop after the tile that is being made. What is finished is kept, and the next server goes on."""
        self._stopping.set()
        self._line.put(None)
        if self._thread is not None:
            self._thread.join(timeout=30)
        self._held.close()

    def _work(self) -> None:
        yield_to_others(NICENESS)
        while (number := self._line.get()) is not None and not self._stopping.is_set():
            job = self._jobs.get(number)
            if job is not None and job.state == "waiting":
                self._make(job)

    def _make(self, job: Job) -> None:
        self._step(job, state="running", began=time.monotonic(), began_at=0.0, progress=0.0)
        self._save(job)
        try:
            make(job, self.scene_of(job), self.folder_of(job), self.shelf, self._step, self._check_of(job))
        except JobStoppedError:
            if job.id in self._cancelled:
                self._close(job, "cancelled")
            # Else the record still says that it runs, and the next server takes it up.
        except (PixelwiseError, Refusal) as problem:
            text = f"{problem.message} {problem.fix}" if isinstance(problem, Refusal) else str(problem)
            self._close(job, "failed", hidden(text, self.names))
        except Exception as problem:
            self._close(job, "failed", _words(problem))
        else:
            self._step(job, progress=1.0, stage="")
            self._close(job, "done")

    def _check_of(self, job: Job) -> Callable[[], None]:
        def check() -> None:
            if self._stopping.is_set() or job.id in self._cancelled:
                raise JobStoppedError

        return check

    def _step(self, job: Job, **changes: Any) -> None:
        if "notes" in changes:
            changes["notes"] = [hidden(note, self.names) for note in changes["notes"]]
        with self._lock:
            for name, value in changes.items():
                setattr(job, name, value)
            if "state" in changes:
                self._count()

    def _save(self, job: Job) -> None:
        with self._lock, suppress(OSError, PixelwiseError):
            save_job(self.folder_of(job), job)

    def _close(self, job: Job, state: str, error: str | None = None) -> None:
        if state == "cancelled":
            for path in self.folder_of(job).glob(".*.parts"):
                shutil.rmtree(path, ignore_errors=True)
        self._step(job, state=state, error=error)
        self._save(job)

    def _count(self) -> None:
        states = [job.state for job in self._jobs.values()]
        for state in ("waiting", "running", "done", "failed", "cancelled"):
            self.metrics.jobs.labels(state).set(states.count(state))


def _words(problem: Exception) -> str:
    traceback.print_exception(problem, file=sys.stderr)
    return "The server made a mistake. Tell its operator."
