"""`drawbar check`: whether everything that Drawbar needs is there, and for each fault what to do.

Writes nothing anywhere. Whether a write would be allowed is asked by a conditional one that cannot happen: its version
is not the record's. A system that looks at the version before the rights cannot be seen through that way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drawbar.cli.running import plural
from drawbar.cli.shared import AsJson, ConnectionFile, open_settings, print_json_line
from schemas.errors import (
    AccessError,
    BusUnavailable,
    ConfigError,
    DrawbarError,
    MappingFileError,
    SettingsError,
    TopicMismatch,
    Unreachable,
)
from schemas.records import MatchTest, System

if TYPE_CHECKING:
    from drawbar.asking import Asker
    from drawbar.entities import Entity, SystemAdapter
    from drawbar.ports import Http, Reply
    from drawbar.settings import Settings
    from processors.mapping import EntityMapping

BROKER_WAIT_S = 5.0
GROUPS = ("capture", "decide", "sink-erp", "sink-crm")  # the consumer groups of the stages, after the prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    fault: DrawbarError | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        fault = self.fault
        return {
            "check": self.what,
            "ok": fault is None,
            "code": fault.code if fault else "",
            "message": fault.message if fault else self.note,
            "where": fault.where if fault else "",
            "next_step": fault.todo if fault else "",
        }


def check(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the two systems.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Test settings, mapping files, broker, sign-in, reach and rights at both systems; say for each fault what to do.

    Example: drawbar check --quick
    """
    from drawbar.log import set_up_log
    from drawbar.settings import LogSettings

    set_up_log(LogSettings(level="error", format="auto"))  # an outage is a finding here
    faults: list[DrawbarError] = []
    count = 0
    for finding in findings(connection_file, quick=quick):
        count += 1
        if finding.fault is not None:
            faults.append(finding.fault)
        if as_json:
            print_json_line(finding.to_json())
        else:
            _print(finding)
    if not as_json:
        typer.echo(f"{plural(count, 'check')}, {plural(len(faults), 'fault')}")
    if faults:
        raise typer.Exit(exit_code(faults))


def exit_code(faults: Iterable[DrawbarError]) -> int:
    """2 when any setting or mapping is wrong, since that comes first; else 3: something is out of reach."""
    return 2 if any(isinstance(fault, ConfigError) for fault in faults) else 3


def findings(connection_file: Path | None, *, quick: bool) -> Iterator[Finding]:
    """Everything, in the order in which one thing needs the other."""
    from drawbar.cli.mappings import check_folder

    try:
        settings = open_settings(connection_file)
    except ConfigError as fault:
        yield Finding(what="settings", fault=fault)
        return
    yield Finding(what="settings")
    mappings, faults = check_folder(settings.mappings_dir, compat=settings.compat, ownership=settings.ownership)
    yield from (Finding(what="mappings", fault=fault) for fault in faults)
    if not faults:
        yield Finding(what="mappings", note=plural(len(mappings), "mapping"))
    yield from probe_bus(settings)
    yield from probe_registry(settings)
    if not quick:
        for system in System:
            yield from probe_system(settings, system, mappings)
        yield from probe_own_currency(settings, mappings)


# --- broker -------------------------------------------------------------------------------------------------------


def probe_bus(settings: Settings) -> Iterator[Finding]:
    from drawbar.bus.clients import make_admin, wait_for_broker
    from drawbar.bus.topics import missing_rights, plan
    from schemas.errors import BusError, BusRightMissing
    from schemas.topics import TOPICS

    bus = settings.bus
    if not bus.bootstrap_servers:
        yield Finding(what="broker", note="none is named: drawbar up starts one on this machine")
        return
    try:
        wait_for_broker(bus.bootstrap_servers, bus.extra, give_up_after_s=BROKER_WAIT_S)
        yield Finding(what="broker", note=bus.bootstrap_servers)
        admin = make_admin(bus.bootstrap_servers, client_id="drawbar-check", extra=bus.extra)
        todo = plan(admin, TOPICS, partitions=bus.partitions)
        there = {spec.name for spec in TOPICS} - {topic.name for topic in todo.missing}
        lacking = missing_rights(admin, sorted(there), [f"{bus.group_prefix}.{group}" for group in GROUPS])
    except BusUnavailable as fault:
        unreachable = BusUnavailable(
            fault.message, where="bus.bootstrap_servers", next_step="check the address, the network and whether it runs"
        )
        yield Finding(what="broker", fault=unreachable)
        return
    except (BusError, SettingsError) as fault:
        yield Finding(what="broker", fault=fault)
        return
    for wrong in todo.refused:
        count = TopicMismatch(f"topic {wrong.topic} has {wrong.now} partitions, not {wrong.wanted}")
        yield Finding(what="topics", fault=count)
    if todo.missing or todo.changes:
        named = sorted({topic.name for topic in todo.missing} | {change.topic for change in todo.changes})
        differing = TopicMismatch(f"not as in the topic table: {', '.join(named)}", next_step="drawbar topics apply")
        yield Finding(what="topics", fault=differing)
    if lacking:
        yield Finding(what="rights", fault=BusRightMissing(f"the user of the bus lacks: {', '.join(lacking)}"))
    if todo.empty:
        yield Finding(what="topics", note=f"{len(todo.unchanged)} as in the topic table")


