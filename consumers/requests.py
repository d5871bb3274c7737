"""Commands as requests, and what each reply means for the command.

Pure. The status table is the whole of our knowledge of the two services' refusals. A reply that it does not know is
*rejected*: the command becomes a dead letter and is not tried for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from drawbar.asking import error_code, error_of
from drawbar.entities import Entity, MatchQuery, SystemAdapter, with_query
from drawbar.ports import Reply
from schemas.records import Command, System

CRM_RETURN = "return=representation"  # the new row, with its version, in the reply to the write


class Verb(str, Enum):
    """What a request is for. A status can mean one thing to a create and another to an update."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"
    FIND = "find"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    verb: Verb
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Meaning(str, Enum):
    """What a reply means, so what happens next."""

    DONE = "done"
    CHANGED = "changed"  # another version than the one the decision was based on: read it fresh
    MISSING = "missing"  # no such record; of an id, to be confirmed
    TAKEN = "taken"  # the id or a unique key exists already: read it by our id
    THROTTLED = "throttled"  # not done; the lane stops for a while
    SHUT = "shut"  # not done, and not the record's fault: signed out, moved, no such company
    UNSURE = "unsure"  # the system failed: a write may have been done
    FAULT = "fault"  # as UNSURE, but perhaps because of this one record: not for ever
    FORBIDDEN = "forbidden"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the status table; a blank part fits everything."""

    status: range
    meaning: Meaning
    system: System | None = None
    verbs: frozenset[Verb] = frozenset(Verb)
    codes: frozenset[str] = frozenset()
    is_json: bool | None = None
    text: re.Pattern[str] | None = None  # looked for in the message, which is used for nothing else

    def fits(self, system: System, verb: Verb, reply: Reply) -> bool:
        return (
            reply.status in self.status
            and self.system in (None, system)
            and verb in self.verbs
            and (not self.codes or error_code(reply) in self.codes)
            and (self.is_json is None or self.is_json == reply.is_json)
            and (self.text is None or self.text.search(_message(reply)) is not None)
        )


def meaning_of(system: System, verb: Verb, reply: Reply) -> Meaning:
    """The first line of the table that fits; REJECTED when none does."""
    return next((row.meaning for row in STATUS_TABLE if row.fits(system, verb, reply)), Meaning.REJECTED)


def _on(
    status: int | tuple[int, int],
    meaning: Meaning,
    *codes: str,
    system: System | None = None,
    verbs: str = "",
    is_json: bool | None = None,
    text: str = "",
) -> Row:
    first, last = status if isinstance(status, tuple) else (status, status)
    return Row(
        status=range(first, last + 1),
        meaning=meaning,
        system=system,
        verbs=frozenset(Verb(verb) for verb in verbs.split()) or frozenset(Verb),
        codes=frozenset(codes),
        is_json=is_json,
        text=re.compile(text, re.IGNORECASE) if text else None,
    )


_ERP, _CRM = System.ERP, System.CRM
_KEYED = "update delete read"
_DENIED = ("Authorization_RequestDenied", "Authorization_RequestForbidden")
_DEADLOCK = r"deadlock|locked by another|try again"

STATUS_TABLE: tuple[Row, ...] = (
    # Both. HTML comes from a proxy, a gateway or a sign-in page, never from the service itself.
    _on((200, 299), Meaning.UNSURE, is_json=False),
    _on((200, 299), Meaning.DONE),
    _on((300, 399), Meaning.SHUT),
    _on(401, Meaning.FORBIDDEN, *_DENIED, system=_ERP),
    _on(401, Meaning.SHUT),
    _on(407, Meaning.SHUT),
    _on(408, Meaning.UNSURE),
    _on(429, Meaning.THROTTLED),
    _on((502, 504), Meaning.UNSURE),
    _on((500, 599), Meaning.UNSURE, is_json=False),
    _on((400, 499), Meaning.SHUT, is_json=False),
    _on(500, Meaning.FAULT),
    _on(403, Meaning.FORBIDDEN),
    _on(404, Meaning.SHUT, verbs="find"),  # a whole collection is gone: the company, or our way to it
    # The ERP
    _on(404, Meaning.SHUT, "BadRequest_ResourceNotFound", system=_ERP, verbs="create"),
    _on(409, Meaning.CHANGED, "Request_EntityChanged", system=_ERP, verbs="update delete"),
    _on(412, Meaning.CHANGED, system=_ERP, verbs="update delete"),
    _on(400, Meaning.TAKEN, "Internal_EntityWithSameKeyExists", system=_ERP, verbs="create update"),
    _on(409, Meaning.TAKEN, "Internal_EntityWithSameKeyExists", system=_ERP, verbs="create update"),
    _on((400, 404), Meaning.SHUT, "Internal_CompanyNotFound", system=_ERP),
    _on(
        404,
        Meaning.MISSING,
        "BadRequest_ResourceNotFound",
        "BadRequest_NotFound",
        "Internal_RecordNotFound",
        "Internal_DataNotFoundFilter",
        system=_ERP,
        verbs=_KEYED,
    ),
    # looked for a text that is longer than the field: no record can hold it
    _on(400, Meaning.MISSING, "Application_FilterErrorException", system=_ERP, verbs="find"),
    _on(400, Meaning.FAULT, "Application_DialogException", system=_ERP, text=_DEADLOCK),
    _on(409, Meaning.FAULT, "Internal_ServerError", system=_ERP),
    _on(400, Meaning.FORBIDDEN, *_DENIED, system=_ERP),
    # The CRM. Some builds leave codes empty; what was asked, or the text, says which one it was.
    _on(412, Meaning.TAKEN, "", system=_CRM, verbs="update", text=r"already exists"),
    _on(412, Meaning.CHANGED, "0x80060882", "", system=_CRM, verbs="update delete"),
    _on(412, Meaning.TAKEN, "0x80060882", "", system=_CRM, verbs="create"),
    _on(
        412,
        Meaning.TAKEN,
        "0x80040237",  # primary key or unique index
        "0x80060892",  # alternate key
        "0x80040333",  # a duplicate detection rule
        "0x80073002",
        system=_CRM,
        verbs="create update",
    ),
    _on(400, Meaning.TAKEN, "0x80073002", system=_CRM, verbs="create update"),
    _on(404, Meaning.MISSING, "0x80040217", system=_CRM, verbs=_KEYED),
    _on(404, Meaning.MISSING, "", system=_CRM, verbs=_KEYED, text=r"does not exist"),
    _on(400, Meaning.FORBIDDEN, "0x80040220", "0x80040231", "0x80048306", "0x80048405", system=_CRM),
)


# --- requests -----------------------------------------------------------------------------------------------------


def create_request(adapter: SystemAdapter, command: Command, fields: Sequence[str]) -> Request:
    """Create under our own id.

    The ERP takes the id in the body of a POST. The CRM is given a PATCH of that id that may only create: the id is
    then part of the address, and no server can leave it out of account.
    """
    entity = adapter.entity(command.target.entity)
    body = adapter.to_body(entity, command.values)
    if adapter.system is System.ERP:
        path = adapter.collection_path(entity)
        return Request(verb=Verb.CREATE, method="POST", path=path, body={entity.id_field: command.target.id, **body})
    return Request(
        verb=Verb.CREATE,
        method="PATCH",
        path=_selected(adapter, entity, command.target.id, fields),
        body=body,
        headers={"If-None-Match": "*", "Prefer": CRM_RETURN},
    )


def update_request(adapter: SystemAdapter, command: Command, version: str, fields: Sequence[str]) -> Request:
    """Write the command's values, if the record still has this version."""
    entity = adapter.entity(command.target.entity)
    body = adapter.to_body(entity, command.values)
    if adapter.system is System.ERP:
        path, headers = adapter.key_path(entity, command.target.id), {"If-Match": version}
    else:
        path = _selected(adapter, entity, command.target.id, fields)
        headers = {"If-Match": version, "Prefer": CRM_RETURN}
    return Request(verb=Verb.UPDATE, method="PATCH", path=path, body=body, headers=headers)


