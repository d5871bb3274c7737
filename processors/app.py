"""The Faust app: topics of raw bytes, the table of couplings, and what Faust must do differently for us.

Messages are acknowledged by the agents themselves, after everything they caused is confirmed; Faust's own bookkeeping
of acknowledgements is switched off (`acks=False`): it counts what it skips as done, and a gap in the offsets (each
transaction of capture leaves one) as done up to its end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
from faust.sensors.monitor import Monitor
from faust.transport.drivers import aiokafka as driver
from mode.services import WaitResults
from yarl import URL

from drawbar.settings import Settings
from processors.feed import ViewFeed
from processors.tables import CouplingTable
from schemas.errors import SettingsError
from schemas.topics import COUPLINGS, PAIRS_WORK

GROUP = "decide"  # after the installation's prefix: the consumer group of the changes topics and of `pairs.work`
HEARTBEAT_S = 2.0
FETCH_WAIT_MS = 500  # how long an idle fetch is held by the broker; a message ends the wait at once


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer, reading what is committed only, and going back to what is not acknowledged."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Capture publishes in transactions; what was taken back never happened. Faust asks for it only in exactly-once.
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - read by `start`, nobody else sets it
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        return consumer

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(self._seek_to_acknowledged)

    async def _seek_to_acknowledged(self) -> Any:
        """Faust leaves a partition of which nothing was acknowledged yet where it is, and so skips what it dropped."""
        consumer = self._ensure_consumer()
        committed = await consumer.seek_to_committed()
        fresh = [tp for tp, offset in committed.items() if not offset and tp.topic != COUPLINGS]
        if fresh:
            await consumer.seek_to_beginning(*fresh)
        return committed


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """At the end of a recovery Faust goes back to what is acknowledged while messages are flowing already, and
        then empties its queues: what was delivered in between would be skipped. So the flow stops first; the recovery
        resumes it when it is done.
        """
        if self.flow_active:
            self.stop_flow()
        await super().perform_seek()

    async def wait_first(self, *waited: Any, timeout: Any = None) -> Any:
        """Faust delivers each message in a race against the flow being stopped: four tasks a message, a third of its
        time. While the flow is on there is no race to be had: a queue that is emptied lets go of who waits for it.
        """
        if len(waited) == 2 and asyncio.iscoroutine(waited[0]) and self.flow_active and timeout is None:
            deliver, stopped = waited
            stopped.close()
            await deliver
            return WaitResults([], [], stopped=False)
        return await super().wait_first(*waited, timeout=timeout)


class _Transport(driver.Transport):
    Consumer = _Consumer


class _QuietMonitor(Monitor):
    """No statistics per message: they take a tenth of the time, and the heartbeat has its own."""

    def on_message_in(self, tp: Any, offset: int, message: Any) -> None: ...
    def on_message_out(self, tp: Any, offset: int, message: Any) -> None: ...
    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> Any: ...
    def on_stream_event_out(self, tp: Any, offset: int, stream: Any, event: Any, state: Any = None) -> None: ...
    def track_tp_end_offset(self, tp: Any, offset: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Processors:
    """The app and its parts. Made inside the running event loop."""

    app: Any
    table: CouplingTable
    work: Any
    changes: Any


def make_app(settings: Settings, changes: Sequence[str]) -> Processors:
    """The app for this process; `changes` are the topics that route reads. Raises SettingsError."""
    bus = settings.bus
    servers = [server.strip() for server in bus.bootstrap_servers.split(",") if server.strip()]
    if not servers:
        raise SettingsError("bus.bootstrap_servers is blank")
    folder = Path(settings.state_dir) / "process"
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        f"{bus.group_prefix}.{GROUP}",
        broker=[URL(f"kafka://{server}") for server in servers],
        broker_credentials=_credentials(bus.extra),
        broker_client_id=f"{bus.group_prefix}-process",
        broker_session_timeout=settings.decide.session_timeout_s,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=30.0,
        consumer_auto_offset_reset="earliest",
        store="memory://",
        datadir=str(folder),
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,  # a standby would put rows of other processes among ours
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        Monitor=_QuietMonitor,
    )
    app.transport = _Transport(app.conf.broker_consumer, app)

    def topic(*names: str, **options: Any) -> Any:
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        return app.topic(*names, acks=False, allow_empty=True, **raw, **options)

    table = CouplingTable(
        app,
        name="couplings",
        use_partitioner=True,
        key_type=bytes,
        value_type=bytes,
        changelog_topic=topic(COUPLINGS, internal=True, maxsize=131_072),
    )
    app.tables.add(table)
    return Processors(
        app=app,
        table=table,
        work=topic(PAIRS_WORK),
        changes=topic(*changes) if changes else None,
    )


async def end_stuck_recovery(app: Any, feed: ViewFeed) -> None:
    """End a recovery that has every row but waits for more.

    Faust waits for the very last offset of each changelog partition. There may be no row at it: compaction removed a
    tombstone, or a transaction ended there. The view, which has the rows by another way, knows the last one.
    """
    recovery = app.tables.recovery
    while True:
        await asyncio.sleep(0.5)
        if not app.in_recovery:
            continue
        for tp, end in list(recovery.active_highwaters.items()):
            reached = recovery.active_offsets.get(tp)
            if (
                reached is not None
                and reached < end < feed.position(tp.partition)
                and feed.last(tp.partition) <= reached
            ):
                recovery.active_offsets[tp] = end


def _credentials(extra: Mapping[str, str]) -> Any:
    """TLS and sign-in for aiokafka, from the librdkafka options. Raises SettingsError for what it cannot do."""
    protocol = extra.get("security.protocol", "plaintext").lower()
    if protocol == "plaintext":
        return None
    context = _tls(extra) if protocol in ("ssl", "sasl_ssl") else None
    if protocol == "ssl":
        return faust.SSLCredentials(context)
    if protocol not in ("sasl_ssl", "sasl_plaintext"):
        raise SettingsError(f"security.protocol {protocol} is not known")
    mechanism = extra.get("sasl.mechanism", extra.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise SettingsError(f"sasl.mechanism {mechanism} cannot be used here; PLAIN and SCRAM can")
    return faust.SASLCredentials(
        username=extra.get("sasl.username", ""),
        password=extra.get("sasl.password", ""),
        ssl_context=context,
        mechanism=mechanism,
    )


def _tls(extra: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=extra.get("ssl.ca.location"))
    if extra.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif extra.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if certificate := extra.get("ssl.certificate.location"):
        context.load_cert_chain(certificate, extra.get("ssl.key.location"), extra.get("ssl.key.password"))
    return context