# --- registry -----------------------------------------------------------------------------------------------------


def probe_registry(settings: Settings) -> Iterator[Finding]:
    if not settings.registry.url:
        return
    from drawbar.cli.in_force import mappings_as_far_as_known
    from drawbar.registry import Registry, RegistryFraming
    from processors.mapping_files import captured_entities
    from schemas.errors import BusError

    try:
        with Registry(settings.registry) as registry:
            RegistryFraming(registry).prepare(captured_entities(mappings_as_far_as_known(settings).values()))
    except (BusError, ConfigError) as fault:
        yield Finding(what="registry", fault=fault)
    else:
        yield Finding(what="registry", note="all schemas are registered")


# --- the two systems ----------------------------------------------------------------------------------------------


def probe_system(settings: Settings, system: System, mappings: Mapping[str, EntityMapping]) -> Iterator[Finding]:
    from drawbar.odata import adapter_for, open_http

    try:
        adapter = adapter_for(settings, system)
        http = open_http(settings, system)
    except SettingsError as fault:
        yield Finding(what=f"{system} settings", fault=fault)
        return
    try:
        http.sign_in()
        yield Finding(what=f"{system} sign-in")
        yield from probe_api(http, adapter, mappings, company_id=settings.erp.company_id)
    except AccessError as fault:
        yield Finding(what=f"{system} sign-in", fault=fault)
    finally:
        http.close()


def probe_api(
    http: Http, adapter: SystemAdapter, mappings: Mapping[str, EntityMapping], *, company_id: str
) -> Iterator[Finding]:
    """What one system lets us do, entity by entity. Ends at once when the system does not answer."""
    from processors.mapping_files import captured_entities

    system = adapter.system
    try:
        if system is System.ERP:
            yield _company(http, company_id)
        for (of, name), captured in sorted(captured_entities(mappings.values()).items()):
            fields = {*captured, *_default_fields(mappings.values(), of, name)}
            if of is not system:
                continue
            try:
                entity = adapter.entity(name)
            except KeyError:
                unknown = MappingFileError(f"nothing is known of {system}:{name}", where=_named_by(mappings, of, name))
                yield Finding(what=f"{system} {name}", fault=unknown)
                continue
            found = list(_entity(http, adapter, entity, fields, _named_by(mappings, of, name)))
            yield from found
            if _is_written(mappings, system, name) and not any(finding.fault for finding in found):
                yield _write_right(http, adapter, entity)
        if system is System.CRM and company_id:
            yield from _company_row(http, adapter, mappings, company_id)
    except Unreachable as fault:
        yield Finding(what=f"{system} answers", fault=fault)


def _company(http: Http, company_id: str) -> Finding:
    from drawbar.asking import known_status

    reply = _asker(http, System.ERP).answer("GET", f"companies({company_id})")
    fault: DrawbarError | None = None
    if known_status(reply) == 404:
        fault = SettingsError(
            "erp.company_id names no company of this service",
            where="DRAWBAR_ERP__COMPANY_ID, DRAWBAR_ERP__BASE_URL",
            next_step="take the id of a company that GET companies lists",
        )
    elif reply.status != 200:
        fault = _asker(http, System.ERP).refusal("the company", reply)
    return Finding(what="erp company", fault=fault)


def _default_fields(mappings: Iterable[EntityMapping], system: System, entity: str) -> Iterator[str]:
    """What new records of an entity are given besides their mapped values."""
    for mapping in mappings:
        if mapping.entity_in(system) == entity:
            yield from mapping.defaults.erp if system is System.ERP else mapping.defaults.crm


