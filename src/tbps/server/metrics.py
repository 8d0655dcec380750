"""Metrics of the service for Prometheus."""

from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@final
class Metrics:
    """Counters, gauges and histograms of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("tbps_requests", "Requests answered", ("method", "route", "status"), registry=self.registry)
        self.seconds = Histogram("tbps_request_seconds", "Time to answer", ("route",), buckets=_SECONDS, registry=self.registry)
        self.under_way = Gauge("tbps_requests_under_way", "Requests in progress or waiting", registry=self.registry)
        self.texts = Histogram(
            "tbps_texts_encoded_together",
            "Texts per pass",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.failures = Counter("tbps_failures", "Unexpected errors", registry=self.registry)
        self.images = Gauge("tbps_gallery_images", "Images in the gallery", registry=self.registry)
        self.jobs = Gauge("tbps_jobs_unfinished", "Uploads waiting or being indexed", registry=self.registry)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
