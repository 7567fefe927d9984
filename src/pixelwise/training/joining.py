"""Processes that torchrun or Ray started are joined, and when one of them fails, all end and say why.

A process that fails leaves its reason with the group. The others meet a broken connection, or their watch finds the
reason, or finds that a process of their machine is gone. The first process says it; the others are silent.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from pixelwise import processes
from pixelwise.config import Config
from pixelwise.errors import ConfigError, PixelwiseError, TrainingStopped

MINUTES = "PIXELWISE_TIMEOUT"
"""In the environment: how many minutes a process waits for the others at most."""
EVERY = 1.0
"""Seconds between two looks at the other processes."""
GRACE = 10.0
"""Seconds in which a process may end by itself after another one has failed."""
FAILED, LEFT, GO_ON = "failed", "left", "go on"


_watching: "_Watch | None" = None


def launched() -> bool:
    """Return whether this process is one of several that torchrun, or a program like it, has started."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def restarted() -> bool:
    """Return whether torchrun has started the processes again after a failure (``--max-restarts``)."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined(config: Config) -> Iterator[None]:
    """Let the processes that were started together work together in a block. Alone, or joined already, it does nothing.

    Raises:
        ConfigError: the processes do not find each other.
        PixelwiseError: another process has failed; it says which one, and why.
        SystemExit: the same, in other processes than the first.
    """
    if processes.world() > 1 or not (launched() or _begun()):
        yield
        return
    if _begun():
        # Ray, or the caller's own program, has joined them and looks after them.
        with processes.working_together():
            yield
        return
    global _watching
    _begin(config)
    watch = _watching = _Watch()
    with _terminated_as_error():
        try:
            with processes.working_together():
                yield
                dist.barrier()
        except Exception as error:
            _ignore_sigterm()
            _end(error, watch)
            raise
        except TrainingStopped:
            # All processes have agreed on it.
            raise
        except KeyboardInterrupt:
            watch.tell("it was interrupted")
            raise
        except _TerminatedError:
            _end_with_others(watch)
            sys.exit(128 + signal.SIGTERM)
        finally:
            _watching = None
            watch.stop()
            with suppress(RuntimeError):
                dist.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[bool]:
    """Give whether this is the first process; the others wait until its block is done, however long it takes."""
    if _watching is not None and not processes.is_first():
        _watching.wait_for_first()
    yield processes.is_first()
    if _watching is not None and processes.is_first():
        _watching.let_go()


def _begun() -> bool:
    return dist.is_available() and dist.is_initialized()


def _begin(config: Config) -> None:
    on_gpu = torch.cuda.is_available() and config.train.device != "cpu"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        # Objects and counts on the CPU travel by gloo, gradients on GPUs by NCCL.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(minutes=minutes_to_wait())
        )
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ConfigError(
            f"The {os.environ['WORLD_SIZE']} processes did not find each other at {place} "
            f"({' '.join(str(error).split())[:160]}). Start them with torchrun, which sets this address "
            "(docs/distributed.md), and see that the machines reach each other there.",
            code="PW610",
        ) from None


def minutes_to_wait() -> float:
    """Return how many minutes a process waits for the others at most.

    Raises:
        ConfigError: the environment says something else than minutes.
    """
    said = os.environ.get(MINUTES, "30")
    try:
        minutes = float(said)
    except ValueError:
        minutes = 0.0
    if minutes <= 0:
        raise ConfigError(
            f"The environment's {MINUTES} is {said!r}. Set it to minutes above 0, such as 30.", code="PW610"
        )
    return minutes


class _Watch:
    """Looks after the other processes while this one is busy, over a connection of its own."""

    def __init__(self) -> None:
        attempt = f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=60))  # pyright: ignore[reportPrivateImportUsage]  documented as public
        self._store = dist.PrefixStore(f"pixelwise/{attempt}", store)  # pyright: ignore[reportPrivateImportUsage]
        self.rank, self.world, self.host = dist.get_rank(), dist.get_world_size(), socket.gethostname()
        self._store.set(str(self.rank), f"{self.host} {os.getpid()}")
        dist.barrier()
        places = {number: self._store.get(str(number)).decode().split() for number in range(self.world)}
        self._hosts = {number: place[0] for number, place in places.items()}
        self._here = {number: int(pid) for number, (host, pid) in places.items() if host == self.host}
        self._lock, self._stopped, self._waits = threading.Lock(), threading.Event(), 0
        self._thread = threading.Thread(target=self._look, name="watch of processes", daemon=True)
        self._thread.start()

    def name(self, number: int) -> str:
        return f"process {number} (of {self.world}, on {self._hosts[number]})"

    def tell(self, reason: str) -> None:
        """Leave the reason why this process ends; the first reason of all stays."""
        self._fail(f"{self.rank} {reason}")

    def _fail(self, text: str) -> None:
        with self._lock, suppress(RuntimeError):
            self._store.compare_set(FAILED, "", text)

    def failure(self) -> str | None:
        """Return which process has failed and why; None: none, as far as is known."""
        with self._lock:
            try:
                for number, pid in self._here.items():
                    if not _alive(pid) and not self._store.check([f"{LEFT}{number}"]):
                        text = f"{number} it ended without a word: it was killed, or the system had no memory left"
                        self._store.compare_set(FAILED, "", text)
                if not self._store.check([FAILED]):
                    return None
                number, _, reason = self._store.get(FAILED).decode().partition(" ")
            except RuntimeError:
                return "The connection to the other processes is lost: the one that holds them together has ended"
        return f"{self.name(int(number)).capitalize()} has failed: {reason}"

    def found_within(self, seconds: float) -> str | None:
        """Return `failure`, waiting for it a while."""
        last = time.monotonic() + seconds
        while (found := self.failure()) is None and time.monotonic() < last:
            time.sleep(0.2)
        return found

    def let_go(self) -> None:
        """Let the others go on that `wait_for_first`."""
        self._waits += 1
        with self._lock:
            self._store.set(f"{GO_ON}{self._waits}", "1")

    def wait_for_first(self) -> None:
        """Wait until the first process lets the others go on, or one fails."""
        self._waits += 1
        while self.failure() is None:
            with self._lock:
                if self._store.check([f"{GO_ON}{self._waits}"]):
                    return
            time.sleep(0.2)
        _end_with_others(self)

    def _look(self) -> None:
        while not self._stopped.wait(EVERY):
            found = self.failure()
            # The main thread ends by itself, unless it waits for a process that is gone.
            if found is not None and not self._stopped.wait(GRACE):
                if self.rank == 0:
                    print(f"Error: {_advice(found)}", file=sys.stderr, flush=True)
                os._exit(1)

    def stop(self) -> None:
        """End the watch; this process has left the common work."""
        self._stopped.set()
        with self._lock, suppress(RuntimeError):
            self._store.set(f"{LEFT}{self.rank}", "1")
        self._thread.join()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _advice(found: str) -> str:
    return f"{found.rstrip('.')}. So all processes end. `--resume` goes on from the last saved step, with any number."


def _end(error: Exception, watch: _Watch) -> None:
    """Say why this process ends, unless another one's end is the reason; that one is said then."""
    if _of_connection(error):
        _end_with_others(watch)
        watch.tell(f"it waited for the others for {minutes_to_wait():g} minutes ({' '.join(str(error).split())[:160]})")
        raise PixelwiseError(
            f"The processes do not reach each other any more ({' '.join(str(error).split())[:160]}). Is the network "
            f"down, or one of them very slow? {MINUTES}, in the environment, is how many minutes they wait. `--resume` "
            "goes on from the last saved step.",
            code="PW610",
        ) from None
    kind = "" if isinstance(error, PixelwiseError) else f"{type(error).__name__}: "
    watch.tell(f"{kind}{' '.join(str(error).split())[:600]}")
    _record(error)
    if isinstance(error, PixelwiseError) and watch.rank:
        # The first process says it.
        sys.exit(1)


