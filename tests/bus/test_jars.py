"""The jars are the pinned ones, fetched once, whoever asks at the same time."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typing_extensions import Self

from drawbar.bus.apache import free_port
from drawbar.bus.jars import KAFKA_VERSION, LOCK, PinnedJar, ensure, fetch_by_jgo, read_lock, write_lock
from schemas.errors import BusUnavailable, JarMismatch


def a_jar(name: str, content: bytes) -> PinnedJar:
    return PinnedJar(coordinate=f"org.x:{name}:1.0", sha256=hashlib.sha256(content).hexdigest(), size=len(content))


CONTENT = {f"org.x:{name}:1.0": name.encode() * 100 for name in ("a", "b", "c")}
JARS = tuple(a_jar(coordinate.split(":")[1], content) for coordinate, content in CONTENT.items())


class Registry:
    """Gives out jars and counts what it gave."""

    def __init__(self, content: dict[str, bytes] = CONTENT) -> None:
        self.content = content
        self.given: list[str] = []
        self._lock = threading.Lock()

    def fetch(self, jar: PinnedJar, folder: Path) -> Path:
        with self._lock:
            self.given.append(jar.coordinate)
        path = folder / f"fetched-{jar.filename}"
        path.write_bytes(self.content[jar.coordinate])
        return path


class TestLock:
    def test_reads_what_it_writes(self):
        """The lock says the same before and after."""
        assert JARS == read_lock(write_lock(reversed(JARS)))

    def test_pins_one_kafka(self):
        """All parts of Kafka are of one version, and each file name occurs once."""
        jars = read_lock(LOCK.read_text("utf-8"))

        kafka = {jar.coordinate.split(":")[2] for jar in jars if jar.coordinate.startswith("org.apache.kafka:")}
        assert {KAFKA_VERSION} == kafka
        assert len(jars) == len({jar.filename for jar in jars})
        assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)

    def test_names_no_registry(self):
        """Where jars come from is the business of the machine."""
        assert "://" not in LOCK.read_text("utf-8")


class TestEnsure:
    def test_fetches_once(self, tmp_path):
        """The second start needs no network."""
        registry = Registry()

        paths = ensure(JARS, tmp_path, registry.fetch)

        assert list(CONTENT.values()) == [path.read_bytes() for path in paths]
        assert paths == ensure(JARS, tmp_path, Registry({}).fetch)
        assert sorted(CONTENT) == sorted(registry.given)

    def test_tells_how_far_it_is(self, tmp_path):
        """Bytes grow to their sum."""
        told: list[tuple[int, int]] = []

        ensure(JARS, tmp_path, Registry().fetch, lambda there, total: told.append((there, total)))

        assert [(100, 300), (200, 300), (300, 300)] == told

    def test_refuses_a_jar_that_is_not_the_pinned_one(self, tmp_path):
        """Other bytes never get into the class path, whatever the registry says of them."""
        bad = Registry({**CONTENT, "org.x:b:1.0": b"evil" * 25})

        with pytest.raises(JarMismatch, match=r"org\.x:b:1\.0"):
            ensure(JARS, tmp_path, bad.fetch)

        assert not list(tmp_path.rglob("b-1.0.jar"))
        assert not list(tmp_path.rglob("staging-*"))

    def test_fetches_again_what_was_changed_in_the_cache(self, tmp_path):
        """A cached jar that was cut or exchanged is noticed by its size or time, and replaced."""
        paths = ensure(JARS, tmp_path, Registry().fetch)
        paths[1].write_bytes(b"x" * 100)
        registry = Registry()

        ensure(JARS, tmp_path, registry.fetch)

        assert ["org.x:b:1.0"] == registry.given
        assert CONTENT["org.x:b:1.0"] == paths[1].read_bytes()

    def test_keeps_what_was_fetched_before_it_failed(self, tmp_path):
        """A download that was cut off goes on where it stopped, and what it left behind is cleared away."""
        left_behind = ensure(JARS, tmp_path, Registry().fetch)[0].parent / "staging-killed"
        left_behind.mkdir()
        (left_behind.parent / "verified.json").unlink()
        (left_behind.parent / "c-1.0.jar").unlink()
        registry = Registry()

        ensure(JARS, tmp_path, registry.fetch)

        assert ["org.x:c:1.0"] == registry.given
        assert not left_behind.exists()

    def test_leaves_a_local_repository_as_it_is(self, tmp_path):
        """A jar found in the user's own repository is copied, not taken."""
        own = tmp_path / "own"
        own.mkdir()

        def fetch(jar: PinnedJar, _folder: Path) -> Path:
            (own / jar.filename).write_bytes(CONTENT[jar.coordinate])
            return own / jar.filename

        ensure(JARS, tmp_path / "cache", fetch)

        assert ["a-1.0.jar", "b-1.0.jar", "c-1.0.jar"] == sorted(path.name for path in own.iterdir())

    def test_downloads_once_when_many_ask(self, tmp_path):
        """Whoever comes second waits for the first."""
        registry = Registry()

        with ThreadPoolExecutor(8) as pool:
            answers = set(pool.map(lambda _: ensure(JARS, tmp_path, registry.fetch), range(8)))

        assert 1 == len(answers)
        assert sorted(CONTENT) == sorted(registry.given)

    def test_says_what_to_do_when_the_cache_cannot_be_written(self, tmp_path):
        """A cache path that is a file is an error people can act on."""
        (tmp_path / "file").write_text("")

        with pytest.raises(BusUnavailable) as failed:
            ensure(JARS, tmp_path / "file", Registry().fetch)

        assert "XDG_CACHE_HOME" in failed.value.for_people()


class Mirror:
    """A registry on this machine: serves files by path, counts what it was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        mirror = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                body = files.get(self.path)
                self.send_response(503 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class TestFetchByJgo:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path, monkeypatch):
        """A user without settings or local repository."""
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name in ("M2_REPO", "JGO_CONFIG_FILE", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name, raising=False)

    def test_downloads_by_coordinate(self, tmp_path, monkeypatch):
        """One request for the jar, from where jgo gets its jars."""
        with Mirror({"/org/x/a/1.0/a-1.0.jar": CONTENT["org.x:a:1.0"]}) as mirror:
            monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", mirror.url)

            path = fetch_by_jgo(JARS[0], tmp_path)

        assert CONTENT["org.x:a:1.0"] == path.read_bytes()
        assert path.is_relative_to(tmp_path)
        assert 1 == mirror.asked.count("/org/x/a/1.0/a-1.0.jar")

    def test_reads_a_local_repository_first(self, tmp_path, monkeypatch):
        """What a build on this machine fetched before is not downloaded again."""
        own = tmp_path / "home" / ".m2" / "repository" / "org" / "x" / "a" / "1.0" / "a-1.0.jar"
        own.parent.mkdir(parents=True)
        own.write_bytes(CONTENT["org.x:a:1.0"])
        monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", "http://127.0.0.1:9")

        assert own == fetch_by_jgo(JARS[0], tmp_path / "staging")

    def test_tries_again_and_then_says_what_to_do(self, tmp_path, monkeypatch):
        """A registry that cannot be reached is tried three times; the error names no address."""
        monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", f"http://127.0.0.1:{free_port()}")

        with capture_logs() as said, pytest.raises(BusUnavailable, match=r"org\.x:a:1\.0") as failed:
            fetch_by_jgo(JARS[0], tmp_path)

        assert [1, 2, 3] == [line["attempt"] for line in said if line["event"] == "bus.jar_failed"]
        assert "--bus HOST:PORT" in failed.value.for_people()
        assert "http" not in failed.value.for_people()
