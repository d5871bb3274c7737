"""The web servers behind Dataverse's address: which one a request reaches. Pure but for whose turn it is.

A cookie keeps a client on the server that answered it first; who does not send it back reaches them all in turn.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests#server-affinity
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

COOKIE = "ARRAffinity"
_GIVEN = re.compile(rf"(?:\A|;\s*){COOKIE}=([0-9a-f]{{64}})(?:;|\Z)")


class Servers:
    def __init__(self, count: int = 1, *, secure: bool = True) -> None:
        self._attributes = ";Path=/;HttpOnly" + (";Secure" if secure else "")
        self._turn = 0
        self.count = count

    @property
    def count(self) -> int:
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        """Raises ValueError below one."""
        if count < 1:
            raise ValueError("there is at least one server")
        self._count = count
        self._marks = {_mark(number): number for number in range(count)}

    def reached(self, headers: Mapping[str, str]) -> tuple[int, str | None]:
        """The server, and the cookie for a client that did not say where it belongs."""
        given = _GIVEN.search(headers.get("cookie", ""))
        number = self._marks.get(given.group(1)) if given else None
        if number is not None:
            return number, None
        number = self._turn = (self._turn + 1) % self._count
        return number, f"{COOKIE}={_mark(number)}{self._attributes}"


def _mark(number: int) -> str:
    return hashlib.sha256(f"server {number}".encode()).hexdigest()
