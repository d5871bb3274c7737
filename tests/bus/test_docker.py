"""Apache Kafka in a container: what it is told, and what is said where no engine answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from drawbar.bus import docker
from drawbar.bus.apache import broker_settings, free_port
from drawbar.cli import main
from schemas.errors import BusUnavailable


@pytest.fixture
def no_engine(monkeypatch):
    """An address that nobody listens on."""
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port()}")


class TestContainerEnvironment:
    def test_tells_the_image_our_settings(self):
        """`KAFKA_` and the setting's name, for every one of them."""
        told = docker.container_environment(9092)

        assert {"KAFKA_" + name.upper().replace(".", "_") for name in broker_settings_of(9092)} == set(told)
        assert "false" == told["KAFKA_AUTO_CREATE_TOPICS_ENABLE"]

    def test_names_the_port_as_clients_reach_it(self):
        """The same number inside and outside; the controller is for the container alone."""
        told = docker.container_environment(9092, host="docker-host")

        assert "CLIENTS://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093" == told["KAFKA_LISTENERS"]
        assert "CLIENTS://docker-host:9092" == told["KAFKA_ADVERTISED_LISTENERS"]


def broker_settings_of(port: int) -> dict[str, str]:
    return broker_settings(port=port, controller_port=docker.CONTROLLER_PORT, log_dirs="")


class TestPrepare:
    def test_says_that_no_engine_answers(self, no_engine):
        with pytest.raises(BusUnavailable, match="no Docker engine answers"):
            docker.prepare()

    def test_has_a_process_of_ours_keep_the_container(self, monkeypatch):
        """So that it goes when we go."""
        monkeypatch.setattr(docker, "_ask_engine", lambda: None)
        prepared = docker.prepare(port=9092)

        assert ("-m", "drawbar.bus.docker", "--port", "9092") == prepared.argv[1:]
        assert "127.0.0.1:9092" == prepared.bootstrap_servers


class TestCommands:
    @pytest.fixture(autouse=True)
    def _log(self) -> Iterator[None]:
        """What a command sets up is not left to the next test."""
        yield
        structlog.reset_defaults()

    @pytest.mark.parametrize("command", [["bus"], ["up", "--sandbox"]])
    def test_end_with_the_coded_error(self, no_engine, command, capfd, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        assert 3 == main([*command, "--bus", "docker"])
        assert "DRW-5001 no Docker engine answers on this machine" in capfd.readouterr().err

    def test_tell_apart_what_they_know(self, capfd):
        assert 2 == main(["bus", "--bus", "rabbit"])
        assert "kafka, embedded, docker" in capfd.readouterr().err

    def test_refuse_a_bus_without_memory_for_real_systems(self, capfd):
        """Couplings that are gone at the next start are worse than no start."""
        assert 2 == main(["up", "--bus", "embedded"])
        assert "it is for the sandbox" in capfd.readouterr().err
