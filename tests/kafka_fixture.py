"""The Kafka of a test session, and names in it that no other test uses.

One real Apache Kafka is started for the whole session and ended with it. `DRAWBAR_TEST_BOOTSTRAP=HOST:PORT` uses a
running broker instead; `DRAWBAR_TEST_BUS=docker` the image `apache/kafka` by testcontainers, where a Docker engine
answers. Tests that kill or restart a broker start one of their own: `own_kafka`.

To be imported by `tests/conftest.py`: `from tests.kafka_fixture import bootstrap, kafka, names, own_kafka`.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from drawbar.bus.apache import HOST, ApacheKafka, free_port
from drawbar.bus.docker import make_container


@dataclass(frozen=True, slots=True, kw_only=True)
class TestKafka:
    """A broker that tests share. `apache` is the process when it was started here, else None."""

    __test__ = False  # no class of tests, whatever its name

    bootstrap_servers: str
    apache: ApacheKafka | None = None

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def create_topic(self, name: str, *, partitions: int = 1, **config: str) -> str:
        """Make a topic and return its name once every partition can be written.

        Settings of the topic with `_` for `.`: `cleanup_policy="compact"`.
        """
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, -1, config=settings)])[name].result(30)
        await_topic(admin, name, partitions)
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of topics, groups and transactions that belong to one test."""

    prefix: str

    def __call__(self, name: str = "topic") -> str:
        return f"{self.prefix}.{name}"


def await_topic(admin: AdminClient, name: str, partitions: int, *, timeout_s: float = 30) -> None:
    """Return once the broker names a leader for every partition."""

    def led() -> bool:
        topic = admin.list_topics(name, timeout=10).topics.get(name)
        return topic is not None and [p.leader >= 0 for p in topic.partitions.values()] == [True] * partitions

    until(led, f"topic {name} has its leaders", timeout_s=timeout_s)


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 30, every_s: float = 0.02) -> None:
    """Return once `condition()` holds; fail the test, naming `what`, when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        time.sleep(every_s)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestKafka]:
    """The broker of the session."""
    if bootstrap_servers := os.environ.get("DRAWBAR_TEST_BOOTSTRAP"):
        yield TestKafka(bootstrap_servers=bootstrap_servers)
    elif os.environ.get("DRAWBAR_TEST_BUS") == "docker":
        with ExitStack() as stack:
            yield TestKafka(bootstrap_servers=_in_docker(stack))
    else:
        # compaction looks for work every 15 s by default; a test of it would wait that long
        soon = {"log.cleaner.backoff.ms": "500"}
        with ApacheKafka.start(tmp_path_factory.mktemp("kafka"), overrides=soon) as apache:
            yield TestKafka(bootstrap_servers=apache.bootstrap_servers, apache=apache)


@pytest.fixture
def bootstrap(kafka: TestKafka) -> str:
    """`HOST:PORT` of the session's broker."""
    return kafka.bootstrap_servers


@pytest.fixture
def names() -> Names:
    """A prefix of this test's own. Topics may stay when it ends: the broker goes with the session."""
    return Names(prefix=f"t-{uuid.uuid4().hex[:10]}")


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[ApacheKafka]:
    """A broker for this test alone, which may kill it. It is always a process of this machine."""
    with ApacheKafka.start(tmp_path / "kafka", heap_mb=256) as apache:
        yield apache


def _in_docker(stack: ExitStack) -> str:
    """The address of a container of `drawbar.bus.docker`."""
    container = make_container(port := free_port())
    host = container.get_container_host_ip()
    if host not in ("localhost", HOST):  # an engine elsewhere: the broker has to name that host
        container = make_container(port, host=host)
    stack.enter_context(container)
    return f"{host}:{port}"
