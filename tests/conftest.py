"""Fixtures that every test may use."""

from __future__ import annotations

from tests.kafka_fixture import bootstrap, kafka, names, own_kafka  # noqa: F401
