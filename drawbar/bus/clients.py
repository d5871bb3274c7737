"""Kafka clients with the settings that everything here depends on, and the reads that need no group.

`extra` holds what an installation adds, as librdkafka names it: TLS, SASL, buffer sizes, compression. It cannot change
the settings our promises rest on. What librdkafka says goes to the log: its own lines at debug, an outage once as a
warning. Values of secret settings never get there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public all the same

from drawbar.lazy_log import LazyLog
from schemas.errors import BusSignInRefused, BusUnavailable, BusUntrusted, SettingsError, TopicMismatch

SESSION_TIMEOUT_MS = 6_000  # how long a killed process keeps its partitions; the least that brokers allow by default
TRANSACTION_TIMEOUT_MS = 10_000  # how long an open transaction of a killed process holds back readers of its topics
SAY_AGAIN_AFTER_S = 30.0  # the same client error is a warning at most this often

CLIENT = {
    # what is not in the topic table is not made by a typing error
    "allow.auto.create.topics": False,
    # back within a second once a broker is there again; 10 s by default
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1_000,
    "socket.keepalive.enable": True,
}
PRODUCER = {
    # where aiokafka, and so Faust, and Java send the same key; librdkafka's own default differs
    "partitioner": "murmur2_random",
    # a retry neither doubles nor reorders
    "enable.idempotence": True,
    "acks": "all",
    # long enough to fill a batch in a burst, short beside the latency of any API
    "linger.ms": 5,
    # the one codec that every client reads without an extra library (aiokafka needs one for lz4 and zstd);
    # at level 1 a message of 500 bytes costs 5 microseconds and shrinks to a fifth or less
    "compression.type": "gzip",
    "compression.level": 1,
}
CONSUMER = {
    # acknowledged is what we say is done, not what was read
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # events and watermark of a capture are one transaction: what was taken back never happened
    "isolation.level": "read_committed",
    # a new group starts with all there is; nothing is skipped
    "auto.offset.reset": "earliest",
    # a process that joins or leaves moves only the partitions that must move: the others keep their work under way
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 3,
    # read ahead at most 16 MB a process; 64 MB by default
    "queued.max.messages.kbytes": 16_384,
}
# What promises rest on. `extra` may not name them.
OURS = frozenset(
    {
        "partitioner",
        "enable.idempotence",
        "acks",
        "request.required.acks",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "isolation.level",
        "auto.offset.reset",
        "partition.assignment.strategy",
        "enable.partition.eof",
        "transactional.id",
        "group.id",
        "client.id",
        "bootstrap.servers",
        "metadata.broker.list",
        "allow.auto.create.topics",
        "group.protocol",
    }
)
_SECRET = ("password", "secret", "token", "key.pem", "jaas", "oauthbearer.config")
_LOG_WARNING = 30  # of the levels of `logging`, in which librdkafka's lines arrive

Client = TypeVar("Client", Producer, Consumer, AdminClient)
Answer = TypeVar("Answer")

log = LazyLog(__name__)


def make_producer(
    bootstrap: str,
    *,
    client_id: str,
    extra: Mapping[str, str],
    transactional_id: str | None = None,
) -> Producer:
    """A producer whose messages arrive once and in order, where Faust would put them.

    With a `transactional_id` the caller begins with `init_transactions`, which ends whatever an earlier holder of the
    id left open and shuts it out. Raises SettingsError when the settings are refused.
    """
    own: dict[str, Any] = dict(PRODUCER)
    if transactional_id is not None:
        own |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    return _made(Producer, bootstrap, client_id, own, extra)


def make_consumer(
    bootstrap: str,
    *,
    client_id: str,
    group_id: str,
    extra: Mapping[str, str],
    partition_eof: bool = False,
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None] | None = None,
) -> Consumer:
    """A consumer that commits only what it is told to.

    Rebalances are cooperative: callbacks get the partitions that come or go, not the whole assignment, and use
    `incremental_assign` and `incremental_unassign`. `partition_eof` has an event delivered at the end of each
    partition. `on_commit` is told in `poll` what became of a commit that was not waited for. Raises SettingsError when
    the settings are refused.
    """
    own: dict[str, Any] = {**CONSUMER, "group.id": group_id, "enable.partition.eof": partition_eof}
    if on_commit is not None:
        own["on_commit"] = on_commit
    return _made(Consumer, bootstrap, client_id, own, extra)


def make_admin(bootstrap: str, *, client_id: str, extra: Mapping[str, str]) -> AdminClient:
    """An administration client. Raises SettingsError when the settings are refused."""
    return _made(AdminClient, bootstrap, client_id, {}, extra)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition that Java, aiokafka and our producers choose for a key.

    Source: org.apache.kafka.clients.producer.internals.BuiltInPartitioner.partitionForKey.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 with Kafka's seed, as an unsigned 32-bit number.

    Source: org.apache.kafka.common.utils.Utils.murmur2.
    """
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    whole = len(data) & ~3
    h = 0x9747B28C ^ len(data)
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def read_to_end(
    bootstrap: str,
    topic: str,
    *,
    extra: Mapping[str, str],
    partitions: Sequence[int] | None = None,
    start: Mapping[int, int] | None = None,
    timeout_s: float = 30.0,
    client_id: str = "drawbar-read",
) -> Iterator[Message]:
    """Every message of a topic that was there when the read began, in order within each partition; tombstones included.

    Joins no group and commits nothing. `partitions` limits it to some, `start` gives the first offset of some. Of
    transactions only the committed ones are seen, and one that is open when the read begins is waited for: what it
    commits below that end belongs to the read.

    Raises TopicMismatch when there is no such topic, BusUnavailable after `timeout_s` without any progress.
    """
    begin = start or {}
    ends = _ends(bootstrap, topic, extra, partitions, timeout_s, client_id)
    remaining = {partition: end for partition, end in ends.items() if end > begin.get(partition, 0)}
    if not remaining:
        return
    consumer = make_consumer(
        bootstrap,
        client_id=client_id,
        group_id=client_id,
        # at the end of a partition the broker waits this long for more, before we hear that it is the end
        extra={"fetch.wait.max.ms": "20", **extra},
        partition_eof=True,
    )
    try:
        # A number, not "the beginning": to look that up, librdkafka waits half a second for a leader it does not know
        # yet. Where offset 0 is gone, auto.offset.reset leads to the first there is.
        consumer.assign([TopicPartition(topic, p, begin.get(p, 0)) for p in remaining])
        deadline = time.monotonic() + timeout_s
        trouble = ""
        while remaining:
            first = consumer.poll(0.2)  # `consume` alone would wait for a full batch
            batch = [] if first is None else [first, *consumer.consume(500, 0)]
            for message in batch:
                partition, offset = _position(message)
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    trouble = f": {error.name()}"
                    continue
                end = remaining.get(partition)
                if end is None:
                    continue
                # The event at the end of a partition carries the offset that would come next. It counts, not a count
                # of messages: the last offsets may be markers of transactions, or gone by compaction.
                past = offset if error is not None else offset + 1
                if past >= end:
                    del remaining[partition]
                if error is None and offset < end:
                    yield message
            if batch:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() > deadline:
                raise BusUnavailable(
                    f"topic {topic} was not read to its end: no progress in {timeout_s:g} s, partitions "
                    f"{sorted(remaining)} left{trouble}",
                    next_step="look at the brokers; a transaction that is never ended holds readers back as well",
                )
    finally:
        consumer.close()


