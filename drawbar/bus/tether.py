"""Run a command so that it does not outlive the process that started it, however that one ends.

`tethered(argv)` is `argv` behind a short Python program that ties itself to its parent and then becomes the command:
the process id stays, and no code runs between fork and exec in a process that has threads.

On Linux the kernel does it (`PR_SET_PDEATHSIG`, kept across exec). It counts the *thread* that started the child as
its parent: start children from a thread that lives as long as they shall. Elsewhere a small watcher process looks
once a second whether the parent is still there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LOOK_EVERY_S = 1.0


def tethered(argv: Sequence[str], *, parent: int | None = None) -> list[str]:
    """The command line that runs `argv` and ends with this process (or with `parent`), by SIGKILL.

    `argv[0]` is looked up on PATH.
    """
    # -I -S: no site packages, no environment; it starts in 15 ms and nothing of ours can break it
    return [sys.executable, "-I", "-S", __file__, str(os.getpid() if parent is None else parent), *argv]


def tie_to(parent: int, *, platform: str = sys.platform) -> None:
    """Have this process killed when `parent`, which must have started it, ends."""
    if platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        _watch(parent, os.getpid())
    if os.getppid() != parent:  # it ended before we were tied
        os._exit(1)


def _watch(parent: int, child: int) -> None:
    """Fork a process that kills `child` once `parent` is gone, and ends when either is."""
    if os.fork():
        return
    while os.getppid() == child:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(LOOK_EVERY_S)
    os._exit(0)


def main() -> None:
    _, parent, *argv = sys.argv
    tie_to(int(parent))
    os.execvp(argv[0], argv)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
