"""What stands in deploy/ is what an installation would use."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawbar.settings import load_settings

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"


class TestExampleSettings:
    def test_are_settings(self, monkeypatch: pytest.MonkeyPatch):
        """Every name in the example is one, and the secrets come from files."""
        monkeypatch.setenv("DRAWBAR_SETTINGS_FILE", str(DEPLOY / "drawbar.toml"))
        monkeypatch.delenv("DRAWBAR_CONNECTION_FILE", raising=False)
        settings = load_settings()

        assert 3 == settings.bus.replication_factor
        assert None is settings.erp.client_secret
        assert Path("/etc/drawbar/crm-secret") == settings.crm.client_secret_file


class TestUnit:
    def test_starts_a_command_that_exists(self):
        (start,) = [
            line for line in (DEPLOY / "drawbar.service").read_text().splitlines() if line.startswith("ExecStart=")
        ]

        assert start.endswith("/drawbar up --state-dir /var/lib/drawbar")
