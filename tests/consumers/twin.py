"""A system in memory behind the HTTP port: as much of each wire protocol as the sinks use, and faults on demand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from drawbar.entities import ZERO_GUID, Entity, SystemAdapter
from drawbar.ports import Http, NoReply, Reply
from schemas.records import System

Row = dict[str, Any]


class Twin:
    """Implements the HTTP port for one entity of one system."""

    def __init__(self, adapter: SystemAdapter, entity: Entity, fields: Sequence[str]) -> None:
        self.adapter = adapter
        self.entity = entity
        self.rows: dict[str, Row] = {}
        self.unreadable = False  # the right to read was taken away
        self.writes = 0
        self._blank = dict.fromkeys(fields, "" if self.is_erp else None)  # a column is there, filled or not
        self._version = 1000

    @property
    def is_erp(self) -> bool:
        return self.adapter.system is System.ERP

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        address, _, query = path.partition("?")
        options = dict(parse_qsl(query))
        sent = dict(headers or {})
        record_id = self._id(address)
        if method == "GET":
            return self._read(record_id, options)
        if method == "POST":
            return self._create(str((body or {})[self.entity.id_field]), body or {})
        if method == "PATCH" and sent.get("If-None-Match") == "*":
            assert record_id
            return self._create(record_id, body or {})
        assert record_id
        row = self.rows.get(record_id)
        if row is None:
            return self._missing()
        if sent["If-Match"] not in ("*", row["@odata.etag"]):
            return _error(409, "Request_EntityChanged") if self.is_erp else _error(412, "0x80060882")
        if method == "DELETE":
            del self.rows[record_id]
            self.writes += 1
            return Reply(status=204)
        return self._store(200, record_id, {**row, **self._columns(body or {})})

    def _id(self, address: str) -> str | None:
        found = re.search(rf"{self.entity.entity_set}\(([^)]*)\)$", unquote(address))
        return found[1] if found else None

    def _read(self, record_id: str | None, options: Mapping[str, str]) -> Reply:
        readable = {} if self.unreadable else self.rows
        if record_id is not None:
            row = readable.get(record_id)
            return self._missing() if row is None else Reply(status=200, body=row)
        found = [row for row in readable.values() if _holds(options.get("$filter", ""), row)]
        return Reply(status=200, body={"value": found[: int(options.get("$top", "5000"))]})

    def _create(self, record_id: str, body: Mapping[str, Any]) -> Reply:
        if record_id in self.rows:
            return _error(400, "Internal_EntityWithSameKeyExists") if self.is_erp else _error(412, "0x80040237")
        columns = self._columns(body)
        for key in self.entity.business_keys:
            taken = {str(row.get(key)).casefold() for row in self.rows.values() if row.get(key)}
            if str(columns.get(key)).casefold() in taken:
                return _error(400, "Internal_EntityWithSameKeyExists") if self.is_erp else _error(412, "0x80060892")
        return self._store(201, record_id, {**self._blank, **columns, self.entity.id_field: record_id})

    def _store(self, status: int, record_id: str, row: Row) -> Reply:
        self._version += 1
        self.writes += 1
        stamp = f"2026-03-02T09:{self._version // 60 % 60:02}:{self._version % 60:02}Z"
        if self.is_erp:
            row |= {"@odata.etag": f'W/"base64=={self._version}"', "lastModifiedDateTime": stamp}
        else:
            row |= {
                "@odata.etag": f'W/"{self._version}"',
                "versionnumber": self._version,
                "modifiedon": stamp,
            }
        self.rows[record_id] = row
        return Reply(status=status, body=dict(row))

    def _columns(self, body: Mapping[str, Any]) -> Row:
        columns: Row = {}
        for name, value in body.items():
            if not name.endswith("@odata.bind"):
                columns[name] = value
                continue
            navigation = name.removesuffix("@odata.bind")
            (lookup,) = (key for key, known in self.entity.lookups.items() if known.navigation == navigation)
            target = re.search(r"/(\w+)\(([^)]*)\)", value or "/none()")
            assert target
            columns[f"_{lookup}_value"] = target[2] or None
            if lookup == "ownerid":
                columns["_owninguser_value"] = target[2] if target[1] == "systemusers" else None
                columns["_owningteam_value"] = target[2] if target[1] == "teams" else None
        return columns

    def _missing(self) -> Reply:
        return _error(404, "BadRequest_ResourceNotFound" if self.is_erp else "0x80040217")


def _error(status: int, code: str) -> Reply:
    message = f"The Customer already exists. Identification fields and values: No.='SECRET' ({code})"
    return Reply(status=status, body={"error": {"code": code, "message": message}})


def _holds(text: str, row: Row) -> bool:
    """A filter of `eq`, `and`, `or` and parentheses, as the adapters write it."""
    if not text:
        return True
    pattern = re.compile(r"(?:tolower\((\w+)\)|(\w+)) eq ('(?:[^']|'')*'|[^\s()]+)")

    def truth(found: re.Match[str]) -> str:
        value, literal = row.get(found[1] or found[2]), found[3]
        wanted = literal[1:-1].replace("''", "'").strip() if literal.startswith("'") else literal
        held = "" if value in (None, "", ZERO_GUID, "_x0020_") else str(value)
        if wanted in ("null", ZERO_GUID):
            wanted = ""
        return str(held.casefold() == wanted.casefold())

    return bool(eval(pattern.sub(truth, text)))


@dataclass(slots=True)
class Faulty:
    """The HTTP port with faults: the number of the call, from 0, and what goes wrong with it."""

    inner: Http
    faults: Mapping[int, str] = field(default_factory=dict)
    calls: int = 0
    late: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    repeat: bool = False  # the first fault happens to every call from its own on

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        fault = self.faults.get(self.calls, "")
        if self.repeat and self.faults and self.calls >= min(self.faults):
            fault = self.faults[min(self.faults)]
        self.calls += 1

        def done() -> Reply:
            return self.inner.call(method, path, body=body, headers=headers, timeout_s=timeout_s)

        if fault == "late":  # the request is still on its way while we look
            self.late.append((method, path, body, headers))
            raise NoReply("time-out", sent=True)
        try:
            if fault == "":
                return done()
            if fault == "reply lost":
                done()
                raise NoReply("connection reset", sent=True)
            if fault == "request lost":
                raise NoReply("connection reset", sent=True)
            if fault == "not sent":
                raise NoReply("connection refused", sent=False)
            if fault == "503 after":
                done()
                return Reply(status=503, is_json=False)
            if fault == "html":
                done()
                return Reply(status=200, is_json=False)
            return Reply(status=int(fault), body={"error": {"code": "", "message": ""}})
        finally:
            if self.late and method == "GET":
                for waiting in self.late:
                    self.inner.call(waiting[0], waiting[1], body=waiting[2], headers=waiting[3])
                self.late.clear()


FAULTS = ("reply lost", "request lost", "not sent", "503 after", "503", "500", "429", "401", "html", "late")
