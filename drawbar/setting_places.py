"""Where a setting that is wrong was set: the variable of the environment, or the line of the settings file.

Pure. The order is that of the sources, strongest first, as `drawbar/settings.py` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_HEADER = re.compile(r"\s*\[+\s*([^\[\]]+?)\s*\]+")
_KEY = re.compile(r"""\s*([\w."'-]+(?:\s*\.\s*[\w."'-]+)*)\s*=""")


def place_of(
    setting: Sequence[str],
    *,
    given: Mapping[str, Any],
    giver: str,
    environment: Mapping[str, str],
    settings_file: str,
    text: str,
) -> str:
    """Where the setting with this path (`erp`, `timeout_s`) stands; the variable that sets it where it stands nowhere.

    `given`: what stands above the environment, and `giver`: who gave it. `text`: of the settings file.
    """
    if _is_in(given, setting):
        return giver
    names = {name.upper(): name for name in environment}
    for length in range(len(setting), 0, -1):
        name = names.get(variable_of(setting[:length]))
        # a variable may hold a whole part as JSON
        if name is not None and (length == len(setting) or setting[-1] in environment[name]):
            return name
    line = line_of(setting, text)
    return f"{settings_file}:{line}" if line else variable_of(setting)


def variable_of(setting: Sequence[str]) -> str:
    """`DRAWBAR_ERP__TIMEOUT_S`."""
    return f"DRAWBAR_{'__'.join(setting)}".upper()


def line_of(setting: Sequence[str], text: str) -> int:
    """The line of a TOML text that sets it, or else the nearest that holds it (a table); 0 when there is none."""
    table: tuple[str, ...] = ()
    best = (0, 0)
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            path = table = _parts(header[1])
        elif key is not None:
            path = table + _parts(key[1])
        else:
            continue
        if path == tuple(setting[: len(path)]) and len(path) > best[0]:
            best = (len(path), number)
    return best[1]


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _is_in(given: Mapping[str, Any], setting: Sequence[str]) -> bool:
    found: Any = given
    for name in setting:
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return True
