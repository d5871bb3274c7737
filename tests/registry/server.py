"""A real schema registry for tests: Apicurio by its Confluent-compatible address, fetched once per user and pinned."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL

from drawbar.bus.apache import free_port
from drawbar.bus.jars import default_cache
from drawbar.bus.java import find_java
from drawbar.bus.tether import tethered
from tests.kafka_fixture import until

VERSION = "2.6.13.Final"
NAME = f"apicurio-registry-app-{VERSION}"
SHA256 = "3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba"
API = "apis/ccompat/v7"
START_S = 90


def fetched() -> Path:
    """The folder of the registry's program. Any number of processes may ask at once."""
    cache = default_cache()
    folder = cache / NAME
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "apicurio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _unpack(cache, folder)
    return folder


def _unpack(cache: Path, folder: Path) -> None:
    root = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}["central"].rstrip("/")
    archive, part = cache / f"{NAME}.tar.gz", cache / f"{NAME}.part"
    reply = requests.get(
        f"{root}/io/apicurio/apicurio-registry-app/{VERSION}/{NAME}-all.tar.gz", stream=True, timeout=60
    )
    reply.raise_for_status()
    digest = hashlib.sha256()
    with archive.open("wb") as file:
        for chunk in reply.iter_content(1 << 20):
            digest.update(chunk)
            file.write(chunk)
    assert SHA256 == digest.hexdigest()
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(part)
    archive.unlink()
    part.rename(folder)


@contextmanager
def registry_server(log: Path) -> Iterator[str]:
    """Start one that keeps everything in memory; the URL that a client is given."""
    port = free_port()
    jar = fetched() / f"{NAME}-runner.jar"
    argv = [
        str(find_java().path),
        "-Xmx256m",
        "-XX:TieredStopAtLevel=1",
        f"-Dquarkus.http.port={port}",
        "-Dquarkus.http.host=127.0.0.1",
        "-jar",
        str(jar),
    ]
    url = f"http://127.0.0.1:{port}/{API}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAWBAR_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            tethered(argv), stdout=out, stderr=subprocess.STDOUT, cwd=log.parent, env=environment
        )
    try:
        until(lambda: _answers(url, process), "the registry answers", timeout_s=START_S, every_s=0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the registry ended"
    session = requests.Session()
    session.trust_env = False
    try:
        return session.get(f"{url}/subjects", timeout=2).ok
    except requests.RequestException:
        return False
