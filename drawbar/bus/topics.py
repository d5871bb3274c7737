"""Hold the topic table against a broker: make what is missing, set what differs, refuse what must not change.

`plan` only looks; `apply` carries a plan out. Both may run in several processes at once and any number of times.
Only the settings that the table names are compared: what an administrator set besides is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public all the same
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from schemas.errors import BusError, BusRightMissing, BusUnavailable, TopicMismatch
from schemas.topics import TopicSpec

TIMEOUT_S = 30.0

# What a broker says when it cannot yet; `KafkaError.retriable` is false for these.
_LATER = frozenset(
    {
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)

# What a broker says to a user without the right.
FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTopic:
    """A topic that will be made."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSetting:
    """A topic setting that will be set."""

    topic: str
    setting: str
    now: str
    wanted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongPartitions:
    """A topic whose partition count is not the table's. It cannot be changed: keys would move to other partitions."""

    topic: str
    now: int
    wanted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    """What lies between the broker and the table."""

    missing: tuple[MissingTopic, ...]
    changes: tuple[ChangedSetting, ...]
    refused: tuple[WrongPartitions, ...]
    unchanged: tuple[str, ...]
    replication_factor: int

    @property
    def empty(self) -> bool:
        return not (self.missing or self.changes or self.refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingTopic:
    """A topic as the broker has it."""

    partitions: int
    config: Mapping[str, str]


def wanted_config(spec: TopicSpec) -> dict[str, str]:
    """The topic settings that a line of the table stands for."""
    config = {
        "cleanup.policy": spec.cleanup,
        "retention.ms": str(-1 if spec.retention_ms is None else spec.retention_ms),
    }
    if spec.segment_ms is not None:
        config["segment.ms"] = str(spec.segment_ms)
    return config


def compare(
    table: Iterable[TopicSpec],
    existing: Mapping[str, ExistingTopic],
    *,
    partitions: int,
    replication_factor: int = 1,
) -> TopicPlan:
    """The plan for a broker that has `existing`. `partitions` is the installation's number. Pure."""
    missing: list[MissingTopic] = []
    changes: list[ChangedSetting] = []
    refused: list[WrongPartitions] = []
    unchanged: list[str] = []
    for spec in table:
        count = partitions if spec.partitions is None else spec.partitions
        config = wanted_config(spec)
        topic = existing.get(spec.name)
        if topic is None:
            missing.append(MissingTopic(name=spec.name, partitions=count, config=config))
            continue
        differing = [
            ChangedSetting(topic=spec.name, setting=setting, now=topic.config.get(setting, ""), wanted=wanted)
            for setting, wanted in config.items()
            if _normal(topic.config.get(setting, "")) != _normal(wanted)
        ]
        changes += differing
        if topic.partitions != count:
            refused.append(WrongPartitions(topic=spec.name, now=topic.partitions, wanted=count))
        elif not differing:
            unchanged.append(spec.name)
    return TopicPlan(
        missing=tuple(missing),
        changes=tuple(changes),
        refused=tuple(refused),
        unchanged=tuple(unchanged),
        replication_factor=replication_factor,
    )


def plan(admin: AdminClient, table: Iterable[TopicSpec], *, partitions: int, replication_factor: int = 1) -> TopicPlan:
    """What `apply` would do now. Raises BusUnavailable when the broker does not answer."""
    specs = tuple(table)
    existing = _existing(admin, [spec.name for spec in specs])
    return compare(specs, existing, partitions=partitions, replication_factor=replication_factor)


def apply(admin: AdminClient, table: Iterable[TopicSpec], *, partitions: int, replication_factor: int = 1) -> TopicPlan:
    """Bring the broker to the table and return what was done; when it returns, every topic can be written.

    Changes nothing when any topic must be refused. Raises TopicMismatch then; BusUnavailable when the broker does not
    answer, BusError when it refuses.
    """
    specs = tuple(table)
    todo = plan(admin, specs, partitions=partitions, replication_factor=replication_factor)
    if todo.refused:
        raise _mismatch(todo.refused)
    _create(admin, todo)
    _alter(admin, todo.changes)
    _await_leaders(admin, {missing.name: missing.partitions for missing in todo.missing})
    for missing in todo.missing:
        log.info("bus.topic_made", topic=missing.name, partitions=missing.partitions)
    for change in todo.changes:
        log.info("bus.topic_changed", topic=change.topic, setting=change.setting, now=change.wanted)
    return todo


def missing_rights(admin: AdminClient, topics: Iterable[str], groups: Iterable[str]) -> list[str]:
    """What the stages need on these topics and groups and we may not, one text each: `write on topic journal`.

    A topic or group that is not there yet is not looked at, nor is what a broker without rights of its own answers.
    Raises BusUnavailable when the broker does not answer.
    """
    faults: list[str] = []
    described: Mapping[str, Any] = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    for name, answer in described.items():
        faults += _lacking(answer, f"topic {name}", (AclOperation.READ, AclOperation.WRITE))
    of_groups: Mapping[str, Any] = admin.describe_consumer_groups(
        list(groups), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    for name, answer in of_groups.items():
        faults += _lacking(answer, f"group {name}", (AclOperation.READ,))
    return faults


def _lacking(answer: Any, of: str, needed: Iterable[AclOperation]) -> list[str]:
    try:
        allowed = answer.result(TIMEOUT_S).authorized_operations
    except KafkaException as failed:
        error = failed.args[0]
        if error.code() in FORBIDDEN:
            return [f"describe on {of}"]
        if error.code() in _LATER or error.code() == KafkaError._TRANSPORT:  # noqa: SLF001 - its public name
            raise _refusal(f"the rights on {of} cannot be asked for", error) from failed
        return []  # not there, or a broker that does not tell
    return [f"{operation.name.lower()} on {of}" for operation in needed if allowed and operation not in allowed]


def _create(admin: AdminClient, todo: TopicPlan) -> None:
    if not todo.missing:
        return
    new = [
        NewTopic(topic.name, topic.partitions, todo.replication_factor, config=dict(topic.config))
        for topic in todo.missing
    ]
    answers = admin.create_topics(new, operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S)
    for name, answer in answers.items():
        try:
            answer.result(TIMEOUT_S)
        except KafkaException as failed:  # noqa: PERF203 - each topic has its own answer
            if failed.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise _refusal(f"topic {name} cannot be made", failed.args[0]) from failed


def _alter(admin: AdminClient, changes: Iterable[ChangedSetting]) -> None:
    entries: dict[str, list[ConfigEntry]] = {}
    for change in changes:
        entries.setdefault(change.topic, []).append(
            ConfigEntry(change.setting, change.wanted, incremental_operation=AlterConfigOpType.SET)
        )
    if not entries:
        return
    resources = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=settings) for topic, settings in entries.items()
    ]
    for resource, answer in admin.incremental_alter_configs(resources, request_timeout=TIMEOUT_S).items():
        try:
            answer.result(TIMEOUT_S)
        except KafkaException as failed:  # noqa: PERF203 - each topic has its own answer
            raise _refusal(f"the settings of topic {resource.name} cannot be changed", failed.args[0]) from failed


