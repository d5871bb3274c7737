"""The control endpoint: faults, latency, expiry, limits, rights, webhooks, edits and the truth, for tests and demos.

JSON over the same port as the sign-in, behind a bearer token of its own. Described in `docs/sandbox.md`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from drawbar.sandbox.business_central import BusinessCentral
from drawbar.sandbox.crm_model import CrmError
from drawbar.sandbox.crm_webhooks import CrmWebhookSettings
from drawbar.sandbox.dataverse import Dataverse
from drawbar.sandbox.erp_model import ErpError, milliseconds, parse_time, shown_time, time_text
from drawbar.sandbox.erp_webhooks import ErpWebhookSettings
from drawbar.sandbox.grants import Grants
from drawbar.sandbox.limits import BusinessCentralLimits, DataverseLimits
from drawbar.sandbox.odata import QueryError, parse_options
from drawbar.sandbox.selection import RuleError
from drawbar.sandbox.servers import Servers
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Change, Values
from drawbar.sandbox.switches import SwitchError, Switches
from drawbar.sandbox.wire import Reply, Request, Surroundings, to_json

PATH = "/control"
MAX_RATE = 100_000
LAST_S = 32_503_680_000  # the year 3000
_LISTS = frozenset(("faults", "latency", "edit", "automations"))  # calls that take several at once


class ControlError(Exception):
    """The request cannot be followed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Automation:
    """After an application's write to `field` of a set, another application writes `values` there, ms later."""

    system: str
    set: str
    field: str
    after_app: str
    by_app: str
    values: dict[str, Any]
    delay_ms: int = 5
    times: int | None = None


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
        self._automations: list[Automation] = []
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
            ("GET", "automations"): lambda _: [asdict(rule) for rule in self._automations],
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
            answer = route(_body(request, may_be_list=parts[0] in _LISTS))
        except (ControlError, RuleError, QueryError, SwitchError) as error:
            return _json(400, {"error": str(error)})
        except (ErpError, CrmError) as error:
            return _json(error.status, {"error": {"code": error.code, "message": error.message}})
        except (KeyError, TypeError, ValueError) as error:
            return _json(400, {"error": f"{type(error).__name__}: {error}"})
        return _json(200, {} if answer is None else answer)

    # ------------------------------------------------------------ what may be asked

    def _add_faults(self, rules: Any) -> Any:
        return [asdict(rule) for rule in self._faults.add(rules if isinstance(rules, list) else [rules])]

    def _add_latency(self, rules: Any) -> Any:
        self._latencies.add(rules if isinstance(rules, list) else [rules])
        return self._latency_rules()

    def _latency_rules(self) -> Any:
        return [asdict(rule) for rule in self._latencies.rules]

    def _log(self, options: Mapping[str, str]) -> Any:
        unknown = set(options) - {"after", "client_id", "system"}
        if unknown:
            raise ControlError(f"the log knows no {', '.join(sorted(unknown))}")
        after = int(options.get("after", 0))
        return self._traffic.log(after=after, client_id=options.get("client_id"), system=options.get("system"))

    def _expire(self, body: Any) -> None:
        what = body.get("what", ["tokens", "delta_links"])
        for name in [what] if isinstance(what, str) else what:
            match name:
                case "tokens":
                    self._sign_in.expire_tokens()
                case "delta_links":
                    self._crm.expire_delta_links()
                case _:
                    raise ControlError(f"'{name}' is neither tokens nor delta_links")

    def _set_limits(self, body: Any) -> Any:
        for system in self._systems(body):
            settings = self._limits[system].settings
            settings.on = bool(body.get("on", settings.on))
            settings.scale = float(body.get("scale", settings.scale))
            settings.window_s = float(body.get("window_s", settings.window_s))
            settings.queue_s = float(body.get("queue_s", settings.queue_s))
            self._limits[system].forget()
            if system == "crm" and "servers" in body:
                self._servers.count = int(body["servers"])
        shown = {system: asdict(limits.settings) for system, limits in self._limits.items()}
        return {**shown, "crm": {**shown["crm"], "servers": self._servers.count}}

    def _set_grants(self, body: Any) -> Any:
        for system in self._systems(body):
            self._grants.set(
                system,
                str(body["app"]),
                str(body.get("entity", "*")),
                str(body.get("operation", "*")),
                allowed=bool(body["allowed"]),
            )
        return self._grants.rows()

    def _set_webhooks(self, body: Any) -> Any:
        settings: dict[str, ErpWebhookSettings | CrmWebhookSettings] = {
            "erp": self._erp.webhooks.settings,
            "crm": self._crm.webhooks.settings,
        }
        unknown = set(body) - {"system"}.union(*(asdict(chosen) for chosen in settings.values()))
        if unknown:
            raise ControlError(f"webhooks have no {', '.join(sorted(unknown))}")
        for system in self._systems(body):
            for name in asdict(settings[system]):
                if name in body:
                    setattr(settings[system], name, body[name])
        return {system: asdict(chosen) for system, chosen in settings.items()}

    def _set_switches(self, body: Any) -> Any:
        self._switches.set(body)
        return self._switches.values

    def _set_clock(self, body: Any) -> Any:
        unknown = set(body) - {"set", "advance_s", "rate", "reset"}
        if unknown:
            raise ControlError(f"the clock knows no {', '.join(sorted(unknown))}")
        moment_s = milliseconds(parse_time(str(body["set"]))) / 1000 if "set" in body else self._clock.now_s()
        moment_s += float(body.get("advance_s", 0))
        rate = float(body.get("rate", self._clock.rate))
        if not 0 <= rate <= MAX_RATE or not 0 <= moment_s < LAST_S:
            raise ControlError(f"a rate is between 0 and {MAX_RATE}, a time between the years 1970 and 3000")
        if body.get("reset"):
            self._clock.reset()
        else:
            self._clock.set(moment_s, rate=rate)
        return self._time()

    def _time(self) -> Any:
        return {"now": shown_time(time_text(self._clock.now_ms())), "rate": self._clock.rate}

    def _edit(self, body: Any) -> Any:
        edits = body if isinstance(body, list) else [body]
        return [self._one_edit(edit) for edit in edits]

    def _one_edit(self, edit: Values) -> Values:
        app = str(edit["app"])
        if edit["system"] == "erp":
            return self._environment(edit).edit(edit, app=app)
        if edit["system"] == "crm":
            return self._crm.edit(edit, user=self._crm.records.application_user(app))
        raise ControlError("system is neither erp nor crm")

    def _add_company(self, body: Any) -> Values:
        unknown = set(body) - {"name", "display_name", "currency", "environment"}
        if unknown:
            raise ControlError(f"a company has no {', '.join(sorted(unknown))}")
        name, display_name, currency = str(body["name"]), body.get("display_name"), body.get("currency")
        return self._environment(body).add_company(name, display_name=display_name, currency=currency, app="setup")

    def _truth(self, system: str, set_name: str, options: Mapping[str, str]) -> list[Values]:
        if system == "erp":
            return self._environment(options).truth(set_name, company=options.get("company"))
        if system == "crm":
            return self._crm.truth(set_name)
        raise ControlError("system is neither erp nor crm")

    def _environment(self, given: Mapping[str, Any]) -> BusinessCentral:
        """The one of the ERP that a call names, or the first."""
        name = given.get("environment")
        if name is None:
            return self._erp
        if name not in self._environments:
            raise ControlError(f"there is no environment {name}")
        return self._environments[name]

    @staticmethod
    def _systems(body: Any) -> list[str]:
        system = body.get("system")
        if system is None:
            return ["erp", "crm"]
        if system not in ("erp", "crm"):
            raise ControlError("system is neither erp nor crm")
        return [system]

    # ------------------------------------------------------------ automations

    def _set_automations(self, rules: Any) -> Any:
        given = [Automation(**rule) for rule in (rules if isinstance(rules, list) else [rules])]
        self._automations = given
        self._runs = [0] * len(given)
        return [asdict(rule) for rule in given]

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
            edit = {"system": system, "set": set_name, "id": change.id, "app": rule.by_app, "values": rule.values}
            asyncio.get_running_loop().call_later(rule.delay_ms / 1000, self._automatic, edit)

    def _automatic(self, edit: Values) -> None:
        """The record may be gone by now."""
        try:
            self._one_edit(edit)
        except (ErpError, CrmError):
            return


def _body(request: Request, *, may_be_list: bool) -> Any:
    body = json.loads(request.body) if request.body else {}
    if not isinstance(body, dict) and not (may_be_list and isinstance(body, list)):
        raise ControlError("the body is not an object")
    return body


def _moved(change: Change) -> set[str]:
    before, after = change.before or {}, change.after or {}
    return {name for name, value in after.items() if before.get(name) != value}


def _json(status: int, body: Any) -> Reply:
    return Reply(status, to_json(body), {"Content-Type": "application/json; charset=utf-8"})
