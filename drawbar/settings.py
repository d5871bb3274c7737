"""All settings, with their units and defaults; docs/settings.md is held against this module by a test.

A setting comes, strongest first, from the connection file of a running system, the environment (`DRAWBAR_`, nested by
`__`: `DRAWBAR_ERP__BASE_URL`), `drawbar.toml` in the working folder (or the file named by DRAWBAR_SETTINGS_FILE).
Secrets come from the environment or from a file (`…_FILE`), are kept as SecretStr and never printed.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as BrokenSetting
from typing_extensions import Self

from drawbar.setting_places import place_of, variable_of
from schemas.errors import SettingsError

# Variables with our prefix that are no settings: where the settings are, and what the tests are told.
NOT_SETTINGS = ("DRAWBAR_SETTINGS_FILE", "DRAWBAR_TEST_")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# What a setting of ours stands for; `bus.librdkafka` may not say it a second time.
_HAVE_A_SETTING = frozenset(
    {
        "security.protocol",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
    }
)


class BusSettings(_Part):
    bootstrap_servers: str = Field("", description="Kafka brokers, `host:port,…`; blank: `drawbar up` starts one here")
    partitions: int = Field(24, ge=1, description="partitions of the pair topics, fixed when they are made")
    replication_factor: int = Field(1, ge=1, description="replicas of each topic, for topics that are made")
    group_prefix: str = Field("drawbar", description="first part of every consumer group and transactional id")
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="how the brokers are spoken to: with TLS, with a sign-in by SASL, with both"
    )
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; default: the machine's")
    client_certificate_file: Path | None = Field(None, description="PEM file of our own certificate, for mutual TLS")
    client_key_file: Path | None = Field(None, description="PEM file of its private key")
    client_key_password: SecretStr | None = Field(None, description="password of the private key")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how the sign-in is done"
    )
    sasl_username: str = Field("", description="user of the sign-in")
    sasl_password: SecretStr | None = Field(None, description="password of the sign-in")
    sasl_password_file: Path | None = Field(None, description="file that holds the password")
    librdkafka: dict[str, str] = Field(
        default_factory=dict, description="further options of the Kafka client, as librdkafka names them"
    )

    @field_validator("ca_file", "client_certificate_file", "client_key_file", "sasl_password_file", mode="before")
    @classmethod
    def _blank_is_none(cls, path: object) -> object:
        """So that the environment can take away what drawbar.toml says."""
        return None if path == "" else path

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        """Each thing is said once, and nothing is said that has no effect."""
        if again := sorted(_HAVE_A_SETTING & set(self.librdkafka)):
            raise ValueError(f"librdkafka: {', '.join(again)} has a setting of its own under bus")
        tls = self.security_protocol in ("ssl", "sasl_ssl")
        sasl = self.security_protocol.startswith("sasl_")
        if not tls and (self.ca_file or self.client_certificate_file or self.client_key_file):
            raise ValueError("certificates are for a security_protocol with TLS: ssl or sasl_ssl")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            raise ValueError("client_certificate_file and client_key_file go together")
        has_password = self.sasl_password is not None or self.sasl_password_file is not None
        if sasl and not (self.sasl_username and has_password):
            raise ValueError("sasl_username and sasl_password (or sasl_password_file) are needed to sign in")
        if not sasl and (self.sasl_username or has_password):
            raise ValueError("a user and a password are for a security_protocol with SASL: sasl_ssl or sasl_plaintext")
        return self

    @property
    def extra(self) -> dict[str, str]:
        """All that is set of the connection, as librdkafka names it; holds secrets.

        Raises SettingsError when the file of the password cannot be read.
        """
        from drawbar.bus.options import client_options  # noqa: PLC0415 - it knows the settings

        return client_options(self)


class RegistrySettings(_Part):
    url: str = Field("", description="schema registry (Confluent's API); blank: schemas travel by their fingerprint")
    user: str = Field("", description="user of the registry")
    password: SecretStr | None = Field(None, description="password of the registry")
    password_file: Path | None = Field(None, description="file that holds the password")
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; default: the machine's")


class SignInSettings(_Part):
    authority: str = Field(
        "https://login.microsoftonline.com/organizations", description="address of the sign-in service and tenant"
    )
    tenant_id: str = Field("", description="tenant; part of `authority` already where that names one")
    instance_discovery: bool = Field(
        default=True, description="whether msal checks the authority against Microsoft's list; off for the sandbox"
    )


class SystemSettings(_Part):
    base_url: str = Field("", description="service root, as a client library is given it")
    scope: str = Field("", description="scope of the token, `<resource>/.default`")
    client_id: str = Field("", description="application id")
    client_secret: SecretStr | None = Field(None, description="secret of the application")
    client_secret_file: Path | None = Field(None, description="file that holds the secret")
    client_certificate_file: Path | None = Field(None, description="PEM file with private key and certificate")
    max_parallel: int = Field(4, ge=1, le=40, description="requests under way at once, per process")
    requests_per_5_min: int = Field(5400, ge=1, description="own budget, below the service's 6,000 per user")
    timeout_s: float = Field(120, gt=0, description="how long one request may take")


class ErpSettings(SystemSettings):
    company_id: str = Field("", description="the company that is kept in step")
    max_parallel: int = Field(4, ge=1, le=40, description="requests under way at once; the service runs 5 per user")


class CaptureSettings(_Part):
    poll_min_s: float = Field(0.25, gt=0, description="pause between polls of an entity that is changing")
    poll_max_s: float = Field(1.0, gt=0, description="pause between polls of a quiet entity that flows")
    reference_poll_s: float = Field(5.0, gt=0, description="pause between polls of an entity that is only looked up")
    overlap_s: float = Field(5.0, ge=0, description="how far each ERP poll reads back, for late commits")
    sweep_interval_s: float = Field(15.0, gt=0, description="pause between sweeps of all ids of an ERP entity")
    sweep_requests_per_5_min: int = Field(300, ge=1, description="request budget of the sweeps of one entity")
    page_size: int = Field(5000, ge=1, le=20000, description="rows per page")
    max_deletes: int = Field(20, ge=0, description="more deletes than this, and than the share below, stop an entity")
    max_deletes_share: float = Field(0.01, ge=0, le=1, description="share of an entity's records, with `max_deletes`")
    webhook_listen: str = Field("", description="`host:port` of the webhook receiver; blank: no webhooks")
    webhook_public_url: str = Field("", description="address of the receiver as the two systems reach it")
    webhook_secret: SecretStr | None = Field(None, description="shared secret of the webhooks")
    webhook_check_s: float = Field(300, gt=0, description="pause between checks of the ERP's subscriptions")


class DecideSettings(_Part):
    command_timeout_s: float = Field(60, gt=0, description="an unanswered command is sent again after this")
    release_per_s: float = Field(200, gt=0, description="waiting records that are released per second and process")
    batch_size: int = Field(1000, ge=1, description="messages decided in one go")
    session_timeout_s: float = Field(6, ge=6, description="how long a killed worker blocks its partitions")


class BrakeSettings(_Part):
    share: float = Field(
        0.2, gt=0, le=1, description="share of a mapping's coupled records, with `at_least`; 1: never too many"
    )
    at_least: int = Field(
        50, ge=1, description="more records than this, and than the share above, changed in one direction stop it"
    )
    window_s: float = Field(3600, gt=0, description="within so long")


class SinkSettings(_Part):
    attempts: int = Field(5, ge=1, description="tries of one request before an outage is assumed")
    backoff_base_s: float = Field(0.2, gt=0, description="first pause before a try is repeated")
    backoff_cap_s: float = Field(60, gt=0, description="longest pause between tries during an outage")
    busy_retries: int = Field(3, ge=0, description="refusals for a new version, nothing mapped changed, tried at once")


class LogSettings(_Part):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON")
    metrics_port: int = Field(0, ge=0, le=65535, description="port of a stage for `/metrics` and `/health`; 0: none")
    stands_still_s: float = Field(60, ge=5, description="from so long without progress on, `/health` answers 503")


class TraceSettings(_Part):
    endpoint: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="OTLP/HTTP address that spans are sent to, `…/v1/traces`; blank: no traces",
    )
    sample_ratio: float = Field(1.0, ge=0, le=1, description="share of the changes that are traced, from capture on")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="DRAWBAR_", env_nested_delimiter="__", frozen=True, extra="forbid", toml_file="drawbar.toml"
    )

    bus: BusSettings = Field(default_factory=BusSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    sign_in: SignInSettings = Field(default_factory=SignInSettings)
    erp: ErpSettings = Field(default_factory=ErpSettings)
    crm: SystemSettings = Field(default_factory=SystemSettings)
    ca_file: Path | None = Field(None, description="certificate authorities to trust instead of the machine's")
    mappings_dir: Path | None = Field(
        None, description="mapping files for the first start of a system; default: those shipped"
    )
    state_dir: Path = Field(Path(".drawbar"), description="local state: logs, Kafka's data, Faust's tables")
    connection_file: Path | None = Field(None, description="connection file of a running system")
    compat: Literal["drawbar", "microsoft"] = Field(
        "drawbar", description="microsoft: creates, matches, conflicts as the built-in integration's defaults"
    )
    ownership: Literal["person", "team"] = Field("person", description="who owns records that are made in the CRM")
    fingerprint_key: SecretStr = Field(
        SecretStr("drawbar"), description="key of the field fingerprints; the same for all decide processes"
    )
    observe: bool = Field(default=False, description="decide and journal, write nothing")
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    decide: DecideSettings = Field(default_factory=DecideSettings)
    brakes: BrakeSettings = Field(default_factory=BrakeSettings)
    sink: SinkSettings = Field(default_factory=SinkSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    traces: TraceSettings = Field(default_factory=TraceSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the interface of pydantic-settings
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _settings_file())


def load_settings(connection_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; what `connection_file` (or DRAWBAR_CONNECTION_FILE) says of a running system stands.

    Raises SettingsError naming each setting at fault, never its value.
    """
    path = connection_file or (
        Path(os.environ["DRAWBAR_CONNECTION_FILE"]) if os.environ.get("DRAWBAR_CONNECTION_FILE") else None
    )
    values: dict[str, Any] = dict(overrides)
    if path is not None:
        values = _merge(from_connection(read_connection(path)), values) | {"connection_file": path}
    _check_names()
    try:
        return Settings(**values)
    except ValidationError as fault:
        faults = [([str(part) for part in error["loc"]], error["msg"]) for error in fault.errors()]
        named = "; ".join(f"{'.'.join(setting)}: {message}" for setting, message in faults)
        places = dict.fromkeys(_place_of(setting, values, path) for setting, _ in faults)
        raise SettingsError(f"settings are wrong: {named}", where=", ".join(places)) from fault
    except BrokenSetting as fault:
        # pydantic-settings for a variable that should hold JSON; its text names the field, and no part of it
        found = re.search(r'field "(\w+)"', str(fault))
        where = ", ".join(_no_json(variable_of([found[1]]))) if found else "environment"
        raise SettingsError("a setting that has parts is not JSON", where=where) from fault
    except ValueError as fault:
        line = re.search(r"at line (\d+)", str(fault))  # tomllib for a file that is no TOML
        where = f"{_settings_file()}:{line[1]}" if line else _settings_file()
        raise SettingsError(f"settings cannot be read: {fault}", where=where) from fault


