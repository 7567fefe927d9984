"""What all requests of a server share."""

import shutil
import tempfile
from pathlib import Path

from starlette.requests import Request

from pixelwise.inference.networks import device_of
from pixelwise.serve.jobs import Jobs
from pixelwise.serve.metrics import Metrics
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.shelf import Shelf
from pixelwise.serve.workers import Workers

LARGE = 4_000_000
"""Pixels from which on an image is large: one of them is computed at a time, by a thread of lower priority."""
NICENESS = 5
"""Of that thread; that of jobs is lower still."""
VIEWERS = 4
"""Threads that read windows of maps for the page: they decode, and need no network."""
VIEWS = 1024
"""Windows that wait for them."""


class Service:
    """Models, threads, jobs and counts of one server."""

    def __init__(self, shelf: Shelf, options: ServeOptions) -> None:
        self.shelf, self.options = shelf, options
        self.metrics = Metrics()
        devices = [device_of(model.predictor.model) for model in shelf]
        work = options.work
        count = max(work.at_once(device) for device in devices)
        self.workers = Workers(count, options.limits.queue, threads=work.threads)
        self.large = Workers(1, options.limits.queue, threads=work.threads, name="large", niceness=NICENESS)
        self.views = Workers(VIEWERS, VIEWS, name="viewer")
        self.scratch = Path(tempfile.mkdtemp(prefix="pixelwise-serve-"))
        self.names = _names(shelf, options, self.scratch)
        self.jobs = Jobs(options.folders, shelf, self.metrics, self.names, most=options.limits.jobs)
        self.tensor_bytes = 0
        """Of requests whose tensors are in memory."""

    def lane(self, pixels: int) -> Workers:
        """Return the threads for an image of a size: large ones must not keep all from those who wait for a photo."""
        return self.large if pixels > LARGE else self.workers

    def close(self) -> None:
        """End all threads; jobs go on when a server starts again."""
        self.jobs.close()
        self.workers.close()
        self.large.close()
        self.views.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def service_of(request: Request) -> Service:
    """Return what all requests share."""
    return request.app.state.service


def _names(shelf: Shelf, options: ServeOptions, scratch: Path) -> dict[str, str]:
    """Return the machine's folders, and what they are called in answers."""
    folders = options.folders
    named: dict[Path, str] = {scratch: "upload", folders.jobs: "jobs"}
    named |= {folder: "scenes" for folder in folders.scenes}
    named |= {model.path: model.name for model in shelf}
    if folders.corrections is not None:
        named[folders.corrections] = "corrections"
    found = {str(form): name for path, name in named.items() for form in (path, path.absolute(), path.resolve())}
    found |= {str(Path.home()): "~"} if Path.home() != Path("/") else {}
    # A short word, such as "jobs", may be part of any sentence.
    return {path: name for path, name in found.items() if "/" in path or "\\" in path}
