"""Which requests a rule is about. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


class RuleError(ValueError):
    """A rule that cannot be followed; the text says why."""


@dataclass(slots=True, kw_only=True)
class Selection:
    """Requests that fit everything that is named; nothing named: all."""

    system: str | None = None  # erp, crm, sign_in
    method: str | None = None
    path: str | None = None  # regular expression, searched in path and query
    app: str | None = None  # client id

    def __post_init__(self) -> None:
        if self.system not in (None, "erp", "crm", "sign_in"):
            raise RuleError(f"system '{self.system}' is none of erp, crm, sign_in")
        if self.path is not None:
            try:
                re.compile(self.path)
            except (re.error, TypeError) as error:
                raise RuleError(f"path is not a regular expression: {error}") from error

    def fits(self, system: str, method: str, target: str, app: str | None) -> bool:
        return (
            (self.system is None or self.system == system)
            and (self.method is None or self.method == method)
            and (self.app is None or self.app == app)
            and (self.path is None or re.search(self.path, target) is not None)
        )