def latest_by_key(
    bootstrap: str,
    topic: str,
    *,
    extra: Mapping[str, str],
    partitions: Sequence[int] | None = None,
    timeout_s: float = 30.0,
    client_id: str = "drawbar-read",
) -> dict[bytes, Message]:
    """The last message of every key of a compacted topic. A tombstone ends its key; what has no key is left out.

    Errors as `read_to_end`.
    """
    latest: dict[bytes, Message] = {}
    for message in read_to_end(
        bootstrap, topic, extra=extra, partitions=partitions, timeout_s=timeout_s, client_id=client_id
    ):
        key = message.key()
        if key is None:
            continue
        if message.value() is None:
            latest.pop(key, None)
        else:
            latest[key] = message
    return latest


def wait_for_broker(
    bootstrap: str,
    extra: Mapping[str, str],
    *,
    on_wait: Callable[[float], None] = lambda _waited_s: None,
    give_up_after_s: float | None = None,
    client_id: str = "drawbar-wait",
) -> None:
    """Return once a broker answers. About once a second until then, `on_wait` is called with the seconds waited so far.

    Raises BusUnavailable after `give_up_after_s` (None: never); at once BusSignInRefused and BusUntrusted, since
    waiting helps neither, and SettingsError when the client's settings are refused.
    """
    begun = time.monotonic()
    told: list[KafkaError] = []
    admin: AdminClient = _made(AdminClient, bootstrap, client_id, {}, extra, told.append)
    while True:
        asked = time.monotonic()
        try:
            if admin.list_topics(timeout=1).brokers:
                return
        except KafkaException as failed:
            told.append(failed.args[0])
        admin.poll(0)  # has what the client says of its connections delivered
        waited_s = time.monotonic() - begun
        for error in told:
            _raise_when_final(error, bootstrap)
        if give_up_after_s is not None and waited_s >= give_up_after_s:
            last = f" ({told[-1].name()})" if told else ""
            tls = any("SSL" in error.str() for error in told)
            hint = "see whether this port of the broker speaks TLS" if tls else ""
            raise BusUnavailable(f"no broker answers at {bootstrap} after {waited_s:.0f} s{last}", next_step=hint)
        on_wait(waited_s)
        time.sleep(max(0.0, min(1.0, asked + 1 - time.monotonic())))


