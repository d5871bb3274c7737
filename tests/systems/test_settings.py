"""Settings: what is said of one that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drawbar.setting_places import line_of
from drawbar.settings import BusSettings, load_settings
from schemas.errors import SettingsError

TOML = """\
compat = "drawbar"  # erp = no header

[erp]
base_url = "https://erp.example"
max_parallel = 99

[bus]
librdkafka."socket.timeout.ms" = "9000"
"""


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("DRAWBAR_"):
            monkeypatch.delenv(name)


def refused(**overrides: object) -> SettingsError:
    with pytest.raises(SettingsError) as fault:
        load_settings(**overrides)  # type: ignore[arg-type]
    assert "99" not in str(fault.value)
    return fault.value


class TestLineOf:
    @pytest.mark.parametrize(
        ("setting", "line"),
        [
            (("compat",), 1),
            (("erp", "max_parallel"), 5),
            (("erp", "nonsense"), 3),
            (("bus", "librdkafka", "x"), 7),
            (("crm", "scope"), 0),
        ],
    )
    def test_is_that_of_the_key_or_of_its_table(self, setting, line):
        assert line == line_of(setting, TOML)


class TestLoadSettings:
    def test_lets_a_blank_variable_take_away_what_the_file_says(self, monkeypatch: pytest.MonkeyPatch):
        """As a container does that speaks to its Kafka in plain text."""
        Path("drawbar.toml").write_text('[bus]\nsecurity_protocol = "ssl"\nca_file = "/etc/ca.pem"\n', "utf-8")
        monkeypatch.setenv("DRAWBAR_BUS__SECURITY_PROTOCOL", "plaintext")
        monkeypatch.setenv("DRAWBAR_BUS__CA_FILE", "")

        assert None is load_settings().bus.ca_file

    def test_names_the_variable_that_is_wrong(self, monkeypatch: pytest.MonkeyPatch):
        """The very variable, above the file."""
        Path("drawbar.toml").write_text(TOML)
        monkeypatch.setenv("DRAWBAR_ERP__MAX_PARALLEL", "99")

        assert "DRAWBAR_ERP__MAX_PARALLEL" == refused().where

    def test_names_file_and_line(self):
        Path("drawbar.toml").write_text(TOML)

        assert "drawbar.toml:5" == refused().where

    def test_names_file_and_line_of_a_key_that_is_no_setting(self):
        Path("drawbar.toml").write_text(TOML.replace("max_parallel = 99", "max_paralel = 4"))

        fault = refused()

        assert ("drawbar.toml:5", True) == (fault.where, "erp.max_paralel" in fault.message)

    def test_names_each_of_several(self, monkeypatch: pytest.MonkeyPatch):
        Path("drawbar.toml").write_text(TOML)
        monkeypatch.setenv("DRAWBAR_BUS__PARTITIONS", "0")

        assert {"DRAWBAR_BUS__PARTITIONS", "drawbar.toml:5"} == set(refused().where.split(", "))

    def test_names_the_line_of_a_file_that_is_no_toml(self):
        Path("drawbar.toml").write_text("[erp]\nbase_url = https://x\n")

        assert "drawbar.toml:2" == refused().where

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("DRAWBAR_BUS", "{nonsense"),
            ("DRAWBAR_BUS__LIBRDKAFKA", "{nonsense"),
            ("DRAWBAR_ERP", '{"max_parallel": 99}'),
        ],
    )
    def test_names_a_variable_that_holds_a_whole_part(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str):
        """JSON, whole or broken."""
        monkeypatch.setenv(name, value)

        assert name == refused().where

    def test_says_what_came_with_the_command(self):
        """An option is no variable."""
        assert "command line" == refused(compat="none").where


SIGN_IN = {"security_protocol": "sasl_ssl", "sasl_username": "u", "sasl_password": "hidden"}


class TestBusSettings:
    def test_become_the_options_of_the_client(self):
        """As librdkafka names them; what has no setting of ours is handed on."""
        bus = BusSettings.model_validate({**SIGN_IN, "ca_file": "ca.pem", "librdkafka": {"socket.timeout.ms": "1"}})

        assert {
            "security.protocol": "sasl_ssl",
            "ssl.ca.location": "ca.pem",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "u",
            "sasl.password": "hidden",
            "socket.timeout.ms": "1",
        } == bus.extra

    def test_do_not_show_the_password(self):
        bus = BusSettings.model_validate(SIGN_IN)

        assert "hidden" not in repr(bus) + bus.model_dump_json()

    def test_say_that_the_file_of_the_password_is_not_there(self, tmp_path):
        bus = BusSettings.model_validate({**SIGN_IN, "sasl_password_file": tmp_path / "none"})

        with pytest.raises(SettingsError, match=r"bus\.sasl_password_file cannot be read"):
            _ = bus.extra

    @pytest.mark.parametrize(
        ("given", "fault"),
        [
            ({"security_protocol": "sasl_ssl", "sasl_username": "u"}, "are needed to sign in"),
            ({"sasl_username": "u", "sasl_password": "hidden"}, "are for a security_protocol with SASL"),
            ({"ca_file": "ca.pem"}, "are for a security_protocol with TLS"),
            ({"security_protocol": "ssl", "client_key_file": "key.pem"}, "go together"),
            ({"librdkafka": {"sasl.password": "hidden"}}, "has a setting of its own"),
        ],
    )
    def test_say_each_thing_once_and_nothing_without_effect(self, given, fault):
        fault_of = refused(bus=given)

        assert fault in fault_of.message
        assert "hidden" not in fault_of.for_people()
