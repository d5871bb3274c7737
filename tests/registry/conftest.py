"""One registry for all tests of a worker that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.server import registry_server


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry_server(tmp_path_factory.mktemp("registry") / "registry.log") as url:
        yield url
