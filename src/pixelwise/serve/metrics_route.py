"""The route that Prometheus reads."""

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from pixelwise.inference.networks import Network
from pixelwise.serve.gathering import GatheredArrays, GatheredTensors
from pixelwise.serve.service import service_of


async def metrics_text(request: Request) -> Response:
    """Send all counts in Prometheus' text format."""
    service = service_of(request)
    metrics = service.metrics
    metrics.waiting.set(service.workers.open)
    for model in service.shelf:
        network: Network = model.predictor.model
        if isinstance(network, GatheredTensors | GatheredArrays):
            for images, count in list(network.gathering.seen.items()):
                metrics.together.labels(model.name, model.version, str(images)).set(count)
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
