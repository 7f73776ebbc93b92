"""The text that Prometheus reads. It is made in short steps, so that a scrape does not delay other work."""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from listener.metrics.labels import SITE, Key

Values = Mapping[Any, float]
"""Values by the texts of their labels: tuples."""

STEP = 100
"""Samples that are written in one step, in about a millisecond."""

_END = b"# EOF\n"


class _Part:
    """A part of one figure. To the encoder it is a registry."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


async def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return all figures in a form that the reader accepts, and its media type."""
    encode, media_type = choose_encoder(accept)
    text: list[bytes] = []
    for metric in registry.collect():
        for number, part in enumerate(_parts(metric)):
            lines = encode(_Part(part)).removesuffix(_END)
            text.append(_without_comments(lines) if number else lines)
            await asyncio.sleep(0)
    if "openmetrics" in media_type:
        text.append(_END)
    return b"".join(text), media_type


def _parts(metric: Metric) -> Iterator[Metric]:
    """Yield a figure in parts. There is at least one, for the figure's name and help."""
    samples = (each for each in metric.samples if not each.name.endswith("_created"))
    first = True
    while (some := list(islice(samples, STEP))) or first:
        part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
        part.samples = some
        first = False
        yield part


def _without_comments(lines: bytes) -> bytes:
    return b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b"#"))


def gauge(name: str, what: str, value: float | None) -> Metric:
    """Return a figure without labels. With None, it has no value now."""
    return labelled(name, what, (), {} if value is None else {(): value})


def by_site(name: str, what: str, values: Mapping[Key, float]) -> Metric:
    """Return a figure of environments."""
    return labelled(name, what, SITE, values)


def labelled(name: str, what: str, labels: tuple[str, ...], values: Values) -> Metric:
    """Return a figure by its labels."""
    metric = Metric(f"sync_staging_{name}", what, "gauge")
    for found, value in values.items():
        metric.add_sample(metric.name, dict(zip(labels, found, strict=True)), value)
    return metric


def counter(name: str, what: str, labels: tuple[str, ...], values: Values) -> Metric:
    """Return a counter whose values were counted elsewhere."""
    metric = Metric(f"sync_staging_{name}", what, "counter")
    for found, value in values.items():
        metric.add_sample(f"{metric.name}_total", dict(zip(labels, found, strict=True)), value)
    return metric
