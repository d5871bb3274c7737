"""The brake of one direction of one mapping, or of everything: the value of topic `brakes`.

Pure types. What a brake that is on means is in `processors/brakes.py`; who puts one on is the command line, or a decide
process that sees too many records about to be changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone

from schemas.errors import MassUpdate

ALL = "*"  # the key of the brake of everything, mappings that are added later included


def brake_key(mapping: str, direction: str) -> str:
    return f"{mapping}:{direction}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """One brake as somebody last set it. While it is on, nothing is written in that direction, and nothing is lost."""

    on: bool
    by: str  # who set it: a person's login, or a process
    at: datetime
    reason: str = ""  # in a person's words
    code: str = ""  # of the error for which it was put on by itself
    let_through_at: datetime | None = None  # what it kept back by then was seen by a person, who let it happen
    free_until: datetime | None = None  # and until then nothing counts as too much

    @property
    def is_automatic(self) -> bool:
        return self.code == MassUpdate.code

    @property
    def word(self) -> str:
        return "stopped" if self.is_automatic else "paused"

    def to_text(self) -> bytes:
        """As JSON."""
        said = {
            "state": "on" if self.on else "off",
            "by": self.by,
            "at": self.at.isoformat(),
            "reason": self.reason,
            "code": self.code,
            "let_through_at": self.let_through_at.isoformat() if self.let_through_at else None,
            "free_until": self.free_until.isoformat() if self.free_until else None,
        }
        return json.dumps(said, ensure_ascii=False).encode()


def told(key: str, brake: Brake) -> dict[str, str]:
    """The brake in words for a heartbeat and for `--json`."""
    mapping, _, direction = key.rpartition(":")
    return {
        "mapping": mapping or ALL,
        "direction": direction if mapping else ALL,
        "state": brake.word,
        "by": brake.by,
        "at": brake.at.isoformat(),
        "reason": brake.reason,
        "code": brake.code,
    }


def read_brake(text: bytes) -> Brake:
    """The brake in a message. One that cannot be read is on: somebody wanted something held."""
    try:
        said = json.loads(text)
        return Brake(
            on={"on": True, "off": False}[said["state"]],
            by=str(said["by"]),
            at=_time(said["at"]),
            reason=str(said.get("reason") or ""),
            code=str(said.get("code") or ""),
            let_through_at=_time(said["let_through_at"]) if said.get("let_through_at") else None,
            free_until=_time(said["free_until"]) if said.get("free_until") else None,
        )
    except (ValueError, KeyError, TypeError):
        return Brake(on=True, by="unknown", at=datetime.fromtimestamp(0, timezone.utc), reason="it cannot be read")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(timezone.utc)
