"""The form of a switch: a question that the public references leave open, and the answers that it can have. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Answer = bool | int | str


class SwitchError(Exception):
    """There is no such switch, or it has no such value; the text says what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One open question. `does` says for each value what happens then; the first is the default."""

    name: str
    system: str
    question: str
    does: Mapping[Answer, str]
    left_open: str  # the public page that does not say, or that it is not documented
    initial: Any = None  # of a switch that takes more values than can be listed
    read: Callable[[Any], Any] | None = None  # makes a value of one of those; raises TypeError or ValueError
    takes: str = ""  # which those are

    @property
    def default(self) -> Any:
        return self.initial if self.read else next(iter(self.does))

    @property
    def others(self) -> list[Answer]:
        """The listed values that are not the default."""
        return list(self.does)[1:]

    @property
    def possible(self) -> str:
        return self.takes or ", ".join(shown(value) for value in self.does)

    def value(self, given: Any) -> Any:
        """A value that was given, checked. Raises SwitchError."""
        if self.read is not None:
            try:
                return self.read(given)
            except (TypeError, ValueError) as error:
                raise SwitchError(f"{self.name} is {self.takes}") from error
        for value in self.does:
            if value == given and type(value) is type(given):
                return value
        raise SwitchError(f"{self.name} is one of {self.possible}")


def shown(value: Answer) -> str:
    """A value as it stands in JSON and in documents, text without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)