# What librdkafka says of a TLS connection that will not come about later either: a certificate that is not trusted, an
# alert of the broker. A connection that is closed may come about later: a broker that starts or ends closes it, too.
_FINAL_TLS = (
    (
        "certificate verify failed",
        "its certificate is not signed by an authority that is trusted, or not its own",
    ),
    ("alert", "it refuses our certificate, or wants one"),
    ("wrong version number", "it does not speak TLS"),
)


def _raise_when_final(error: KafkaError, bootstrap: str) -> None:
    if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - its public name
        raise BusSignInRefused(f"the broker at {bootstrap} refuses the sign-in")
    if error.code() == KafkaError._SSL:  # noqa: SLF001 - its public name
        text = error.str().lower()
        for sign, meaning in _FINAL_TLS:
            if sign in text:
                raise BusUntrusted(f"no TLS connection to the broker at {bootstrap}: {meaning}")


def patiently(ask: Callable[[], Answer], *, what: str, timeout_s: float) -> Answer:
    """The answer of `ask`, asked again for `timeout_s` as long as it raises KafkaException; each ask may take as long.

    For questions to a broker: after a start, a failover or the making of a topic it may for a moment not lead what it
    says it leads. librdkafka's `retriable` does not tell such errors from others.

    Raises BusUnavailable with `what` and the last error.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except KafkaException as failed:
            if time.monotonic() > deadline:
                raise BusUnavailable(f"{what}: {failed.args[0].name()}") from failed
        time.sleep(0.1)


def _ends(
    bootstrap: str,
    topic: str,
    extra: Mapping[str, str],
    partitions: Sequence[int] | None,
    timeout_s: float,
    client_id: str,
) -> dict[int, int]:
    """The high watermark of each partition asked for: the offset after the last message, committed or not."""
    admin = make_admin(bootstrap, client_id=client_id, extra=extra)

    def ask() -> dict[int, int]:
        found = admin.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(found.error)
        if found.error is not None or not set(partitions or ()) <= set(found.partitions):
            missing = f"topic {topic}" if found.error is not None else f"a partition of topic {topic} asked for"
            raise TopicMismatch(f"{missing} does not exist", next_step="make the topics: drawbar topics apply")
        asked = {
            TopicPartition(topic, p): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for p in (found.partitions if partitions is None else partitions)
        }
        answers = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s)
        return {at.partition: answer.result().offset for at, answer in answers.items()}

    return patiently(ask, what=f"the end of topic {topic} cannot be read", timeout_s=timeout_s)


def _position(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    return -1 if partition is None else partition, -1 if offset is None else offset


def _made(
    client: Callable[..., Client],
    bootstrap: str,
    client_id: str,
    own: Mapping[str, Any],
    extra: Mapping[str, str],
    on_error: Callable[[KafkaError], None] | None = None,
) -> Client:
    if taken := sorted(OURS & set(extra)):
        raise SettingsError(f"bus.librdkafka may not set {', '.join(taken)}: what Drawbar promises rests on it")
    voice = _Voice(client_id, extra)

    def heard(error: KafkaError) -> None:
        voice.error(error)
        if on_error is not None:
            on_error(error)

    settings = {
        **CLIENT,
        **own,
        **extra,
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "error_cb": heard,
    }
    if client is not Consumer:
        del settings["allow.auto.create.topics"]  # known to consumers alone
    try:
        return client(settings, logger=voice)
    except KafkaException as refused:
        raise SettingsError(f"the Kafka client refuses its settings: {voice.clean(refused.args[0].str())}") from None


class _Voice:
    """What one client says, on its way to the log. librdkafka calls `log` as it would a `logging.Logger`."""

    def __init__(self, client_id: str, extra: Mapping[str, str]) -> None:
        self._log = log.bind(client_id=client_id)
        self._secrets = [value for name, value in extra.items() if value and any(part in name for part in _SECRET)]
        self._said: dict[int, float] = {}

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def log(self, level: int, text: str, *values: object) -> None:
        self._log.debug("bus.client_log", severe=level >= _LOG_WARNING, text=self.clean(text % values))

    def error(self, error: KafkaError) -> None:
        if error.fatal():
            self._log.error("bus.client_failed", error=error.name())
            return
        now = time.monotonic()
        last = self._said.get(error.code())
        if last is None or now - last > SAY_AGAIN_AFTER_S:
            self._said[error.code()] = now
            self._log.warning("bus.client_error", error=error.name(), reason=self.clean(error.str()))
        else:
            self._log.debug("bus.client_error", error=error.name())
