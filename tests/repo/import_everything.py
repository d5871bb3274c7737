"""A program: imports every module of Drawbar, and prints as JSON what our own lines did meanwhile that they must not.

An import is not to read the environment, the clock or a file, to write one, to start a process or to open a
connection. What libraries do when they are imported is theirs; so is what the import system does to find a module.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "processors", "producers", "consumers", "drawbar")
OURS = tuple(f"{ROOT / package}{os.sep}" for package in PACKAGES)
LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120 - as frames write it
SEEN: list[str] = []


def culprit() -> str:
    """The line of ours that is behind the call, through the standard library at most; blank when there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OURS):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno}"
        if name.startswith("<frozen importlib") or "site-packages" in name:
            return ""
        if not name.startswith((LIBRARY, "<frozen", __file__)):
            return ""
        frame = frame.f_back
    return ""


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.mkdir", "os.listdir") and (
        where := culprit()
    ):
        SEEN.append(f"{where} {event} {arguments[0] if arguments else ''}")
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("there is no network here")


class WatchedEnvironment(dict[str, str]):
    def __getitem__(self, name: str) -> str:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self._note(str(name))
        return super().__contains__(name)

    def _note(self, name: str) -> None:
        if where := culprit():
            SEEN.append(f"{where} reads {name} from the environment")


def watched(name: str, clock: Callable[[], Any]) -> Callable[[], Any]:
    def read() -> Any:
        if where := culprit():
            SEEN.append(f"{where} reads the clock by {name}")
        return clock()

    return read


def main() -> None:
    sys.dont_write_bytecode = True
    names = [
        module.name
        for module in pkgutil.walk_packages([str(ROOT)], onerror=lambda _: None)
        if module.name.split(".")[0] in PACKAGES and not module.name.endswith("__main__")
    ]
    sys.addaudithook(audit)
    os.environ = WatchedEnvironment(os.environ)  # type: ignore[assignment]  # noqa: B003 - every reader is to be seen
    for name in ("time", "monotonic", "time_ns", "perf_counter"):
        setattr(time, name, watched(name, getattr(time, name)))
    SEEN.clear()
    for name in names:
        importlib.import_module(name)
    sys.stdout.write(json.dumps({"modules": names, "seen": SEEN}))


if __name__ == "__main__":
    main()
