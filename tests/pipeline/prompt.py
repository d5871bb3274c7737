"""`drawbar` commands without the wait for their imports: a process that has them forks one child per command.

Each command has a process, standard output and exit code of its own, as when a person types it. That the command also
starts from nothing is seen wherever a test starts `drawbar up`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from drawbar.bus.tether import tethered


class Prompt:
    """Runs one command after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """`folder` is for what the commands print."""
        self._out, self._error = folder / "stdout", folder / "stderr"
        self._process = subprocess.Popen(
            tethered([sys.executable, "-m", "tests.pipeline.prompt", str(self._out), str(self._error)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )

    def run(self, *arguments: str, timeout_s: float) -> tuple[int, str, str]:
        """Exit code, standard output and standard error. Raises TimeoutError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise TimeoutError(f"drawbar {' '.join(arguments)} did not end in {timeout_s:g} s")
        code = int(self._process.stdout.readline())
        return code, self._out.read_text("utf-8"), self._error.read_text("utf-8")

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def main() -> None:
    _, out, error = sys.argv
    import processors.mapping_files  # noqa: F401 - to have them
    from drawbar.cli import main as command

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for number, path in ((1, out), (2, error)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
                code = command(json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