def _entity(http: Http, adapter: SystemAdapter, entity: Entity, fields: Iterable[str], where: str) -> Iterator[Finding]:
    """Whether the records can be read, and whether every field of the mappings is there."""
    from drawbar.asking import known_status

    names = sorted(fields)
    what = f"{adapter.system} {entity.name}"
    if adapter.system is System.CRM:
        known = _columns(http, entity)
        if isinstance(known, DrawbarError):
            yield Finding(what=f"{what}: fields", fault=known)
            return
        missing = [name for name in names if name not in known]
        reply = _read(http, adapter, entity, [name for name in names if name in known])
    else:
        reply = _read(http, adapter, entity, names)
        refused = known_status(reply) == 400
        missing = [name for name in names if refused and _read(http, adapter, entity, [name]).status == 400]
        if missing:
            reply = _read(http, adapter, entity, [name for name in names if name not in missing])
    if missing:
        fault = MappingFileError(
            f"{adapter.system}:{entity.name} has no field {', '.join(missing)}",
            where=where,
            next_step="correct the name in the mapping file; names are those of the system's API",
        )
        yield Finding(what=f"{what}: fields", fault=fault)
    if reply.status != 200:
        yield Finding(what=f"{what}: read", fault=_asker(http, adapter.system).refusal(f"reading {entity.name}", reply))
    elif not missing:
        yield from _joined(http, adapter, entity, names)
        yield Finding(what=f"{what}: read", note=f"{plural(len(names), 'field')}")


def _joined(http: Http, adapter: SystemAdapter, entity: Entity, names: Iterable[str]) -> Iterator[Finding]:
    """Whether the sets that say fields of all records together can be read; told where not."""
    from drawbar.entities import Joined

    for name in names:
        derived = entity.derived.get(name)
        if not isinstance(derived, Joined):
            continue
        path = adapter.collection_path(replace(entity, entity_set=derived.entity_set))
        reply = _asker(http, adapter.system).answer("GET", _query(path, {"$top": "1"}))
        if reply.status != 200:
            refusal = _asker(http, adapter.system).refusal(f"reading {derived.entity_set}", reply)
            yield Finding(what=f"{adapter.system} {entity.name}: {name}", fault=refusal)


def _columns(http: Http, entity: Entity) -> frozenset[str] | DrawbarError:
    """The columns of a CRM table, from its live metadata."""
    path = f"EntityDefinitions(LogicalName='{entity.name}')/Attributes?$select=LogicalName"
    reply = _asker(http, System.CRM).answer("GET", path)
    if reply.status == 404:
        return MappingFileError(
            f"the CRM has no table {entity.name}",
            where="the mapping files",
            next_step="import the solution that brings it, or take the mapping out",
        )
    if reply.status != 200 or not isinstance(reply.body, dict):
        return _asker(http, System.CRM).refusal(f"the metadata of {entity.name}", reply)
    return frozenset(str(row.get("LogicalName", "")) for row in reply.body.get("value", ()))


def _write_right(http: Http, adapter: SystemAdapter, entity: Entity) -> Finding:
    """Ask for a write that cannot happen. Refused for its version: the right is there, as far as this tells."""
    from consumers.requests import Meaning, Verb, meaning_of

    what = f"{adapter.system} {entity.name}: write"
    path = f"{adapter.collection_path(entity)}?$top=2&$select={adapter.select(entity, [])}"
    rows = _rows(_asker(http, adapter.system).answer("GET", path))
    version = 'W/"0"' if adapter.system is System.CRM else str(rows[1].get("@odata.etag", "")) if len(rows) > 1 else ""
    if not rows or not version or version == rows[0].get("@odata.etag"):
        return Finding(what=what, note="cannot be told: too few records to ask with")
    reply = _asker(http, adapter.system).answer(
        "PATCH",
        adapter.key_path(entity, str(rows[0][entity.id_field])),
        body={},
        headers={"If-Match": version},
    )
    meaning = meaning_of(adapter.system, Verb.UPDATE, reply)
    if meaning is Meaning.CHANGED:
        return Finding(what=what, note="allowed, as far as can be told without writing")
    if meaning is Meaning.FORBIDDEN:
        return Finding(what=what, fault=_asker(http, adapter.system).refusal(f"writing {entity.name}", reply))
    return Finding(what=what, note=f"cannot be told: status {reply.status}")


def _company_row(
    http: Http, adapter: SystemAdapter, mappings: Mapping[str, EntityMapping], company_id: str
) -> Iterator[Finding]:
    """The CRM row that stands for our company: accounts are stamped with it, its team owns what nobody else owns."""
    for mapping in mappings.values():
        key = mapping.key.crm
        if mapping.role != "company" or mapping.crm is None or key is None:
            continue
        entity = adapter.entity(mapping.crm)
        fields = mapping.captured_fields(System.CRM)
        (query,) = adapter.match_queries(entity, [MatchTest(equals={key: company_id})], within={}, within_blank_or={})
        select = adapter.select(entity, fields)
        path = _query(adapter.collection_path(entity), {"$filter": query.filter, "$select": select})
        reply = _asker(http, System.CRM).answer("GET", path)
        if reply.status != 200:
            continue  # reading this table has its own line
        found = [adapter.to_observed(entity, row, fields) for row in _rows(reply)]
        yield Finding(what="crm company row", fault=_company_fault(entity, key, found))


