"""What the control endpoint can be told: the bodies of its calls. Pure.

A body is taken whole or refused whole, so that a call which cannot be followed has changed nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from drawbar.sandbox.faults import Action, When
from drawbar.sandbox.grants import Operation

LONGEST_S = 86_400.0  # of a wait that somebody asks for
MOST = 1_000_000_000
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")

System = Literal["erp", "crm"]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S)]
Count = Annotated[int, Field(ge=0, le=MOST)]


class ControlError(Exception):
    """The request cannot be followed; the text says why."""


def _as_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _TOKEN.match(name) or any(ord(mark) > 255 or mark in "\r\n\0" for mark in value):
            raise ValueError(f"'{name}' cannot be sent as a header")
    return headers


class _Call(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class _OfSystems(_Call):
    system: System | None = None

    @property
    def systems(self) -> tuple[System, ...]:
        return ("erp", "crm") if self.system is None else (self.system,)


class _OfRequests(_Call):
    """Which requests a rule is about."""

    system: Literal["erp", "crm", "sign_in"] | None = None
    method: str | None = None
    path: str | None = None
    app: str | None = None


class FaultCall(_OfRequests):
    action: Action
    after: Count = 0
    times: Count | None = 1
    seconds: Seconds = 0.0
    when: When = "before"
    status: Annotated[int, Field(ge=200, le=599)] = 500
    headers: Annotated[dict[str, str], AfterValidator(_as_headers)] = Field(default_factory=dict)
    body: Any = ""


class LatencyCall(_OfRequests):
    """What `ms` may be is the rule's own matter."""

    ms: float | dict[str, float]


class ExpireCall(_Call):
    what: Literal["tokens", "delta_links"] | list[Literal["tokens", "delta_links"]] = Field(
        default=["tokens", "delta_links"]
    )


class LimitsCall(_OfSystems):
    on: bool | None = None
    scale: Annotated[float, Field(gt=0, le=MOST)] | None = None
    window_s: Annotated[float, Field(gt=0, le=LONGEST_S)] | None = None
    servers: Annotated[int, Field(ge=1, le=100)] | None = None  # the CRM's
    queue_s: Annotated[float, Field(gt=0, le=LONGEST_S)] | None = None  # the ERP's


class GrantsCall(_OfSystems):
    app: str
    entity: str = "*"
    operation: Operation | Literal["*"] = "*"
    allowed: bool


class WebhooksCall(_OfSystems):
    delay_s: Seconds | None = None
    drop: bool | None = None
    retry_scale: Annotated[float, Field(ge=0, le=MOST)] | None = None
    max_notifications: Count | None = None
    lease_s: Annotated[float, Field(ge=-MOST, le=MOST)] | None = None  # below zero: over at once
    max_body_bytes: Count | None = None


class ClockCall(_Call):
    set: str | None = None
    advance_s: float = 0.0
    rate: float | None = None
    reset: bool = False


class CompanyCall(_Call):
    name: str
    display_name: str | None = None
    currency: str | None = None
    environment: str | None = None


class EditCall(_Call):
    system: System
    app: str
    set: str
    id: str | None = None
    key: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    delete: bool = False
    silent: bool = False
    late_ms: Count = 0
    company: str | None = None
    environment: str | None = None


class AutomationCall(_Call):
    """After an application's write to `field` of a set, another application writes `values` there, ms later."""

    system: System
    set: str
    field: str
    after_app: str
    by_app: str
    values: dict[str, Any]
    delay_ms: Annotated[float, Field(ge=0, le=LONGEST_S * 1000)] = 5
    times: Count | None = None


Call = TypeVar("Call", bound=_Call)


def read(kind: type[Call], body: Any) -> Call:
    """Raises ControlError, with the names of what is wrong, for a body that is not of this kind."""
    if not isinstance(body, dict):
        raise ControlError("the body is not an object")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        wrong = (
            f"{'.'.join(str(part) for part in each['loc']) or 'the body'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise ControlError("; ".join(wrong)) from error


def read_list(kind: type[Call], body: Any) -> list[Call]:
    """Of calls that take one or several."""
    return [read(kind, each) for each in (body if isinstance(body, list) else [body])]
