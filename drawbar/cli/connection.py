"""The connection file: how others reach a running system, secrets included. Readable by its owner alone."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import SettingsError


def write_connection(path: Path, connection: Mapping[str, Any]) -> None:
    """Put `connection` there, mode 0600, in one step: a reader sees the old file or the new one, never a part.

    Raises SettingsError when the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(connection, indent=1) + "\n")
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise SettingsError(f"the connection file cannot be written: {fault.strerror}", where=str(path)) from fault


def remove_connection(path: Path) -> None:
    """Nobody can be reached there any more."""
    path.unlink(missing_ok=True)
