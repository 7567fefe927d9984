"""What Prometheus reads."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import Scope

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "pixelwise_requests", "Requests that were answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "pixelwise_request_seconds",
            "From a request's headers to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.open_requests = Gauge("pixelwise_open_requests", "Requests without an answer yet.", registry=registry)
        self.waiting = Gauge("pixelwise_queue", "Requests that wait or are computed.", registry=registry)
        self.computed = Histogram(
            "pixelwise_compute_seconds",
            "What one image took in its thread: reading, network, classes, pictures.",
            ["model", "version"],
            buckets=SECONDS,
            registry=registry,
        )
        self.pixels = Counter("pixelwise_pixels", "Pixels that got a class.", ["model", "version"], registry=registry)
        self.loads = Counter(
            "pixelwise_model_loads", "Models that were loaded anew.", ["model", "version"], registry=registry
        )
        self.jobs = Gauge("pixelwise_jobs", "Jobs by state.", ["state"], registry=registry)
        self.together = Gauge(
            "pixelwise_batches",
            "Batches by the number of images in them.",
            ["model", "version", "images"],
            registry=registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request."""
        # By its pattern: addresses that clients invent must not become series.
        route: Any = scope.get("route")
        name, method = getattr(route, "path", "other"), scope["method"]
        method = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self.requests.labels(method, name, status or 499).inc()
        self.seconds.labels(name).observe(seconds)

    def text(self) -> bytes:
        """Return all counts in Prometheus' format."""
        return generate_latest(self.registry)
