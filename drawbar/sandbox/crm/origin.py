"""What the headers of a Dataverse request say of whom it comes from and what it must not set going. Pure.

Sources: https://learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic,
https://learn.microsoft.com/power-apps/developer/data-platform/optional-parameters
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.odata import GUID

MAX_STEPS = 3  # that may be named one by one
LOGIC, PLUGINS = "prvBypassCustomBusinessLogic", "prvBypassCustomPlugins"
_MODES = {"customsync": 0, "customasync": 1}  # as the column `mode` of a step has it


@dataclass(slots=True, kw_only=True, eq=False)
class Origin:
    """One request. The modes and the steps are those that it does not set going; ids are made when they are read."""

    given_request_id: str | None = None
    given_correlation_id: str | None = None
    tag: str | None = None
    modes: frozenset[int] = frozenset()
    steps: frozenset[str] = frozenset()

    @property
    def request_id(self) -> str:
        self.given_request_id = self.given_request_id or str(uuid.uuid4())
        return self.given_request_id

    @property
    def correlation_id(self) -> str:
        self.given_correlation_id = self.given_correlation_id or str(uuid.uuid4())
        return self.given_correlation_id

    def skips_kind(self, mode: int) -> bool:
        return mode in self.modes

    def skips_step(self, step_id: str) -> bool:
        return step_id in self.steps


def read_origin(headers: Mapping[str, str], options: Mapping[str, str], *, require: Callable[[str], None]) -> Origin:
    """`require` raises CrmError when the caller lacks a privilege. Raises CrmError for a value that is none."""
    modes: set[int] = set()
    for word in _words(headers.get("mscrm.bypassbusinesslogicexecution", "")):
        if word.lower() not in _MODES:
            raise CrmError(
                400, "0x80040203", f"'{word}' is no value of BypassBusinessLogicExecution: CustomSync, CustomAsync."
            )
        modes.add(_MODES[word.lower()])
    steps = _words(headers.get("mscrm.bypassbusinesslogicexecutionstepids", ""))
    if len(steps) > MAX_STEPS or not all(GUID.match(step) for step in steps):
        raise CrmError(400, "0x80040203", f"BypassBusinessLogicExecutionStepIds names up to {MAX_STEPS} steps by id.")
    if modes or steps:
        require(LOGIC)
    if headers.get("mscrm.bypasscustompluginexecution", "").strip().lower() == "true":
        require(PLUGINS)
        modes.add(_MODES["customsync"])
    return Origin(
        given_request_id=_id(headers.get("x-ms-client-request-id", "")),
        given_correlation_id=_id(headers.get("x-ms-correlation-id", "")),
        tag=options.get("tag"),
        modes=frozenset(modes),
        steps=frozenset(step.lower() for step in steps),
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.strip().strip('"').split(",") if word.strip()]


def _id(text: str) -> str | None:
    """An id that the client gives."""
    return text.strip().lower() if GUID.match(text.strip()) else None