def _no_json(variable: str) -> list[str]:
    """The variables that set a setting with parts, or one of its parts, with a text that is no JSON."""
    names = [name for name in sorted(os.environ) if f"{name.upper()}__".startswith(f"{variable}__")]
    return [name for name in names if not _is_json(os.environ[name])] or names


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _place_of(setting: Sequence[str], given: Mapping[str, Any], connection_file: Path | None) -> str:
    file = Path(_settings_file())
    return place_of(
        setting,
        given=given,
        giver=str(connection_file or "command line"),
        environment=os.environ,
        settings_file=str(file),
        text=file.read_text(encoding="utf-8", errors="replace") if file.is_file() else "",
    )


def _settings_file() -> str:
    return os.environ.get("DRAWBAR_SETTINGS_FILE", "drawbar.toml")


def _check_names() -> None:
    """A variable that is no setting, and a settings file that is not there, are mistakes. Raises SettingsError."""
    known = {f"DRAWBAR_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if not name.startswith("DRAWBAR_") or name.startswith(NOT_SETTINGS):
            continue
        first = name.split("__", maxsplit=1)[0]
        if first not in known:
            close = difflib.get_close_matches(first, known, n=1)
            hint = f"did you mean {close[0]}?" if close else ""
            raise SettingsError("no setting has this name", where=f"environment: {name}", next_step=hint)
    if "DRAWBAR_SETTINGS_FILE" in os.environ and not Path(_settings_file()).is_file():
        raise SettingsError("there is no settings file", where=f"DRAWBAR_SETTINGS_FILE={_settings_file()}")


def read_connection(path: Path) -> dict[str, Any]:
    """The connection file of a running system.

    Raises SettingsError when it is not there or not JSON.
    """
    try:
        loaded: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise SettingsError(
            "there is no connection file", where=str(path), next_step="start a system: drawbar up --connection-file"
        ) from fault
    except (OSError, ValueError) as fault:
        raise SettingsError("the connection file cannot be read", where=str(path)) from fault
    if not isinstance(loaded, dict) or not loaded.get("bootstrap_servers"):
        raise SettingsError("this is not the connection file of a running system", where=str(path))
    return loaded


def from_connection(connection: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a connection file stands for."""

    def system(part: Mapping[str, Any]) -> dict[str, Any]:
        known = ("base_url", "scope", "client_id", "client_secret", "company_id")
        return {name: part[name] for name in known if part.get(name)}

    values: dict[str, Any] = {
        "bus": {"bootstrap_servers": connection["bootstrap_servers"]},
        "erp": system(connection.get("erp", {})),
        "crm": system(connection.get("crm", {})),
        "state_dir": connection.get("state_dir", ".drawbar"),
    }
    if connection.get("registry"):
        values["registry"] = dict(connection["registry"])
    if connection.get("sign_in"):
        values["sign_in"] = {**connection["sign_in"], "instance_discovery": False}
    if connection.get("ca_file"):
        values["ca_file"] = connection["ca_file"]
    if connection.get("partitions"):
        values["bus"]["partitions"] = connection["partitions"]
    if connection.get("librdkafka"):
        values["bus"]["librdkafka"] = dict(connection["librdkafka"])
    return values


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for name, value in right.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], value) if both else value
    return merged


def secret_of(value: SecretStr | None, file: Path | None, name: str) -> str:
    """The secret that a setting or a file holds; the file stands when both are given.

    Raises SettingsError, naming the setting `name`, when the file cannot be read or is empty.
    """
    if file is None:
        return value.get_secret_value() if value is not None else ""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as fault:
        raise SettingsError(f"{name}_file cannot be read", where=str(file)) from fault
    if not secret:
        raise SettingsError(f"{name}_file names an empty file", where=str(file))
    return secret


def interpreter() -> list[str]:
    """How `drawbar up` starts its stages: this Python, this package."""
    return [sys.executable, "-m", "drawbar"]
