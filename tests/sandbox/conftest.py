"""Sandboxes for the tests: certificates are made once, a sandbox once per file, rules are lifted after each test."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drawbar.sandbox.certificates import ensure_certificates
from drawbar.sandbox.server import SandboxOptions, start_in_thread
from tests.sandbox.client import Client, Control, Info


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ensure_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def start(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Info]]:
    """Starts sandboxes that end with the file's tests."""
    stops: list[Callable[[], None]] = []

    def started(**options: Any) -> Info:
        folder = tmp_path_factory.mktemp("sandbox")
        shutil.copytree(certificates, folder, dirs_exist_ok=True)
        info, stop = start_in_thread(SandboxOptions(state_dir=folder, **options))
        stops.append(stop)
        return info

    yield started
    for stop in stops:
        stop()


@pytest.fixture
def running(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A sandbox that ends with its `with` block, so that another one can take its `db`."""

    @contextmanager
    def running(**options: Any) -> Iterator[Info]:
        folder = tmp_path_factory.mktemp("sandbox")
        shutil.copytree(certificates, folder, dirs_exist_ok=True)
        info, stop = start_in_thread(SandboxOptions(state_dir=folder, **options))
        try:
            yield info
        finally:
            stop()

    return running


@pytest.fixture(scope="module")
def info(start: Callable[..., Info]) -> Info:
    return start(seed="demo", limits=False, erp_webhook_delay_s=0.2)


@pytest.fixture(scope="module")
def control(info: Info) -> Iterator[Control]:
    made = Control(info)
    yield made
    made.close()


@pytest.fixture(scope="module")
def erp(info: Info) -> Iterator[Client]:
    client = Client(info, "erp")
    yield client
    client.close()


@pytest.fixture(scope="module")
def crm(info: Info) -> Iterator[Client]:
    client = Client(info, "crm")
    yield client
    client.close()


class Receiver:
    """A webhook receiver that keeps what it got and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.status = 200
        self.handshakes = 0
        self.verbs: list[str] = []  # of the handshakes
        self.together = threading.Barrier(1)  # how many handshakes wait for each other
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                _, _, token = self.path.partition("validationToken=")
                if token:
                    receiver.handshakes += 1
                    receiver.verbs.append(self.command)
                    receiver.together.wait(10)
                    self._answer(200, token.encode())
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append(({**headers, "path": self.path}, json.loads(body)))
                self._answer(receiver.status, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()
