"""`drawbar mappings`: what is synchronised and how, and whether the mapping files are right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from drawbar.cli.explain import homes_of
from drawbar.cli.running import Running, plural, running, say_unreadable
from drawbar.cli.shared import (
    AsJson,
    ConnectionFile,
    MappingName,
    new_app,
    open_settings,
    print_error,
    print_json_line,
    print_table,
    utc_now,
)
from schemas.errors import UsageError

if TYPE_CHECKING:
    from drawbar.cli.mapping_faults import Finding, Live
    from drawbar.cli.preview import Preview
    from drawbar.metadata import Facts
    from drawbar.settings import Settings
    from processors.mapping import EntityMapping, FieldMapping
    from processors.mapping_diff import Effect, KeyChange, MappingChange, NewFields
    from schemas.coupling import Row
    from schemas.errors import DrawbarError
    from schemas.records import System

app = new_app("What is synchronised and how; whether the mapping files are right.")

KEY_WIDTH = 80  # a change of a key that takes more is only named
ARROWS = {"both": "<->", "to_crm": "-->", "to_erp": "<--"}


@app.command("list")
def list_mappings(as_json: AsJson = False, connection_file: ConnectionFile = None) -> None:
    """List the mappings that are in force.

    Example: drawbar mappings list
    """
    mappings = _mappings(connection_file)
    if as_json:
        for mapping in mappings.values():
            print_json_line(summary(mapping))
        return
    print_table(
        ("mapping", "ERP and CRM", "creates", "conflict", "deletes", "fields"),
        [(mapping.name, _entities(mapping), *_policies(mapping)) for mapping in mappings.values()],
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the mapping.")],
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show one mapping line by line.

    Example: drawbar mappings show customer-account
    """
    from drawbar.rows import suggestion

    mappings = _mappings(connection_file)
    if name not in mappings:
        raise UsageError(f"no mapping is called {name!r}", next_step=suggestion(name, list(mappings)))
    mapping = mappings[name]
    if as_json:
        print_json_line(mapping.model_dump(mode="json"))
        return
    for label, text in facts(mapping).items():
        if text:
            typer.echo(f"{label:<10} {text}")
    if mapping.fields:
        print_table(
            (f"erp:{mapping.erp}", "", f"crm:{mapping.crm}", "how"),
            [(line.erp or "", ARROWS[line.direction], line.crm or "", how(line)) for line in mapping.fields],
        )


