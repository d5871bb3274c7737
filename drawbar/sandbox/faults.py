"""What is to go wrong, by rule: the n-th request that fits loses its reply, waits, fails or is cut. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from drawbar.sandbox.selection import RuleError, Selection

Action = Literal["lose_reply", "delay", "status", "cut", "corrupt_json", "duplicate"]
When = Literal["before", "after"]


@dataclass(slots=True, kw_only=True)
class Fault(Selection):
    """One rule. `after` fitting requests pass first, then `times` are hit (None: all of them)."""

    id: int
    action: Action
    after: int = 0
    times: int | None = 1
    seconds: float = 0.0
    when: When = "before"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = ""  # text goes out as HTML, anything else as JSON
    seen: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        Selection.__post_init__(self)
        if self.action not in get_args(Action):
            raise RuleError(f"action '{self.action}' is none of {', '.join(get_args(Action))}")
        if self.when not in get_args(When):
            raise RuleError(f"when '{self.when}' is none of {', '.join(get_args(When))}")


_SETTABLE = frozenset(
    ("action", "system", "method", "path", "app", "after", "times", "seconds", "when", "status", "headers", "body")
)


class Faults:
    """The rules in force, in the order they were set. The first that is due acts, the others still count."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self._ids = itertools.count(1)

    def add(self, given: list[dict[str, Any]]) -> list[Fault]:
        """Raises RuleError, and adds none, when one of the rules is wrong."""
        added: list[Fault] = []
        for rule in given:
            unknown = set(rule) - _SETTABLE
            if unknown or "action" not in rule:
                raise RuleError(f"a rule has an action and may have {', '.join(sorted(_SETTABLE))}")
            added.append(Fault(id=next(self._ids), **rule))
        self.rules += added
        return added

    def match(self, system: str, method: str, target: str, app: str | None) -> Fault | None:
        due: Fault | None = None
        for rule in self.rules:
            if not rule.fits(system, method, target, app):
                continue
            rule.seen += 1
            if due is None and rule.seen > rule.after and (rule.times is None or rule.hits < rule.times):
                rule.hits += 1
                due = rule
        return due
