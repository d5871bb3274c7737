"""A sandbox in a thread, and hands to change what is in it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from drawbar.clock import SystemClock
from drawbar.odata import ODataHttp, open_http
from drawbar.sandbox.server import SandboxOptions, start_in_thread
from drawbar.settings import Settings, from_connection
from schemas.records import System

SETS = {System.ERP: "customers", System.CRM: "accounts"}
NAMES = {System.ERP: "displayName", System.CRM: "name"}
ENTITIES = {System.ERP: "customer", System.CRM: "account"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """Somebody who works in the two systems, beside Drawbar."""

    info: dict[str, Any]
    session: requests.Session

    def control(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.session.request(
            method,
            f"{self.info['control_url']}/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.info['control_token']}"},
            timeout=10,
        )
        assert 200 == reply.status_code, reply.text
        return reply.json()

    def edit(self, system: System, **change: Any) -> Any:
        app = self.info[system.value]["other_app"]["client_id"]
        edit = {"system": system.value, "set": SETS[system], "app": app, **change}
        return self.control("POST", "edit", edit)[0]

    def create(self, system: System, name: str = "A new one") -> str:
        record_id = str(uuid.uuid4())
        self.edit(system, id=record_id, values={NAMES[system]: name})
        return record_id

    def rename(self, system: System, record_id: str, name: str, **how: Any) -> None:
        self.edit(system, id=record_id, values={NAMES[system]: name}, **how)

    def delete(self, system: System, record_id: str) -> None:
        self.edit(system, id=record_id, delete=True)

    def truth(self, system: System) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.control("GET", f"truth/{system.value}/{SETS[system]}")
        return rows

    def fault(self, **rule: Any) -> None:
        self.control("POST", "faults", [rule])

    def settings(self, **more: Any) -> Settings:
        connection = {**self.info, "bootstrap_servers": more.pop("bootstrap_servers", "")}
        return Settings(**from_connection(connection), **more)


@contextmanager
def sandbox(folder: Path, switches: Mapping[str, Any] | None = None) -> Iterator[Hands]:
    options = SandboxOptions(
        state_dir=folder, limits=False, erp_webhook_delay_s=0.1, crm_webhook_delay_s=0.1, switches=switches or {}
    )
    info, stop = start_in_thread(options)
    with requests.Session() as session:
        session.trust_env = False  # a machine's own certificate bundle would win over ours
        session.verify = str(info["ca_file"])
        try:
            yield Hands(info=info, session=session)
        finally:
            stop()


@contextmanager
def clients(hands: Hands) -> Iterator[Callable[[System], ODataHttp]]:
    opened: dict[System, ODataHttp] = {}

    def client(system: System) -> ODataHttp:
        if system not in opened:
            opened[system] = open_http(hands.settings(), system)
        return opened[system]

    yield client
    for http in opened.values():
        http.close()


CLOCK = SystemClock()
