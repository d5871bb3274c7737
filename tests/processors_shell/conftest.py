"""One broker for all tests of the shell, since the names of the topics are fixed; fresh topics for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drawbar.bus.apache import ApacheKafka
from tests.processors_shell.running import Running


@pytest.fixture(scope="package")
def shell_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with ApacheKafka.start(tmp_path_factory.mktemp("shell-kafka"), heap_mb=256) as apache:
        yield apache


@pytest.fixture
def running(shell_kafka: ApacheKafka, tmp_path: Path) -> Iterator[Running]:
    running = Running(shell_kafka.bootstrap_servers, tmp_path)
    running.fresh_topics()
    yield running
    running.end_all()