@app.command()
def check(
    folder: Annotated[
        Optional[Path], typer.Argument(metavar="[FOLDER]", help="Folder of the files; default: that of the settings.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the two systems what fields they have.")
    ] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Check mapping files: by themselves, every example, and against the live metadata of the systems that are named.

    Keys without effect and values that may be too long are told, too; they do not make the check fail.

    Example: drawbar mappings check ./mappings
    """
    from schemas.errors import MappingExampleFailed

    settings = open_settings(connection_file)
    where = folder or settings.mappings_dir
    found, faults = check_folder(where, compat=settings.compat, ownership=settings.ownership)
    asked: tuple[System, ...] = ()
    notes: list[DrawbarError] = []
    if all(isinstance(fault, MappingExampleFailed) for fault in faults):  # a wrong name spoils its examples, too
        asked = () if offline else named_systems(settings)
        findings = list(findings_of(where, settings, asked))
        faults = [*(finding.error for finding in findings if finding.stops), *faults]
        notes = [finding.error for finding in findings if not finding.stops]
    for fault in (*faults, *notes):
        if as_json:
            print_json_line({**fault_json(fault), "stops": fault in faults})
        else:
            print_error(fault)
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))
    examples = sum(len(mapping.examples) for mapping in found.values())
    if as_json:
        said = {"mappings": sorted(found), "examples": examples, "faults": 0, "notes": len(notes)}
        print_json_line({**said, "asked": [system.value for system in asked]})
        return
    against = " and ".join(f"the {system.value.upper()}" for system in asked)
    how_far = f"held against {against}" if against else "not held against the systems"
    told = f"{plural(len(notes), 'note')}, no fault" if notes else "all right"
    typer.echo(f"{plural(len(found), 'mapping')} and {plural(examples, 'example')}, {how_far}: {told}")


def named_systems(settings: Settings) -> tuple[System, ...]:
    """Those of the two that the settings say how to reach."""
    from schemas.records import System

    addresses = {System.ERP: settings.erp.base_url, System.CRM: settings.crm.base_url}
    return tuple(system for system in System if addresses[system])


def findings_of(folder: Path | None, settings: Settings, asked: Iterable[System]) -> Iterator[Finding]:
    """What there is to say of files that are right by themselves. Raises the coded error of a system that does not
    tell its metadata.
    """
    from drawbar.cli.mapping_faults import idle, mismatches, unknown_entities
    from processors.mapping_files import read_files

    files = read_files(folder)
    unknown = list(unknown_entities(files.values()))
    yield from unknown
    if not unknown:
        yield from mismatches(files, live_facts(settings, asked, [file.mapping for file in files.values()]))
    for file in files.values():
        yield from idle(file)


def live_facts(settings: Settings, asked: Iterable[System], mappings: Iterable[EntityMapping]) -> Live:
    """The fields of every mapped entity of these systems. Raises AccessError, SourceBroken, SettingsError."""
    from drawbar.metadata import read_facts
    from drawbar.odata import adapter_for, open_http

    known = tuple(mappings)
    live: dict[tuple[System, str], Facts | None] = {}
    for system in asked:
        names = sorted({name for mapping in known if (name := mapping.entity_in(system)) is not None})
        adapter, http = adapter_for(settings, system), open_http(settings, system)
        try:
            http.sign_in()
            live |= {(system, name): facts for name, facts in read_facts(http, adapter, names).items()}
        finally:
            http.close()
    return live


@app.command("test")
def run_examples(
    folder: Annotated[
        Optional[Path], typer.Argument(metavar="[FOLDER]", help="Folder of the files; default: that of the settings.")
    ] = None,
    mapping: MappingName = None,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Run the examples in the mapping files, each in every direction it allows, and say how each came out.

    Example: drawbar mappings test ./mappings --mapping contact
    """
    from drawbar.rows import suggestion
    from processors.mapping_files import example_results, read_files
    from schemas.errors import MappingExampleFailed

    files = read_files(folder or open_settings(connection_file).mappings_dir)
    if mapping is not None and mapping not in files:
        raise UsageError(f"no mapping is called {mapping!r}", next_step=suggestion(mapping, list(files)))
    results = [result for name, file in files.items() if mapping in (None, name) for result in example_results(file)]
    failed = [result for result in results if result.fault]
    for result in results:
        if as_json:
            print_json_line({**asdict(result), "ok": not result.fault})
            continue
        fields = plural(result.compared, "field")
        said = "FAULT " if result.fault else "ok    "
        typer.echo(f"{said} {result.mapping}  {ARROWS[result.direction]}  {result.name} ({fields})")
        if result.fault:
            typer.echo(f"       {result.fault}\n       {result.where}")
    if not as_json:
        typer.echo(f"{plural(len(results), 'run')} of examples, {plural(len(failed), 'fault')}")
    if failed:
        raise typer.Exit(MappingExampleFailed.exit_code)


@app.command("preview")
def preview_record(
    ctx: typer.Context,
    record: Annotated[str, typer.Argument(metavar="REF|KEY", help="Record, by id or business key.")],
    mapping: MappingName = None,
    direction: Annotated[
        Optional[Literal["to_crm", "to_erp"]], typer.Option("--direction", help="Only this way.", show_default="both")
    ] = None,
    folder: Annotated[
        Optional[Path],
        typer.Option(
            "--folder", help="Preview the files in this folder instead of those in force.", show_default=False
        ),
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Print the values of fields, too.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show what would be sent for a record as it was last seen, line by line and why, and the request. Sends nothing.

    Example: drawbar mappings preview erp:customer:number=C-10 --direction to_crm
    """
    system = running(ctx, connection_file)
    ref, homes = homes_of(record, system, mapping)
    made = [
        found
        for row in homes
        if not row.is_empty
        for found in previews_of(row, system, mappings_in(folder, system), direction, values=values)
    ]
    if not made:
        raise UsageError(f"nothing would flow from {ref}", next_step="drawbar explain tells what is known of it")
    for one in made:
        if as_json:
            print_json_line({"ref": ref, **asdict(one)})
        else:
            print_preview(ref, one)
    say_unreadable(system.rows)


@app.command()
def diff(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the changed files.")],
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show how the files in a folder differ from the mappings in force, and for how many records a write would follow.

    Counted over the latest state of all known records. Changes nothing. Exit code 0 whether they differ or not.

    Example: drawbar mappings diff ./mappings-of-tomorrow
    """
    system = running(ctx, connection_file)
    found = difference(system, mappings_in(folder, system))
    if as_json:
        print_json_line(asdict(found))
    else:
        print_difference(found)
    say_unreadable(system.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    changes: tuple[MappingChange, ...]
    new_fields: tuple[NewFields, ...]
    effects: tuple[Effect, ...]
    rows: int


def difference(system: Running, after: Mapping[str, EntityMapping]) -> Difference:
    """Between what is in force and these, over the latest state of all known records."""
    from processors.coupling import Fingerprints
    from processors.mapping_diff import changes_of, effects_of, new_fields

    before, rows = system.mappings, system.rows.rows()
    prints = Fingerprints.of_key(system.settings.fingerprint_key.get_secret_value())
    company_id = system.settings.erp.company_id
    return Difference(
        changes=changes_of(before, after),
        new_fields=new_fields(before.values(), after.values()),
        effects=effects_of(rows.values(), before, after, prints=prints, company_id=company_id),
        rows=len(rows),
    )


SIGNS = {"added": "+", "removed": "-", "changed": "~"}
TARGETS = {"to_crm": "CRM", "to_erp": "ERP"}


def print_difference(found: Difference) -> None:
    if not found.changes:
        typer.echo("the files say what is in force")
        return
    for change in found.changes:
        typer.echo(f"{SIGNS[change.kind]} {change.name}")
        for key in change.keys:
            typer.echo(f"    {key_change(key)}")
        for line in change.lines:
            said = "; ".join(key_change(key) for key in line.keys)
            typer.echo(f"  {SIGNS[line.kind]} {line.erp or '(made)'} {line.crm}{f': {said}' if said else ''}")
    typer.echo("")
    for new in found.new_fields:
        typer.echo(f"not captured yet: {new.system}:{new.entity} {', '.join(new.fields)}; the entity is captured anew")
    typer.echo(f"what would follow, over the latest state in {plural(found.rows, 'row')}:")
    for effect in found.effects:
        for text in effect_lines(effect):
            typer.echo(f"  {effect.mapping}: {text}")
    if not found.effects:
        typer.echo("  nothing")


def key_change(key: KeyChange) -> str:
    """`crm_length: 200 -> 150`; of what is long only that it changed."""
    said = [json.dumps(value, ensure_ascii=False) for value in (key.before, key.after)]
    if sum(map(len, said)) > KEY_WIDTH:
        return f"{key.key}: changed"
    return f"{key.key}: {said[0]} -> {said[1]}"


def effect_lines(effect: Effect) -> Iterator[str]:
    for direction, count in sorted(effect.writes.items()):
        names = counted(effect.fields[direction])
        yield f"{plural(count, 'record')} of the {TARGETS[direction]} would be written ({names})"
    for direction, count in sorted(effect.made.items()):
        yield f"{plural(count, 'record')} would be made in the {TARGETS[direction]}"
    for direction, count in sorted(effect.deleted.items()):
        yield f"{plural(count, 'record')} of the {TARGETS[direction]} would be DELETED, after their lost counterparts"
    for how, count in sorted(effect.settled.items()):
        done = "uncoupled" if how == "uncouple" else "restored in the system that lost them"
        yield f"{plural(count, 'pair')} would be {done}"
    if effect.dropped:
        yield f"{plural(effect.dropped, 'pair')} would not be kept in step any more"
    if effect.matched:
        yield f"{plural(effect.matched, 'pair')} would be coupled"
    if effect.differ:
        yield f"left as it stands for now, though it would come to another value: {counted(effect.differ)}"
    if effect.unknown:
        yield f"not known before they are captured: {counted(effect.unknown)}"


def counted(fields: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(fields.items(), key=lambda item: (-item[1], item[0])))


def mappings_in(folder: Path | None, system: Running) -> Mapping[str, EntityMapping]:
    """The mappings of a folder under the settings of the running system; None: those in force."""
    from processors.mapping_files import load_mappings

    if folder is None:
        return system.mappings
    return load_mappings(folder, compat=system.settings.compat, ownership=system.settings.ownership)


def previews_of(
    row: Row, system: Running, mappings: Mapping[str, EntityMapping], direction: str | None, *, values: bool
) -> Iterator[Preview]:
    from drawbar.cli.preview import adapters, preview
    from processors.coupling import Fingerprints
    from processors.mapping import DIRECTIONS, target_of
    from processors.mapping_files import captured_entities
    from processors.turn import World
    from processors.view import ReferenceView

    if row.mapping not in mappings:
        raise UsageError(f"the folder has no mapping {row.mapping}", next_step="name another with --mapping")
    settings, mapping = system.settings, mappings[row.mapping]
    company_id = settings.erp.company_id
    view = ReferenceView(mappings.values(), company_id=company_id)
    for known in system.rows.rows().values():
        view.apply(known)
    prints = Fingerprints.of_key(settings.fingerprint_key.get_secret_value())
    world = World(mappings=mappings, view=view, prints=prints, company_id=company_id)
    captured = captured_entities(mappings.values())
    for way in DIRECTIONS:
        if direction not in (None, way):
            continue
        target = target_of(way)
        fields = captured.get((target, str(mapping.entity_in(target))), ())
        adapter = adapters(company_id)[target]
        found = preview(row, way, world, adapter, fields=fields, now=utc_now(), values=values)
        if found is not None:
            yield found


def print_preview(ref: str, one: Preview) -> None:
    from drawbar.odata import to_json

    typer.echo(f"{ref}  mapping {one.mapping}, {one.direction}: {one.verdict}")
    columns = ("from", "to", "value", "becomes", "why", "then")
    print_table(
        columns,
        [(line.source, line.target, line.before, line.after, line.why, line.then) for line in one.lines],
    )
    for request in one.requests:
        typer.echo(f"{request.when}: {request.method} {request.path}")
        for name, value in request.headers.items():
            typer.echo(f"  {name}: {value}")
        for name, value in (request.body or {}).items():
            typer.echo(f"  {name} = {value if isinstance(value, str) and value.startswith('<') else to_json(value)}")
    typer.echo("")


def check_folder(
    folder: Path | None, *, compat: str, ownership: str
) -> tuple[Mapping[str, EntityMapping], list[DrawbarError]]:
    """The mappings of a folder, and every fault: of each file by itself, then of all together."""
    from processors.mapping_files import load_mappings, read_mapping, shipped_folder
    from schemas.errors import ConfigError

    faults: list[DrawbarError] = []
    for path in sorted((folder or shipped_folder()).glob("*.yaml")):
        try:
            read_mapping(path)
        except ConfigError as fault:  # noqa: PERF203 - each file has its own fault
            faults.append(fault)
    if faults:
        return {}, faults
    try:
        return load_mappings(folder, compat=compat, ownership=ownership), []
    except ConfigError as fault:
        return {}, [fault]


def fault_json(fault: DrawbarError) -> dict[str, Any]:
    return {"code": fault.code, "message": fault.message, "where": fault.where, "next_step": fault.todo}


def summary(mapping: EntityMapping) -> dict[str, Any]:
    return {
        "name": mapping.name,
        "role": mapping.role,
        "erp": mapping.erp,
        "crm": mapping.crm,
        "direction": mapping.direction,
        "create": mapping.create,
        "conflict": mapping.conflict,
        "deletes": mapping.deletes,
        "fields": sum(line.enabled for line in mapping.fields),
        "examples": len(mapping.examples),
    }


def _entities(mapping: EntityMapping) -> str:
    if mapping.role == "pair":
        return f"{mapping.erp} {ARROWS[mapping.direction]} {mapping.crm}"
    return mapping.erp or mapping.crm or ""


def _policies(mapping: EntityMapping) -> tuple[str, str, str, str]:
    if mapping.role != "pair":
        return "looked up", "only", "", ""
    enabled = sum(line.enabled for line in mapping.fields)
    return mapping.create, mapping.conflict, mapping.deletes, str(enabled)


def facts(mapping: EntityMapping) -> dict[str, str]:
    """What a mapping says besides its lines, in words."""
    keys = [f"erp {mapping.key.erp}" if mapping.key.erp else "", f"crm {mapping.key.crm}" if mapping.key.crm else ""]
    said = {"mapping": mapping.name, "key": ", ".join(key for key in keys if key)}
    if mapping.role != "pair":
        captured = [*mapping.also_capture.erp, *mapping.also_capture.crm]
        return said | {"role": f"{mapping.role}: looked up only", "captures": ", ".join(captured)}
    groups = [" and ".join(f"{pair.erp} = {pair.crm}" for pair in group) for group in mapping.match]
    return said | {
        "authority": str(mapping.authority),
        "creates": mapping.create,
        "matches by": ", else ".join(groups),
        "conflict": mapping.conflict,
        "deletes": mapping.deletes,
        "ERP filter": _conditions(mapping.filter.erp),
        "CRM filter": _conditions(mapping.filter.crm),
    }


def _conditions(conditions: Iterable[Any]) -> str:
    return ", ".join(f"{condition.field} is {_wanted(condition)}" for condition in conditions)


def _wanted(condition: Any) -> str:
    if condition.company:
        return "this company or blank"
    if condition.entity is not None:
        return f"a reference to {condition.entity}"
    if condition.blank is False:
        return "not blank"
    return "blank" if condition.equals is None else str(condition.equals)


def how(line: FieldMapping) -> str:
    """What happens to a value on its way, in a few words."""
    lengths = [f"erp {line.erp_length}" if line.erp_length else "", f"crm {line.crm_length}" if line.crm_length else ""]
    said = (
        "" if line.enabled else "switched off",
        "required" if line.required else "",
        line.type if line.type != "text" else "",
        _transform(line.transform) if line.transform else "",
        f"owner by {line.owner}" if line.owner else "",
        f"{'option' if line.options is not None else 'reference'} by {line.reference}" if line.reference else "",
        f"of its {line.reference_by}" if line.refers_by_field else "",
        "names its table" if line.names_entity else "",
        "currency" if line.currency else "",
        "rate to the base currency" if line.rate else "",
        "once" if line.once else "",
        "this company" if line.company else "",
        "the company's team" if line.team else "",
        f"conflict {line.conflict}" if line.conflict else "",
        f"length {' '.join(part for part in lengths if part)}" if any(lengths) else "",
    )
    return ", ".join(part for part in said if part)


def _transform(name: str) -> str:
    from processors.transforms import TRANSFORMS

    return f"{name} (lossy)" if TRANSFORMS[name].lossy else name


def _mappings(connection_file: Path | None) -> Mapping[str, EntityMapping]:
    from drawbar.cli.in_force import mappings_as_far_as_known

    return mappings_as_far_as_known(open_settings(connection_file))