def delete_request(adapter: SystemAdapter, command: Command, version: str) -> Request:
    entity = adapter.entity(command.target.entity)
    path = adapter.key_path(entity, command.target.id)
    return Request(verb=Verb.DELETE, method="DELETE", path=path, headers={"If-Match": version})


def read_request(adapter: SystemAdapter, command: Command, fields: Sequence[str]) -> Request:
    entity = adapter.entity(command.target.entity)
    return Request(verb=Verb.READ, method="GET", path=_selected(adapter, entity, command.target.id, fields))


def find_request(adapter: SystemAdapter, command: Command, query: MatchQuery, fields: Sequence[str]) -> Request:
    entity = adapter.entity(command.target.entity)
    options = {"$select": adapter.select(entity, fields), "$filter": query.filter}
    return Request(verb=Verb.FIND, method="GET", path=with_query(adapter.collection_path(entity), options))


def next_page_request(link: str) -> Request:
    return Request(verb=Verb.FIND, method="GET", path=link)


def probe_request(adapter: SystemAdapter, command: Command) -> Request:
    """Any one record of the entity: while there is one to be read, a 404 of another means that it is gone."""
    entity = adapter.entity(command.target.entity)
    options = {"$select": entity.id_field, "$top": "1"}
    return Request(verb=Verb.FIND, method="GET", path=with_query(adapter.collection_path(entity), options))


def _selected(adapter: SystemAdapter, entity: Entity, record_id: str, fields: Sequence[str]) -> str:
    return with_query(adapter.key_path(entity, record_id), {"$select": adapter.select(entity, fields)})


# --- errors -------------------------------------------------------------------------------------------------------


def error_detail(reply: Reply, values: Mapping[str, Any]) -> str:
    """Status, code, and those of the written fields that the message names.

    The message itself holds values of the record (the ERP quotes them) and goes no further than this function.
    """
    message = _message(reply)
    named = [name for name in values if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message)]
    return " ".join(part for part in (str(reply.status), error_code(reply), ", ".join(named)) if part)


def _message(reply: Reply) -> str:
    return str(error_of(reply).get("message", ""))
