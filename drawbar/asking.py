"""Requests outside the stream of changes: a person's commands ask the systems, and a refusal becomes a coded error.

What a service says in words goes no further: it may quote the values of a record. Its code and the right that it misses
are named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from drawbar.ports import Http, NoReply, Reply
from schemas.errors import DrawbarError, PrivilegeMissing, SettingsError, SourceBroken, TokenRefused, Unreachable
from schemas.records import System

_PRIVILEGE = re.compile(r"\bprv\w+|\bTableData [^():]+")
_CODE = re.compile(r"[A-Za-z0-9_]{1,80}")
_DOES_NOT_EXIST = re.compile(r"does not exist", re.IGNORECASE)
# The ERP's documentation gives no status for these; other ones than here were seen.
_STATUS_OF_CODE = {
    "Authorization_RequestDenied": 403,
    "Authorization_RequestForbidden": 403,
    "Internal_CompanyNotFound": 404,
}
TIMEOUT_S = 60.0
_PASSES = frozenset({408, 429, 500, 502, 503, 504})  # the same request may be answered a moment later


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks one system. `refused`: the error for refusals that no rule of their own have; `when_forbidden`: what to do
    about a right that is missing, where it is not to give it to the application.
    """

    http: Http
    system: System
    refused: type[DrawbarError] = SourceBroken
    when_forbidden: str = ""

    def answer(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, whatever its status. Raises Unreachable when no answer comes."""
        try:
            return self.http.call(method, path, body=body, headers=headers, timeout_s=TIMEOUT_S)
        except NoReply as none:
            text = f"the {self.system.upper()} does not answer: {none.reason}"
            raise Unreachable(text, where=f"{self.system}.base_url") from none

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Reply:
        """One request. Raises DrawbarError for an answer that is neither a success nor in `accept`."""
        reply = self.answer(method, path, body=body, headers=headers)
        if 200 <= reply.status < 300 or reply.status in accept:
            return reply
        raise self.refusal(f"{method} {path.partition('?')[0].partition('(')[0]}", reply)

    def rows(self, path: str) -> list[dict[str, Any]]:
        """All rows behind a path, page by page. Raises DrawbarError."""
        found: list[dict[str, Any]] = []
        while path:
            body = self.ask("GET", path).body
            page = body.get("value") if isinstance(body, Mapping) else None
            if not isinstance(page, list):
                raise self.refused(f"the {self.system.upper()} answers without a list", where=path.partition("?")[0])
            found += page
            path = str(body.get("@odata.nextLink") or "")
        return found

    def refusal(self, what: str, reply: Reply) -> DrawbarError:
        """The coded error that a refusal stands for."""
        system, code, status = self.system, error_code(reply), known_status(reply)
        text = f"the {system.upper()} refuses {what}: status {reply.status}" + (f", {code}" if code else "")
        if status == 401:
            return TokenRefused(text, where=f"{system}.scope, {system}.client_id")
        if status == 403:
            named = _PRIVILEGE.search(str(error_of(reply).get("message", "")))
            privilege = f", missing {named[0].strip()}" if named else ""
            where, next_step = f"application {system}.client_id", self.when_forbidden or PrivilegeMissing.next_step
            return PrivilegeMissing(text + privilege, where=where, next_step=next_step)
        if status in _PASSES:
            return Unreachable(text, where=f"{system}.base_url", next_step="try again later")
        if status == 404:
            return SettingsError(text, where=f"{system}.base_url", next_step="check the service root")
        return self.refused(text, where=f"{system}.base_url")


def known_status(reply: Reply) -> int:
    """The status of a refusal, or the one that its code stands for where services differ in it."""
    return _STATUS_OF_CODE.get(error_code(reply), reply.status)


def says_missing(reply: Reply) -> bool:
    """Whether a service itself says that there is no such record; older builds of the CRM say it without a code."""
    if reply.status != 404 or not reply.is_json:
        return False
    return bool(error_code(reply)) or _DOES_NOT_EXIST.search(str(error_of(reply).get("message", ""))) is not None


def error_code(reply: Reply) -> str:
    """The service's own code; blank when the body holds none that looks like one."""
    code = error_of(reply).get("code")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def error_of(reply: Reply) -> Mapping[str, Any]:
    """The error in the body of a reply, as OData has it; empty where there is none."""
    error = reply.body.get("error") if isinstance(reply.body, Mapping) else None
    return error if isinstance(error, Mapping) else {}
