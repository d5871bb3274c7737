"""One request to Dataverse, or one operation of a batch: what is asked, in whose name, and what of it he may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.crm.access import Caller
from drawbar.sandbox.crm.model import CrmError, Entity, Right, not_supported, payload_error
from drawbar.sandbox.crm.reading import CrmReader, Included, wanted_annotations
from drawbar.sandbox.store import Store, Values
from drawbar.sandbox.wire import NOT_JSON, Request, from_json

_MESSAGES: Mapping[Right, str] = {"create": "Create", "write": "Update", "delete": "Delete"}


@dataclass(slots=True)
class Call:
    request: Request
    caller: Caller
    store: Store
    reader: CrmReader  # of what the caller may read
    options: dict[str, str]
    preferences: dict[str, str]

    @property
    def user(self) -> Values:
        """In whose name."""
        return self.caller.user

    @property
    def included(self) -> Included:
        """Tells which annotations are asked for."""
        return wanted_annotations(self.preferences)

    def allow(self, entity: Entity, right: Right, row_id: str | None = None) -> None:
        """Raises CrmError when the caller has not the right, to that row if one is named and is there.

        What the platform alone writes is nobody's to write, by whatever address.
        """
        if entity.read_only and right in _MESSAGES:
            raise not_supported(entity, _MESSAGES[right])
        if self.caller.unrestricted:
            return
        stored = self.store.table(entity.logical).rows.get(row_id) if row_id is not None else None
        self.caller.demand(entity, right, row_id, stored.values if stored else None)

    def allow_expanded(self, entity: Entity) -> None:
        """Whoever asks for rows of other tables as well must have the right to read these."""
        for table in self.reader.tables_of(entity, self.options):
            self.allow(table, "read")

    def body(self, entity: Entity) -> Values:
        """What is sent to be written to a table. Raises CrmError for what is no JSON object, and for nothing at all."""
        if not self.request.body:
            raise payload_error(entity, "The request has no body.")
        return self._object(lambda text: payload_error(entity, text))

    def parameters(self) -> Values:
        """What an action is given, which may be nothing. Raises CrmError for what is no JSON object."""
        return self._object(lambda text: CrmError(400, "0x80048d19", text))

    def _object(self, error_of: Callable[[str], CrmError]) -> Values:
        if self.request.body and not self.request.is_said_to_be_json():
            raise CrmError(415, "0x80060888", NOT_JSON)
        try:
            body: Any = from_json(self.request.body or b"{}")
        except ValueError as error:
            raise error_of("The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise error_of("The payload is not a JSON object.")
        return body
