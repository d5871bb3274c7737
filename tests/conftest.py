"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from drawbar import lazy_log
from tests.kafka_fixture import bootstrap, kafka, names, own_kafka  # noqa: F401

settings.register_profile("drawbar", deadline=None)  # how long a test takes says more of the machine than of the code
settings.load_profile("drawbar")

INSTALLATIONS = "tests/pipeline/"
_INSTALLATIONS = sorted(
    f"{INSTALLATIONS}{path.name}" for path in Path(__file__).with_name("pipeline").glob("test_*.py")
)


@pytest.fixture(autouse=True)
def log_as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """How the commands of another test set up the log is not remembered."""
    monkeypatch.setattr(lazy_log, "_not_set_up", [])
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class _Modules(LoadScopeScheduling):
    """Which tests stay together when workers share them. A module stays whole: its tests share what they have started.
    Whole installations are two parts, since more than two of them at a time would fight for the machine.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::", 1)[0]
        if module not in _INSTALLATIONS:
            return module
        return f"{INSTALLATIONS}{_INSTALLATIONS.index(module) % 2}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Modules:
    return _Modules(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Installations first: they take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(INSTALLATIONS))
