"""The whole application: routes, the guard before them, and how errors are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pixelwise import __version__
from pixelwise.errors import PixelwiseError
from pixelwise.serve import correction_routes, inference_routes, job_routes, segment_routes
from pixelwise.serve.answers import failed, refused
from pixelwise.serve.api_page import api_page
from pixelwise.serve.guard import Guard
from pixelwise.serve.metrics_route import metrics_text
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.service import Service
from pixelwise.serve.shelf import Shelf
from pixelwise.serve.warned import warnings_heard

PAGE = Path(str(files("pixelwise.serve").joinpath("page")))
EVERY = 2.0
"""Seconds between two looks at the models' files."""
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


def create_app(shelf: Shelf, options: ServeOptions, *, every: float = EVERY) -> ASGIApp:
    """Return the application of a server.

    Args:
        shelf: the models.
        every: seconds between two looks at the models' files.

    Raises:
        ConfigError: another server works in the folder of jobs.
    """
    service = Service(shelf, options)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        with warnings_heard():
            watching = asyncio.ensure_future(_watch(service, every))
            try:
                yield
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
                await asyncio.to_thread(service.close)

    app = FastAPI(
        title="pixelwise",
        version=__version__,
        summary="Every pixel gets a class.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.service = service
    for routes in (segment_routes, job_routes, correction_routes, inference_routes):
        app.include_router(routes.router)
    app.add_api_route("/metrics", metrics_text, methods=["GET"], summary="Counts for Prometheus")
    app.add_route("/", _page, methods=["GET"], include_in_schema=False)
    app.add_route("/docs", _docs, methods=["GET"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=PAGE))
    for kind in (HTTPException, RequestValidationError, PixelwiseError):
        app.add_exception_handler(kind, refused)
    # A handler of Exception itself would be called, and the error raised again all the same.
    for kind in (OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError):
        app.add_exception_handler(kind, failed)
    return Guard(app, service)


async def _watch(service: Service, every: float) -> None:
    """Load models anew when their files change."""
    while True:
        await asyncio.sleep(every)
        for model in service.shelf:
            # One model's trouble must not end the watch over the others.
            with suppress(OSError, RuntimeError, ValueError):
                if await asyncio.to_thread(service.shelf.refresh, model, settle=min(1.0, every)):
                    service.metrics.loads.labels(model.name, model.version).inc()


async def _page(request: Request) -> Response:
    """Send the page."""
    return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})


async def _docs(request: Request) -> Response:
    """Send what the server can do, for people."""
    return HTMLResponse(api_page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})
