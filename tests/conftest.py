"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from drawbar import lazy_log
from tests.kafka_fixture import bootstrap, kafka, names, own_kafka  # noqa: F401


@pytest.fixture(autouse=True)
def log_as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """How the commands of another test set up the log is not remembered."""
    monkeypatch.setattr(lazy_log, "_not_set_up", [])
    before = structlog.get_config()
    yield
    structlog.configure(**before)