def _company_fault(entity: Entity, key: str, found: list[Any]) -> DrawbarError | None:
    where = f"crm:{entity.name}, erp.company_id"
    if not found:
        return SettingsError(
            f"no row of crm:{entity.name} has the company's id in {key}",
            where=where,
            next_step=f"make the row, with erp.company_id in {key} and an owning team; accounts wait until it is there",
        )
    if len(found) > 1:
        return SettingsError(
            f"{len(found)} rows of crm:{entity.name} have the company's id in {key}",
            where=where,
            next_step="leave one of them",
        )
    if not found[0].state.get("bcbi_defaultowningteamid"):
        return SettingsError(
            f"the company's row in crm:{entity.name} names no owning team",
            where=f"{where}, bcbi_defaultowningteamid",
            next_step="name a team there: it owns accounts whose salesperson is unknown",
        )
    return None


def probe_own_currency(settings: Settings, mappings: Mapping[str, EntityMapping]) -> Iterator[Finding]:
    """Whether the CRM has a row of the company's own currency. What does not answer has its own line."""
    from drawbar.odata import adapter_for, open_http

    name = next((mapping.erp for mapping in mappings.values() if mapping.role == "local-currency"), None)
    if name is None or not any(line.currency for mapping in mappings.values() for line in mapping.fields):
        return
    opened: list[Any] = []
    try:
        erp = adapter_for(settings, System.ERP)
        opened += [open_http(settings, System.ERP), open_http(settings, System.CRM)]
        for http in opened:
            http.sign_in()
        fault = _own_currency_fault(opened[0], opened[1], erp, erp.entity(name))
    except DrawbarError:
        return
    finally:
        for http in opened:
            http.close()
    yield Finding(what="crm own currency", fault=fault)


def _own_currency_fault(erp_http: Http, crm_http: Http, erp: SystemAdapter, entity: Entity) -> DrawbarError | None:
    """Raises DrawbarError when one of the two does not tell."""
    from drawbar.cli.own_currency import row_of

    rows = _asker(erp_http, System.ERP).rows(_query(erp.collection_path(entity), {"$select": "currencyCode"}))
    code = str(rows[0].get("currencyCode") or "") if rows else ""
    if not code or row_of(_asker(crm_http, System.CRM), code) is not None:
        return None
    return SettingsError(
        f"the CRM has no row of the company's own currency {code}",
        where="crm:transactioncurrency",
        next_step="drawbar setup currency; until it is there accounts keep the currency that the CRM gives them",
    )


# --- asking -------------------------------------------------------------------------------------------------------


def _read(http: Http, adapter: SystemAdapter, entity: Entity, fields: Iterable[str]) -> Reply:
    names = list(fields)
    query = {"$select": adapter.select(entity, names), "$expand": adapter.expand(entity, names), "$top": "1"}
    return _asker(http, adapter.system).answer("GET", _query(adapter.collection_path(entity), query))


def _query(path: str, options: Mapping[str, str]) -> str:
    from drawbar.entities import with_query

    return with_query(path, options)


def _rows(reply: Reply) -> list[dict[str, Any]]:
    body = reply.body if reply.status == 200 and isinstance(reply.body, dict) else {}
    rows: list[dict[str, Any]] = body.get("value", [])
    return rows


def _asker(http: Http, system: System) -> Asker:
    from drawbar.asking import Asker

    return Asker(http=http, system=system)


def _named_by(mappings: Mapping[str, EntityMapping], system: System, entity: str) -> str:
    names = [mapping.name for mapping in mappings.values() if mapping.entity_in(system) == entity]
    return f"mapping {', '.join(names)}"


def _is_written(mappings: Mapping[str, EntityMapping], system: System, entity: str) -> bool:
    direction = "to_erp" if system is System.ERP else "to_crm"
    return any(mapping.flows(direction) for mapping in mappings.values() if mapping.entity_in(system) == entity)


def _print(finding: Finding) -> None:
    if finding.fault is None:
        typer.echo(f"ok     {finding.what:<28} {finding.note}".rstrip())
        return
    first, *rest = finding.fault.for_people().splitlines()
    typer.echo(f"FAULT  {finding.what:<28} {first}")
    for line in rest:
        typer.echo(f"     {line}")
