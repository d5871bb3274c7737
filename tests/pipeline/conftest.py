"""One installation per test module: starting one takes longer than most of what is tested on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.kafka_fixture import _in_docker
from tests.pipeline.installation import Installation

StartInstallation = Callable[..., Installation]


@pytest.fixture(scope="module")
def start_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartInstallation]:
    """Start `drawbar up` with some arguments on an empty sandbox; all of it ends with the module.

    Its Kafka is its own, or with DRAWBAR_TEST_BUS=docker a container of its own, unless `local_kafka`. The names of
    topics are fixed, so two installations cannot share a broker.
    """
    with ExitStack() as stack:

        def start(
            *arguments: str, local_kafka: bool = False, settings: Mapping[str, str] | None = None
        ) -> Installation:
            in_docker = os.environ.get("DRAWBAR_TEST_BUS") == "docker" and not local_kafka
            bus = _in_docker(stack) if in_docker else None
            made = Installation(tmp_path_factory.mktemp("pipeline"), bus=bus, settings=settings)
            stack.callback(made.end)
            made.start(*arguments)
            return made

        yield start


@pytest.fixture(scope="module")
def system(start_installation: StartInstallation, request: pytest.FixtureRequest) -> Installation:
    """The installation of the module, with two salespeople who have a user. `UP` in the module: arguments for `up`;
    `SETTINGS`: environment of `up` and of commands.
    """
    module = request.module
    made = start_installation(*getattr(module, "UP", ()), settings=getattr(module, "SETTINGS", None))
    made.person("AA", first="Ada", last="Aalto")
    made.person("BB", first="Bo", last="Berg")
    made.wait_quiet()
    return made