def _await_leaders(admin: AdminClient, made: Mapping[str, int]) -> None:
    """Return once every partition has a leader. Refuses what another process made with another partition count."""
    deadline = time.monotonic() + TIMEOUT_S
    while made:
        topics = _metadata(admin)
        wrong = tuple(
            WrongPartitions(topic=name, now=len(topics[name].partitions), wanted=count)
            for name, count in made.items()
            if name in topics and topics[name].partitions and len(topics[name].partitions) != count
        )
        if wrong:
            raise _mismatch(wrong)
        made = {
            name: count
            for name, count in made.items()
            if name not in topics or sum(p.leader >= 0 for p in topics[name].partitions.values()) != count
        }
        if made and time.monotonic() > deadline:
            raise BusUnavailable(
                f"no broker took the lead of topic {min(made)} in {TIMEOUT_S:g} s", next_step="look at the brokers"
            )
        if made:
            time.sleep(0.05)


def _existing(admin: AdminClient, names: list[str]) -> dict[str, ExistingTopic]:
    topics = _metadata(admin)
    there = [name for name in names if name in topics and topics[name].error is None]
    if not there:
        return {}
    answers = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in there], request_timeout=TIMEOUT_S
    )
    found = {}
    for resource, answer in answers.items():
        try:
            entries = answer.result(TIMEOUT_S)
        except KafkaException as failed:
            if failed.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:  # removed a moment ago
                continue
            raise _refusal(f"the settings of topic {resource.name} cannot be read", failed.args[0]) from failed
        config = {name: entry.value or "" for name, entry in entries.items()}
        found[resource.name] = ExistingTopic(partitions=len(topics[resource.name].partitions), config=config)
    return found


def _metadata(admin: AdminClient) -> Mapping[str, TopicMetadata]:
    try:
        topics: Mapping[str, TopicMetadata] = admin.list_topics(timeout=TIMEOUT_S).topics
    except KafkaException as failed:
        raise _refusal("the topics cannot be listed", failed.args[0]) from failed
    return topics


def _normal(value: str) -> frozenset[str]:
    """Equal for equal settings: `compact,delete` is `delete,compact`."""
    return frozenset(part.strip() for part in value.split(","))


def _mismatch(refused: Iterable[WrongPartitions]) -> TopicMismatch:
    listed = ", ".join(f"{wrong.topic} has {wrong.now}, not {wrong.wanted}" for wrong in refused)
    return TopicMismatch(f"partition counts differ from the table and cannot be changed: {listed}")


def _refusal(what: str, error: KafkaError) -> BusError:
    """BusUnavailable for what may come later, BusRightMissing for what we may not, BusError for what it will not do."""
    if error.code() in FORBIDDEN:
        return BusRightMissing(f"{what}: {error.name()}")
    if error.code() in _LATER or error.code() < 0:  # below zero: said by the client itself, no broker answered
        return BusUnavailable(f"{what}: {error.name()}")
    return BusError(f"{what}: {error.name()}: {error.str()}")
