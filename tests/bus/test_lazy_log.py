"""The log of commands: loaded when there is something to say."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from drawbar.bus.clients import log
from drawbar.lazy_log import set_up_log_when_needed
from drawbar.settings import LogSettings
set_up_log_when_needed(LogSettings(level="warning", format="json"))
log.bind(client_id="c").{level}("bus.client_error", error="_TRANSPORT")
print("structlog" in sys.modules)
"""


def run(level: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level)], capture_output=True, text=True, check=True
    )


class TestLazyLog:
    def test_is_not_loaded_for_what_is_not_said(self):
        """The clients of a command with nothing to say cost no library."""
        result = run("debug")

        assert ("False\n", "") == (result.stdout, result.stderr)

    @pytest.mark.parametrize("level", ["warning", "error"])
    def test_says_what_passes_the_level_as_the_log_does(self, level: str):
        result = run(level)

        assert "True\n" == result.stdout
        assert '"client_id": "c"' in result.stderr
        assert f'"level": "{level}"' in result.stderr
