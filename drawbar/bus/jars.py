"""Have the jars of Apache Kafka: downloaded once per user by jgo, each held against the SHA-256 of `jars.lock`.

The lock names every jar, so nothing is resolved when a broker starts: jgo fetches what is missing, a few at a
time, into a staging folder; what has the pinned SHA-256 moves into the cache, the rest never does. jgo's own lock
is not used because it names the registry and needs a second JDK to sort the jars. A local Maven repository
(`~/.m2`) is read before the network. Other registries than the default are taken from jgo's settings file.

`python -m drawbar.bus.jars` resolves the roots anew and prints the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from schemas.errors import BusUnavailable, JarMismatch

KAFKA_VERSION = "4.1.2"
# `!`: not a source of versions for the others. log4j's own table would bring back the Kafka client of an older release.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3!")
LOCK = Path(__file__).with_name("jars.lock")

DOWNLOADS_AT_ONCE = 6
TIMEOUT_S = 15  # for the registry to connect, and between two pieces of a jar
TRIES = 3

Progress = Callable[[int, int], None]  # bytes there, bytes in all

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedJar:
    """One line of the lock."""

    coordinate: str  # group:artifact:version
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def read_lock(text: str) -> tuple[PinnedJar, ...]:
    """The jars of a lock: `coordinate sha256 bytes` a line, `#` for comments."""
    lines = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(PinnedJar(coordinate=c, sha256=sha256, size=int(size)) for c, sha256, size in lines)


def write_lock(jars: Iterable[PinnedJar]) -> str:
    """The text that `read_lock` reads, sorted by coordinate."""
    head = (
        f"# Apache Kafka {KAFKA_VERSION} and all it needs to run: group:artifact:version, SHA-256, bytes.\n"
        "# Made by: python -m drawbar.bus.jars\n"
    )
    return head + "".join(f"{jar.coordinate} {jar.sha256} {jar.size}\n" for jar in sorted(jars, key=_coordinate))


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/drawbar`, or `~/.cache/drawbar`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "drawbar"


def kafka_jars(*, cache: Path | None = None, on_progress: Progress | None = None) -> tuple[Path, ...]:
    """Every jar of the lock, on this machine and verified; the class path of Kafka.

    Any number of processes may ask at once: one downloads, the others wait for it. A cached jar that is not the
    pinned one any more is fetched again.

    Raises JarMismatch when a jar just downloaded is not the pinned one, BusUnavailable when it cannot be had.
    """
    return ensure(read_lock(LOCK.read_text("utf-8")), cache or default_cache(), fetch_by_jgo, on_progress)


def ensure(
    jars: tuple[PinnedJar, ...],
    cache: Path,
    fetch: Callable[[PinnedJar, Path], Path],
    on_progress: Progress | None = None,
) -> tuple[Path, ...]:
    """`kafka_jars` with the lock, the cache and the way to fetch one jar as arguments.

    `fetch(jar, folder)` puts the jar anywhere below `folder` and returns its path.
    """
    digest = hashlib.sha256(write_lock(jars).encode()).hexdigest()[:12]
    folder = cache / f"kafka-{KAFKA_VERSION}-{digest}"
    stamp = folder / "verified.json"
    paths = tuple(folder / jar.filename for jar in jars)
    if _stamped(stamp, paths):
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "jars.lock"):
            if not _stamped(stamp, paths):  # another process may have done it while we waited
                _fetch_missing(jars, folder, fetch, on_progress)
                _write_stamp(stamp, paths)
    except OSError as failed:
        raise BusUnavailable(
            f"the jars of Apache Kafka cannot be kept in {cache}: {failed.strerror or failed}",
            next_step="make room or give rights there, or set XDG_CACHE_HOME to a folder that can be written",
        ) from failed
    return paths


def fetch_by_jgo(jar: PinnedJar, folder: Path) -> Path:
    """One jar by jgo, from a local Maven repository or the registry. Raises BusUnavailable after three tries."""
    import requests  # noqa: PLC0415 - both load slowly, and only the first start on a machine needs them
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL, default_maven_repo  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    logging.getLogger("jgo").setLevel(logging.ERROR)  # it warns with addresses; our errors say what is to be said
    for attempt in range(1, TRIES + 1):
        context = MavenContext(
            repo_cache=folder / str(attempt),  # jgo leaves half a jar behind when it is cut off
            local_repos=[default_maven_repo()],
            remote_repos={**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL},
            timeout=TIMEOUT_S,
        )
        try:
            return Path(context.create_dependency(jar.coordinate).artifact.resolve())
        except (requests.RequestException, RuntimeError) as failed:
            log.debug("bus.jar_failed", jar=jar.coordinate, attempt=attempt, error=type(failed).__name__)
            cause = failed
    raise BusUnavailable(
        f"Apache Kafka is not on this machine yet and cannot be downloaded ({jar.coordinate}: {type(cause).__name__})"
    ) from cause


def resolve_roots(folder: Path) -> tuple[PinnedJar, ...]:
    """What the roots need to run, resolved anew by jgo with downloads into `folder`. Makes the lock; takes a minute."""
    from jgo.maven import MavenContext  # noqa: PLC0415

    context = MavenContext(repo_cache=folder, timeout=TIMEOUT_S)
    inputs, transitive = context.resolver.resolve([context.create_dependency(root) for root in ROOTS])

    def pin(artifact: object) -> PinnedJar:
        path = Path(artifact.resolve())  # type: ignore[attr-defined]
        coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"  # type: ignore[attr-defined]
        return PinnedJar(coordinate=coordinate, sha256=sha256_of(path), size=path.stat().st_size)

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        return tuple(pool.map(pin, [dependency.artifact for dependency in [*inputs, *transitive]]))


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _fetch_missing(
    jars: tuple[PinnedJar, ...],
    folder: Path,
    fetch: Callable[[PinnedJar, Path], Path],
    on_progress: Progress | None,
) -> None:
    total = sum(jar.size for jar in jars)
    missing = [jar for jar in jars if not _is_pinned(folder / jar.filename, jar)]
    there = total - sum(jar.size for jar in missing)
    for left_behind in folder.glob("staging-*"):  # by a process that was killed; we hold the lock
        shutil.rmtree(left_behind, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="staging-") as staging,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):

        def one(jar: PinnedJar) -> PinnedJar:
            got = fetch(jar, Path(staging))
            if not _is_pinned(got, jar):
                raise JarMismatch(f"{jar.coordinate} as downloaded is not the jar that was pinned")
            if got.is_relative_to(staging):
                got.replace(folder / jar.filename)
            else:  # a local Maven repository: its file stays
                copy = Path(staging) / f"{jar.filename}.copy"
                shutil.copyfile(got, copy)
                copy.replace(folder / jar.filename)
            return jar

        running = [pool.submit(one, jar) for jar in missing]
        try:
            for done in as_completed(running):
                there += done.result().size
                if on_progress is not None:
                    on_progress(there, total)
        finally:
            for future in running:
                future.cancel()


def _is_pinned(path: Path, jar: PinnedJar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size and sha256_of(path) == jar.sha256


def _state(paths: Iterable[Path]) -> dict[str, list[int]]:
    return {path.name: [(stat := path.stat()).st_size, stat.st_mtime_ns] for path in paths}


def _stamped(stamp: Path, paths: tuple[Path, ...]) -> bool:
    """Whether all jars are as they were when their SHA-256 was last compared, by size and time."""
    try:
        return bool(json.loads(stamp.read_text("utf-8")) == _state(paths))
    except (OSError, ValueError):
        return False


def _write_stamp(stamp: Path, paths: tuple[Path, ...]) -> None:
    new = stamp.with_suffix(".new")
    new.write_text(json.dumps(_state(paths)), "utf-8")
    new.replace(stamp)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also when the process is killed
        yield


def _coordinate(jar: PinnedJar) -> str:
    return jar.coordinate


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(write_lock(resolve_roots(Path(scratch))))
