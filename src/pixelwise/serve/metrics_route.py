"""The route that Prometheus reads."""

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from pixelwise.serve.service import service_of


async def metrics_text(request: Request) -> Response:
    """Send all counts in Prometheus' text format."""
    service = service_of(request)
    metrics = service.metrics
    metrics.waiting.set(service.workers.open)
    for model in service.shelf:
        gathering = model.loaded.gathering
        if gathering is not None:
            for images, count in list(gathering.seen.items()):
                metrics.together.labels(model.name, model.version, str(images)).set(count)
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
