"""A tethered process does not outlive its parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drawbar.bus import tether
from drawbar.bus.tether import tethered
from tests.bus.test_supervisor import alive
from tests.kafka_fixture import until


class TestTethered:
    def test_becomes_the_command(self):
        """The process id, the arguments and the exit code are those of the command."""
        with subprocess.Popen(
            tethered(["sh", "-c", "echo $$ $0 $1; exit 7", "a b", "c"]), stdout=subprocess.PIPE, text=True
        ) as process:
            assert f"{process.pid} a b c\n" == process.stdout.read()
        assert 7 == process.returncode

    def test_does_not_start_when_the_parent_is_gone_already(self):
        """A parent that ended before the tie was made leaves no child."""
        ended = subprocess.run(tethered(["sleep", "60"], parent=2**22 + 1), check=False, timeout=20)

        assert 1 == ended.returncode

    @pytest.mark.parametrize("platform", ["linux", "darwin"])
    def test_ends_with_the_parent(self, tmp_path, platform):
        """By the kernel on Linux, by a watching process elsewhere."""
        child = (
            "import os, sys; sys.path.insert(0, sys.argv[1]); import tether; "
            f"tether.tie_to(int(sys.argv[2]), platform={platform!r}); os.execvp('sleep', ['sleep', '60'])"
        )
        parent = (
            "import os, subprocess, sys, time\n"
            f"child = subprocess.Popen([sys.executable, '-c', {child!r}, sys.argv[1], str(os.getpid())])\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(60)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", parent, str(Path(tether.__file__).parent)], stdout=subprocess.PIPE, text=True
        )
        with process:
            pid = int(process.stdout.readline())
            until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the child became the command")
            assert alive(pid)

            process.kill()
            process.wait()

            until(lambda: not alive(pid), "the child is gone")
