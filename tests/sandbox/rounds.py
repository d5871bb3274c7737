"""Sandboxes that answer otherwise than by default, so that between them every value of every switch is in force once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drawbar.sandbox.switch_list import SWITCHES
from drawbar.sandbox.switches import turned_over

_MASKS = "crm_error_code_empty"  # without a code, the switches that choose one show nothing
_WITH_CODES = [name for name in SWITCHES if name != _MASKS]

ROUNDS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "turned over": turned_over(),
    "turned further": turned_over(by=2),
    "turned over with codes": turned_over(_WITH_CODES),
    "turned further with codes": turned_over(_WITH_CODES, by=2),
}
