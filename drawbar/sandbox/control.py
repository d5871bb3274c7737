"""The control endpoint: faults, latency, expiry, limits, rights, webhooks, edits and the truth, for tests and demos.

JSON over the same port as the sign-in, behind a bearer token of its own. Described in `docs/sandbox.md`.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from drawbar.sandbox.control_calls import (
    AutomationCall,
    ClockCall,
    CompanyCall,
    ControlError,
    EditCall,
    ExpireCall,
    FaultCall,
    GrantsCall,
    LatencyCall,
    LimitsCall,
    WebhooksCall,
    read,
    read_list,
)
from drawbar.sandbox.crm.dataverse import Dataverse
from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.crm.webhooks import CrmWebhookSettings
from drawbar.sandbox.erp.business_central import BusinessCentral
from drawbar.sandbox.erp.model import ErpError, milliseconds, parse_time, shown_time, time_text
from drawbar.sandbox.erp.webhooks import ErpWebhookSettings
from drawbar.sandbox.grants import Grants
from drawbar.sandbox.limits import BusinessCentralLimits, DataverseLimits
from drawbar.sandbox.odata import QueryError, parse_options, whole_number
from drawbar.sandbox.selection import RuleError
from drawbar.sandbox.servers import Servers
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Change, Store, Values
from drawbar.sandbox.switch import SwitchError
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply, Request, Surroundings, from_json, to_json

PATH = "/control"
MAX_RATE = 100_000
LAST_S = 32_503_680_000  # the year 3000


class Control:
    def __init__(
        self,
        *,
        token: str,
        sign_in: SignIn,
        erp: Mapping[str, BusinessCentral],
        crm: Dataverse,
        surroundings: Surroundings,
        limits: dict[str, BusinessCentralLimits | DataverseLimits],
        servers: Servers,
        grants: Grants,
        switches: Switches,
    ) -> None:
        self._switches = switches
        self._clock = surroundings.clock
        self._token = token
        self._sign_in = sign_in
        self._environments = erp
        self._erp = next(iter(erp.values()))
        self._crm = crm
        self._faults = surroundings.faults
        self._traffic = surroundings.traffic
        self._latencies = surroundings.latencies
        self._limits = limits
        self._servers = servers
        self._grants = grants
        self._automations: list[AutomationCall] = []
        self._runs: list[int] = []
        self._erp.store.listeners.append(self._after_erp)
        crm.store.listeners.append(self._after_crm)

    def handle(self, request: Request) -> Reply:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return _json(401, {"error": "the control token is missing or wrong"})
        parts = request.path.removeprefix(PATH).strip("/").split("/")
        routes: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("POST", "faults"): self._add_faults,
            ("GET", "faults"): lambda _: [asdict(rule) for rule in self._faults.rules],
            ("DELETE", "faults"): lambda _: self._faults.rules.clear(),
            ("POST", "latency"): self._add_latency,
            ("GET", "latency"): lambda _: self._latency_rules(),
            ("DELETE", "latency"): lambda _: self._latencies.clear(),
            ("POST", "expire"): self._expire,
            ("POST", "limits"): self._set_limits,
            ("POST", "grants"): self._set_grants,
            ("GET", "grants"): lambda _: self._grants.rows(),
            ("POST", "webhooks"): self._set_webhooks,
            ("POST", "switches"): self._set_switches,
            ("GET", "switches"): lambda _: self._switches.values,
            ("DELETE", "switches"): lambda _: self._switches.reset(),
            ("POST", "clock"): self._set_clock,
            ("GET", "clock"): lambda _: self._time(),
            ("POST", "edit"): self._edit,
            ("POST", "companies"): self._add_company,
            ("POST", "automations"): self._set_automations,
            ("GET", "automations"): lambda _: [rule.model_dump() for rule in self._automations],
            ("DELETE", "automations"): lambda _: self._set_automations([]),
            ("GET", "requests"): lambda _: self._traffic.rows(),
            ("DELETE", "requests"): lambda _: self._traffic.clear(),
        }
        try:
            if request.method == "GET" and parts[0] == "truth" and len(parts) == 3:
                return _json(200, self._truth(parts[1], parts[2], parse_options(request.query)))
            if request.method == "GET" and parts == ["requests", "log"]:
                return _json(200, self._log(parse_options(request.query)))
            route = routes.get((request.method, "/".join(parts)))
            if route is None:
                return _json(404, {"error": "there is no such control call"})
            answer = route(_body(request))
        except (ControlError, RuleError, QueryError, SwitchError) as error:
            return _json(400, {"error": str(error)})
        except (ErpError, CrmError) as error:
            return _json(error.status, {"error": {"code": error.code, "message": error.message}})
        return _json(200, {} if answer is None else answer)

    # ------------------------------------------------------------ what may be asked

    def _add_faults(self, body: Any) -> Any:
        rules = [call.model_dump(exclude_unset=True) for call in read_list(FaultCall, body)]
        return [asdict(rule) for rule in self._faults.add(rules)]

    def _add_latency(self, body: Any) -> Any:
        self._latencies.add([call.model_dump(exclude_unset=True) for call in read_list(LatencyCall, body)])
        return self._latency_rules()

    def _latency_rules(self) -> Any:
        return [asdict(rule) for rule in self._latencies.rules]

    def _log(self, options: Mapping[str, str]) -> Any:
        unknown = set(options) - {"after", "client_id", "system"}
        if unknown:
            raise ControlError(f"the log knows no {', '.join(sorted(unknown))}")
        after = whole_number(options.get("after", "0"))
        if after is None:
            raise ControlError("after is the number of a request")
        return self._traffic.log(after=after, client_id=options.get("client_id"), system=options.get("system"))

    def _expire(self, body: Any) -> None:
        what = read(ExpireCall, body).what
        if "tokens" in what:
            self._sign_in.expire_tokens()
        if "delta_links" in what:
            self._crm.expire_delta_links()

    def _set_limits(self, body: Any) -> Any:
        call = read(LimitsCall, body)
        for system in call.systems:
            _take(self._limits[system].settings, call)
            self._limits[system].forget()
            if system == "crm" and call.servers is not None:
                self._servers.count = call.servers
        shown = {system: asdict(limits.settings) for system, limits in self._limits.items()}
        return {**shown, "crm": {**shown["crm"], "servers": self._servers.count}}

    def _set_grants(self, body: Any) -> Any:
        call = read(GrantsCall, body)
        for system in call.systems:
            self._grants.set(system, call.app, call.entity, call.operation, allowed=call.allowed)
        return self._grants.rows()

    def _set_webhooks(self, body: Any) -> Any:
        call = read(WebhooksCall, body)
        settings: dict[str, ErpWebhookSettings | CrmWebhookSettings] = {
            "erp": self._erp.webhooks.settings,
            "crm": self._crm.webhooks.settings,
        }
        for system in call.systems:
            _take(settings[system], call)
        return {system: asdict(chosen) for system, chosen in settings.items()}

    def _set_switches(self, body: Any) -> Any:
        if not isinstance(body, dict):
            raise ControlError("the body is not an object")
        self._switches.set(body)
        return self._switches.values

    def _set_clock(self, body: Any) -> Any:
        call = read(ClockCall, body)
        moment_s = self._clock.now_s() if call.set is None else milliseconds(parse_time(call.set)) / 1000
        moment_s += call.advance_s
        rate = self._clock.rate if call.rate is None else call.rate
        if not 0 <= rate <= MAX_RATE or not 0 <= moment_s < LAST_S:
            raise ControlError(f"a rate is between 0 and {MAX_RATE}, a time between the years 1970 and 3000")
        if call.reset:
            self._clock.reset()
        else:
            self._clock.set(moment_s, rate=rate)
        return self._time()

    def _time(self) -> Any:
        return {"now": shown_time(time_text(self._clock.now_ms())), "rate": self._clock.rate}

    def _edit(self, body: Any) -> Any:
        """All edits of a call, or none."""
        edits = read_list(EditCall, body)
        stores = {id(store): store for store in map(self._store, edits)}
        with ExitStack() as stack:
            for store in stores.values():
                stack.enter_context(store.transaction())
            return [self._one_edit(edit) for edit in edits]

    def _store(self, edit: EditCall) -> Store:
        return self._crm.store if edit.system == "crm" else self._environment(edit.environment).store

    def _one_edit(self, edit: EditCall) -> Values:
        change = edit.model_dump(exclude_unset=True)
        if edit.system == "erp":
            return self._environment(edit.environment).edit(change, app=edit.app)
        return self._crm.edit(change, user=self._crm.records.application_user(edit.app))

    def _add_company(self, body: Any) -> Values:
        call = read(CompanyCall, body)
        environment = self._environment(call.environment)
        return environment.add_company(call.name, display_name=call.display_name, currency=call.currency, app="setup")

    def _truth(self, system: str, set_name: str, options: Mapping[str, str]) -> list[Values]:
        if system == "erp":
            return self._environment(options.get("environment")).truth(set_name, company=options.get("company"))
        if system == "crm":
            return self._crm.truth(set_name)
        raise ControlError("system is neither erp nor crm")

    def _environment(self, name: str | None) -> BusinessCentral:
        """The one of the ERP that a call names, or the first."""
        if name is None:
            return self._erp
        if name not in self._environments:
            raise ControlError(f"there is no environment {name}")
        return self._environments[name]

    # ------------------------------------------------------------ automations

    def _set_automations(self, rules: Any) -> Any:
        given = read_list(AutomationCall, rules)
        known = {"erp": self._erp.records.sets, "crm": self._crm.records.by_set}
        for rule in given:
            if rule.set not in known[rule.system]:
                raise ControlError(f"there is no set {rule.set}")
        self._automations = given
        self._runs = [0] * len(given)
        return [rule.model_dump() for rule in given]

    def _after_erp(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change.note, str):
                self._react("erp", change.table.rpartition("/")[2], change, change.note, _moved(change))

    def _after_crm(self, changes: list[Change]) -> None:
        for change in changes:
            if change.table in self._crm.sets and change.note is not None:
                app = str((change.note.initiating or change.note.user).get("applicationid"))
                self._react("crm", self._crm.sets[change.table], change, app, set(change.note.columns))

    def _react(self, system: str, set_name: str, change: Change, app: str, fields: set[str]) -> None:
        if change.after is None:
            return
        for index, rule in enumerate(self._automations):
            if (rule.system, rule.set, rule.after_app) != (system, set_name, app) or rule.field not in fields:
                continue
            if rule.times is not None and self._runs[index] >= rule.times:
                continue
            self._runs[index] += 1
            company = change.table.partition("/")[0] if system == "erp" else None
            edit = EditCall(
                system=rule.system, set=set_name, id=change.id, app=rule.by_app, values=rule.values, company=company
            )
            asyncio.get_running_loop().call_later(rule.delay_ms / 1000, self._automatic, edit, change.table)

    def _automatic(self, edit: EditCall, table: str) -> None:
        """The record may be gone by now, and is not made again."""
        if edit.id not in self._store(edit).table(table).rows:
            return
        try:
            self._one_edit(edit)
        except (ErpError, CrmError):
            return


def _body(request: Request) -> Any:
    try:
        return from_json(request.body) if request.body else {}
    except ValueError as error:
        raise ControlError(f"the body is not JSON: {error}") from error


def _take(settings: Any, call: BaseModel) -> None:
    """What a call says about settings of these; what it does not say stays."""
    for name in asdict(settings):
        value = getattr(call, name, None)
        if value is not None:
            setattr(settings, name, value)


def _moved(change: Change) -> set[str]:
    before, after = change.before or {}, change.after or {}
    return {name for name, value in after.items() if before.get(name) != value}


def _json(status: int, body: Any) -> Reply:
    return Reply(status, to_json(body), {"Content-Type": "application/json; charset=utf-8"})
