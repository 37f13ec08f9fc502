"""What the operator's monitoring reads: numbers in Prometheus' text format, by its conventions for names and units.

Numbers of uploads, bytes and the spool are looked up in the live objects when somebody asks, so that a byte on its way
costs nothing for them. Counted as they happen are only calls of the store and how late the event loop was.

No label names a key, an upload or a client: there would be as many series as those, and whoever reads the metrics
would read them, too.
"""

from __future__ import annotations

import asyncio
import collections
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamup.audit import reason_of
from streamup.errors import SpoolError, StoreError
from streamup.listeners import Listener
from streamup.registry import Registry
from streamup.spool import Spool
from streamup.upload import LIVE, State
from streamup.uploader import Uploader

STORE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From a HEAD in the next room to a part over a thin line, and to a complete that takes S3 minutes."""

LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LAG_SECONDS = 0.5
"""How often the loop is measured: often enough to see a stall, and some 30 µs each time."""


class Metrics:
    """A registry of our own: a process may have more than one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, with a time that nobody asks for
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Gauge("streamup_build_info", "1, of this version.", ["version", "python"], registry=self.registry)
        build.labels(version("streamup"), platform.python_version()).set(1)
        self._store_seconds = Histogram(
            "streamup_store_request_duration_seconds",
            "Calls of the store, by S3's operation, until they were answered or given up.",
            ["operation"],
            buckets=STORE_BUCKETS,
            registry=self.registry,
        )
        self._store_errors = Counter(
            "streamup_store_errors_total",
            "Calls of the store that did not succeed. no_such_object is an answer, too.",
            ["operation", "kind"],
            registry=self.registry,
        )
        self._lag_seconds = Histogram(
            "streamup_event_loop_lag_seconds",
            f"How late the event loop was, measured every {LAG_SECONDS} s.",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )

    def observe(self, operation: str, seconds: float, error: StoreError | None) -> None:
        """A call of the store has ended."""
        self._store_seconds.labels(operation).observe(seconds)
        if error is not None:
            self._store_errors.labels(operation, reason_of(error)).inc()

    async def watch_loop(self) -> None:
        """Measure the event loop for as long as this runs."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag_seconds.observe(max(0.0, loop.time() - due))

    def text(self) -> bytes:
        """Everything as it is now (Prometheus' text format 0.0.4)."""
        return generate_latest(self.registry)


class Numbers(Collector):
    """What is looked up when somebody asks."""

    def __init__(
        self, registry: Registry, uploader: Uploader, spool: Spool, refusals: Mapping[str, int], listener: Listener
    ) -> None:
        """`refusals` by reason; `listener` is the public one."""
        self._registry = registry
        self._uploader = uploader
        self._spool = spool
        self._refusals = refusals
        self._listener = listener

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering it must not ask for numbers yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        lives, slots, budget = list(self._registry), self._uploader.slots, self._spool.budget
        living = collections.Counter(live.upload.state for live in lives)
        uploads = GaugeMetricFamily("streamup_uploads", "Uploads that have not ended, by state.", labels=["state"])
        ended = CounterMetricFamily("streamup_uploads_ended", "Uploads that ended, by outcome.", labels=["outcome"])
        for state in State:
            family, counted = (uploads, living) if state in LIVE else (ended, self._registry.ended)
            family.add_metric([state], counted[state])
        refused = CounterMetricFamily("streamup_requests_refused", "Refused requests, by reason.", labels=["reason"])
        for reason, count in self._refusals.items():
            refused.add_metric([reason], count)
        yield from (uploads, ended, refused)
        received, stored = self._registry.received(), self._uploader.stored_bytes
        yield CounterMetricFamily("streamup_received_bytes", "Bytes taken from clients and kept.", received)
        yield CounterMetricFamily("streamup_stored_bytes", "Bytes that the store has confirmed.", stored)
        closed = self._listener.closed_at_once
        yield CounterMetricFamily("streamup_connections_closed", "Connections for which there was no place.", closed)
        writing = sum(live.writer is not None for live in lives)
        held = sum(self._uploader.held(live.upload.id) is not None for live in lives)
        gauges = {
            "uploads_receiving": ("Uploads to which a client is sending.", writing),
            "uploads_held": ("Uploads that the store denies (`streamup status` says why).", held),
            "connections": ("Clients that are connected.", self._listener.connections),
            "store_available": ("1 if the store answered last, 0 during an outage.", self._uploader.answering),
            "parts_in_flight": ("Parts on their way to the store.", slots.in_flight.total()),
            "parts_in_flight_limit": ("Of them at most so many; fewer while the store throttles.", int(slots.limit)),
            "spool_reserved_bytes": ("Bytes of the spool that are taken or promised.", budget.reserved),
            "spool_limit_bytes": ("Size of the spool (--spool-size).", budget.size),
            "spool_disk_free_bytes": ("What the spool's disk has left.", self._free()),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"streamup_{name}", text, value)

    def _free(self) -> int:
        try:
            return self._spool.free()
        except SpoolError:
            return 0  # and all other numbers are told
