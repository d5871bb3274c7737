"""A sink as a process of its own: `python -m tests.consumers.sink_process CONNECTION_FILE SYSTEM`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from consumers.worker import run_sink
from drawbar.ports import InMessage, OutMessage
from drawbar.settings import load_settings
from schemas.errors import DrawbarError
from schemas.records import System
from schemas.topics import DEAD_LETTERS

FIELDS = {
    "account": ("name", "accountnumber", "telephone1", "address1_city"),
    "customer": ("displayName", "number", "phoneNumber", "city"),
}


def dead_letter(message: InMessage, error: DrawbarError) -> Sequence[OutMessage]:
    return [
        OutMessage(topic=DEAD_LETTERS, key=message.key, value=message.value, headers=(("code", error.code.encode()),))
    ]


if __name__ == "__main__":
    run_sink(load_settings(Path(sys.argv[1])), System(sys.argv[2]), fields=FIELDS, dead_letter=dead_letter)
