"""The command that serves models over HTTP."""

from pathlib import Path

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE
from pixelwise.machine import share_cores

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0: from other machines too."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--token", envvar="PIXELWISE_TOKEN", help="What clients must show.  [also: PIXELWISE_TOKEN]")
@click.option("--allowed-host", "hosts", multiple=True, help="A name that the server has for its clients; repeatable.")
@click.option("--jobs", type=FILE, default=Path("pixelwise-jobs"), show_default=True, help="Folder of scenes and maps.")
@click.option("--scenes", type=FILE, multiple=True, help="Folder whose scenes clients may name; repeatable.")
@click.option("--corrections", type=FILE, help="Folder for labels that people correct.  [default: they are refused]")
@click.option(
    "--device", default="auto", show_default=True, help="'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one."
)
@click.option(
    "--workers", type=int, help="Images that are computed at the same time.  [default: CPU: a core each; GPU: 8]"
)
@click.option("--threads", type=int, default=1, show_default=True, help="CPU: cores for each of them.")
@click.option("--batch", type=int, help="Most images in the network together.  [default: as a trial shows; CPU: 1]")
@click.option("--queue", type=int, default=256, show_default=True, help="Images that wait; more are refused (503).")
@click.option("--max-body", type=int, default=64, show_default=True, help="Megabytes of an image that is sent.")
@click.option("--max-scene", type=int, default=8192, show_default=True, help="Megabytes of a scene that is sent.")
@click.option("--max-pixels", type=int, default=50, show_default=True, help="Millions of pixels of an image.")
@click.option("--max-scene-pixels", type=int, default=10_000, show_default=True, help="Millions of pixels of a scene.")
@click.option("--max-jobs", type=int, default=100, show_default=True, help="Jobs that wait; more are refused (429).")
@click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds for a request.")
@click.option("--rate", type=int, help="Requests of one client in a minute; more are refused (429).  [default: any]")
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    token: str | None,
    hosts: tuple[str, ...],
    jobs: Path,
    scenes: tuple[Path, ...],
    corrections: Path | None,
    device: str,
    workers: int | None,
    threads: int,
    batch: int | None,
    queue: int,
    max_body: int,
    max_scene: int,
    max_pixels: int,
    max_scene_pixels: int,
    max_jobs: int,
    timeout: float,
    rate: int | None,
) -> None:
    """Show models on a page, and answer programs over HTTP.

    It speaks plain requests and the Open Inference Protocol. MODEL is a run, a model folder, or a file that
    `pixelwise export` wrote. Several stand side by side; of one name that comes several times they are versions 1, 2,
    3 ... A model whose files are replaced is loaded anew.

    \b
    Example:
      pixelwise serve runs/fields
      pixelwise serve fields=runs/fields fields=runs/fields-2 street.onnx --scenes /data/scenes
      PIXELWISE_TOKEN=secret pixelwise serve runs/fields --host 0.0.0.0 --corrections corrected
    """
    share_cores()
    with interruptible("Jobs go on when the server starts again."):
        from pixelwise.fast.allocator import keep_freed_memory
        from pixelwise.optional import optional_module
        from pixelwise.serve.options import MEGABYTE, Folders, Limits, ServeOptions, Work

        for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
            optional_module(package)
        from pixelwise.serve.run import run

        keep_freed_memory()
        limits = Limits(
            body=max_body * MEGABYTE,
            scene=max_scene * MEGABYTE,
            pixels=max_pixels * 1_000_000,
            scene_pixels=max_scene_pixels * 1_000_000,
            seconds=timeout,
            queue=queue,
            jobs=max_jobs,
            rate=rate,
        )
        named = (*LOOPBACK, host, *hosts) if hosts or host in LOOPBACK else None
        folders = Folders(jobs, scenes, corrections)
        options = ServeOptions(token or None, named, limits, folders, Work(device, workers, threads, batch))
        run(models, options, host=host, port=port, say=click.echo)
