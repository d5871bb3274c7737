"""One request to Business Central, or one operation of a batch: of which API, by whom, and what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.erp.access import Caller
from drawbar.sandbox.erp.model import EntitySet, ErpError
from drawbar.sandbox.wire import NOT_JSON, Request, from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What stands behind one route: its address and its sets."""

    route: str
    path: str
    short_path: str  # without the tenant
    origin: str
    sets: Mapping[str, EntitySet]

    @property
    def url(self) -> str:
        return self.origin + self.path

    def below(self, path: str) -> str | None:
        """What of a path comes after the address; None where it is another's."""
        for prefix in (self.path, self.short_path):
            if path == prefix or path.startswith(f"{prefix}/"):
                return path[len(prefix) :]
        return None


@dataclass(slots=True)
class Call:
    request: Request
    api: Api
    caller: Caller
    options: dict[str, str]
    company: str = ""  # its id, once the address has told which

    def body(self) -> dict[str, Any]:
        """Raises ErpError for what is no JSON object."""
        if self.request.body and not self.request.is_said_to_be_json():
            raise ErpError(415, "BadRequest", NOT_JSON)
        try:
            body = from_json(self.request.body or b"{}")
        except ValueError as error:
            raise ErpError(400, "BadRequest", "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise ErpError(400, "BadRequest", "The payload is not a JSON object.")
        return body
