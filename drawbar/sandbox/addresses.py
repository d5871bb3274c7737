"""By which name a client reaches a service: addresses in answers are of that name, as those of the real services are.

A client behind a proxy, or one that knows no address but the real one, follows them to where it came from. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Alias:
    own: str  # scheme, host and port as the service writes them
    asked: str  # as the client does

    def inward(self, text: bytes) -> bytes:
        return text.replace(self.asked.encode(), self.own.encode())

    def outward(self, text: bytes) -> bytes:
        return text.replace(self.own.encode(), self.asked.encode())

    def outward_text(self, text: str) -> str:
        return text.replace(self.own, self.asked)


def alias_of(own: str, host: str) -> Alias | None:
    """`host`: what the header of that name says. None: the service's own name, or none at all."""
    scheme, _, name = own.partition("://")
    return Alias(own, f"{scheme}://{host}") if host != name and _HOST.fullmatch(host) else None
