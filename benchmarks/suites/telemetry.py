"""OpenTelemetry takes CPU of the process: the metrics, and the spans if they are sampled.

"The interface alone" is instrumented, but no SDK is configured. The batch processor takes the spans
in its thread, and exports them to nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import asyncsvc
from asyncsvc.integrations.opentelemetry import Telemetry
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.suites import calls


async def run(bench: Bench) -> None:
    """Measure calls without and with telemetry."""
    meters = [MeterProvider(metric_readers=[InMemoryMetricReader()]) for _ in range(2)]
    unsampled, sampled = TracerProvider(sampler=ALWAYS_OFF), TracerProvider()
    sampled.add_span_processor(BatchSpanProcessor(_Nowhere()))
    metrics = Telemetry(meter_provider=meters[0], tracer_provider=unsampled)
    spans = Telemetry(meter_provider=meters[1], tracer_provider=sampled)
    plain = asyncsvc.Settings()
    async with (
        connect(bench.dsn, max_size=bench.tasks, settings=plain) as without,
        connect(bench.dsn, max_size=bench.tasks, settings=Telemetry().instrument(plain)) as alone,
        connect(bench.dsn, max_size=bench.tasks, settings=metrics.instrument(plain)) as measured,
        connect(bench.dsn, max_size=bench.tasks, settings=spans.instrument(plain)) as traced,
    ):
        await without.migrate()
        await calls.create_conversations(without)
        await calls.compare(
            bench,
            {
                "without": without,
                "the interface alone": alone,
                "metrics": measured,
                "metrics and spans": traced,
            },
            {"append": calls.append, "a page of 20": calls.page},
        )
    sampled.shutdown()


class _Nowhere(SpanExporter):
    """Exports nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - the interface's
        return SpanExportResult.SUCCESS
