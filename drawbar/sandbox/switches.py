"""What the public references leave open about the two services, as switches: the values that are in force.

A rule asks a switch by its name. Which there are, and what each value does, is data in `switch_list`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drawbar.sandbox.switch import Answer, SwitchError
from drawbar.sandbox.switch_list import STATUS_OF, SWITCHES


@dataclass(slots=True)
class Switches:
    """The values in force. `listeners` are called when they change."""

    values: dict[str, Any] = field(default_factory=lambda: {name: switch.default for name, switch in SWITCHES.items()})
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def set(self, given: Mapping[str, Any]) -> None:
        """All of them or, where one cannot be, none. Raises SwitchError."""
        self.values.update(checked(given))
        for listener in self.listeners:
            listener()

    def reset(self) -> None:
        """Every switch as it is where nobody says anything."""
        self.set({name: switch.default for name, switch in SWITCHES.items()})

    def status(self, code: str, usual: int) -> int:
        """The status that an error of this code is answered with."""
        return int(self.values[STATUS_OF[code]]) if code in STATUS_OF else usual


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values by their names. Raises SwitchError."""
    unknown = sorted(set(given) - set(SWITCHES))
    if unknown:
        raise SwitchError(f"there is no switch {', '.join(unknown)}; there are {', '.join(sorted(SWITCHES))}")
    return {name: SWITCHES[name].value(value) for name, value in given.items()}


def parsed(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` as name and value; the value is JSON, or a text. Raises SwitchError where there is no `=`."""
    name, mark, value = text.partition("=")
    if not mark:
        raise SwitchError(f"a switch is given as NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def turned_over(names: Iterable[str] = SWITCHES, *, by: int = 1) -> dict[str, Answer]:
    """Of each of these switches that lists its values another than the default: so many places on, or the last."""
    chosen = ((name, SWITCHES[name].others) for name in names)
    return {name: others[min(by, len(others)) - 1] for name, others in chosen if others}
