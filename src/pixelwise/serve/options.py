"""What an operator says of a server: what it allows, where its folders are, how it computes."""

from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.threads import thread_count

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Raises:
        ConfigError: a limit of nothing.
    """

    body: int = 64 * MEGABYTE
    """Bytes of a request."""
    json: int = 16 * MEGABYTE
    """Bytes of a request's JSON: reading it holds up all others."""
    scene: int = 8192 * MEGABYTE
    """Bytes of a scene that is sent as a job."""
    tensors: int = 1024 * MEGABYTE
    """Bytes of all tensors that wait in memory at the same time."""
    pixels: int = 50_000_000
    """Of an image that is answered at once."""
    scene_pixels: int = 10_000_000_000
    seconds: float = 120.0
    """From the first byte of a request to its answer; a scene that is sent may take longer."""
    idle: float = 20.0
    """Seconds in which a client must send or take something."""
    queue: int = 256
    """Requests that wait for a network."""
    jobs: int = 100
    """Jobs that wait."""
    connections: int = 1000
    rate: int | None = None
    """Requests of one client in a minute; None: any number."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigError(f"A server's limit for {name} is above 0, and {value} is not.")


@dataclass(frozen=True)
class Folders:
    """Where a server keeps what it is given, and what it may read."""

    jobs: Path = Path("pixelwise-jobs")
    """Scenes that were sent, and their maps."""
    scenes: tuple[Path, ...] = ()
    """Whose files may be named for a job."""
    corrections: Path | None = None
    """Labels that people corrected; None: they are refused."""


@dataclass(frozen=True)
class Work:
    """How the machine is shared by requests.

    Raises:
        ConfigError: no threads.
    """

    device: str = "auto"
    workers: int | None = None
    """Requests that are computed at the same time; None: on a processor one for each core, on a GPU 8."""
    threads: int = 1
    """Cores for each of them, on a processor."""
    batch: int | None = None
    """Most images of one size that go through a network together; None: as many as a trial shows to be faster."""

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads), ("batch", self.batch)):
            if value is not None and value < 1:
                raise ConfigError(f"A server's {name} are 1 or more, and {value} is not.")

    def at_once(self, device: str) -> int:
        """Return how many requests are computed at the same time on a kind of device."""
        if self.workers is not None:
            return self.workers
        return max(1, thread_count() // self.threads) if device == "cpu" else 8


@dataclass(frozen=True)
class ServeOptions:
    """All of it."""

    token: str | None = None
    """What a client must show; None: anybody who reaches the server is answered."""
    hosts: tuple[str, ...] | None = ("127.0.0.1", "localhost", "::1")
    """Names by which the server may be addressed; None: any."""
    limits: Limits = field(default_factory=Limits)
    folders: Folders = field(default_factory=Folders)
    work: Work = field(default_factory=Work)