def _end_with_others(watch: _Watch) -> None:
    found = watch.found_within(5.0)
    if found is None:
        return
    if watch.rank:
        sys.exit(1)
    raise PixelwiseError(_advice(found), code="PW610") from None


def _of_connection(error: Exception) -> bool:
    """Return whether an error says that other processes do not answer."""
    if isinstance(error, PixelwiseError) or not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        sign in said for sign in ("gloo", "nccl", "connection", "timed out", "broken pipe", "socket")
    )


def _record(error: Exception) -> None:
    """Let torchrun's summary say the reason too: a sentence for a mistake, a traceback for a bug."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return
    said = str(error) if isinstance(error, PixelwiseError) else traceback.format_exc()
    more = {"py_callstack": said, "timestamp": str(int(time.time()))}
    with suppress(OSError):
        Path(file).write_text(json.dumps({"message": {"message": str(error), "extraInfo": more}}))


class _TerminatedError(BaseException):
    """SIGTERM came: torchrun ends the others when one process has failed."""


def leave_at_once(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM while nothing else does: once is enough, what follows is the way out."""
    _ignore_sigterm()
    raise _TerminatedError


def _ignore_sigterm() -> None:
    # torchrun sends it as soon as one process is gone; the others still have to say why they end.
    if signal.getsignal(signal.SIGTERM) == leave_at_once:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _terminated_as_error() -> Iterator[None]:
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave_at_once)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
