"""What an application may do in a system. Everything, until the control endpoint takes it away. Pure."""

from __future__ import annotations

from typing import Literal

Operation = Literal["read", "create", "write", "delete"]
OPERATIONS: tuple[Operation, ...] = ("read", "create", "write", "delete")


class Grants:
    def __init__(self) -> None:
        self._denied: set[tuple[str, str, str, str]] = set()
        self.changes = 0  # grows with each, so that what was worked out before is known to be old

    def allows(self, system: str, app: str, entity: str, operation: Operation) -> bool:
        if not self._denied:
            return True
        return not any((system, app, e, o) in self._denied for e in (entity, "*") for o in (operation, "*"))

    def allows_whole(self, system: str, app: str, entity: str) -> bool:
        """Whether an entity was not taken away by its name, with all that is done to it."""
        return (system, app, entity, "*") not in self._denied

    def restricts(self, system: str, app: str) -> bool:
        """Whether anything was taken away from the application."""
        return any(rule[:2] == (system, app) for rule in self._denied)

    def is_member(self, system: str, app: str) -> bool:
        """False: the application is not known in the system at all."""
        return (system, app, "*", "*") not in self._denied

    def set(self, system: str, app: str, entity: str, operation: str, *, allowed: bool) -> None:
        """`*` stands for every entity or operation. Giving back `*` gives back all."""
        self.changes += 1
        if not allowed:
            self._denied.add((system, app, entity, operation))
            return
        self._denied = {
            rule
            for rule in self._denied
            if not (rule[:2] == (system, app) and entity in ("*", rule[2]) and operation in ("*", rule[3]))
        }

    def rows(self) -> list[dict[str, str]]:
        return [
            {"system": system, "app": app, "entity": entity, "operation": operation}
            for system, app, entity, operation in sorted(self._denied)
        ]
