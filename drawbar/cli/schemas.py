"""`drawbar schemas`: what is written to the topics, held against the schema registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from drawbar.cli.shared import AsJson, ConnectionFile, new_app, open_settings, print_json_line, print_table, say
from schemas.errors import UsageError

if TYPE_CHECKING:
    from drawbar.registry import Registry, SubjectPlan
    from drawbar.settings import Settings
    from processors.mapping import EntityMapping

app = new_app("Schemas: what the registry has, and what is written by the mappings in force.")


@app.command("plan")
def plan_schemas(connection_file: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show which schemas would be registered; change nothing. Ends with 1 when the registry would refuse one.

    Example: drawbar schemas plan --connection-file connection.json
    """
    settings = _with_registry(connection_file)
    with _registry(settings) as registry:
        found = registry.plan(schemas_in_force(settings))
    _show(found, as_json=as_json, words={"new": "to register", "changed": "a new version", "refused": "refused"})
    if any(one.what == "refused" for one in found):
        raise typer.Exit(1)


@app.command("apply")
def apply_schemas(connection_file: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Register what is new or changed, after the registry has said that it is compatible; else nothing at all.

    Example: drawbar schemas apply --connection-file connection.json
    """
    settings = _with_registry(connection_file)
    with _registry(settings) as registry:
        found = registry.apply(schemas_in_force(settings))
    _show(found, as_json=as_json, words={"new": "registered", "changed": "a new version registered"})


def schemas_in_force(settings: Settings) -> dict[str, dict[str, Any]]:
    """Subject -> schema of all that the stages write."""
    from drawbar.cli.in_force import mappings_as_far_as_known

    return schemas_for(settings, mappings_as_far_as_known(settings))


def schemas_for(settings: Settings, mappings: Mapping[str, EntityMapping]) -> dict[str, dict[str, Any]]:
    """Subject -> schema, by these mappings and what the systems say of the fields they name."""
    from drawbar.cli.mappings import live_facts, named_systems
    from drawbar.registry import schemas_of
    from processors.mapping_files import captured_entities
    from schemas.errors import DrawbarError

    try:
        live = live_facts(settings, named_systems(settings), mappings.values())
    except DrawbarError as fault:
        say(f"the types of columns are those that Drawbar knows; the systems tell none: {fault.code} {fault.message}")
        live = {}
    facts = {key: found for key, found in live.items() if found is not None}
    return schemas_of(captured_entities(mappings.values()), facts)


def _with_registry(connection_file: Any) -> Settings:
    settings = open_settings(connection_file)
    if not settings.registry.url:
        raise UsageError("no registry is named", where="DRAWBAR_REGISTRY__URL", next_step="name one there")
    return settings


def _registry(settings: Settings) -> Registry:
    from drawbar.registry import Registry

    return Registry(settings.registry)


def _show(found: Sequence[SubjectPlan], *, as_json: bool, words: Mapping[str, str]) -> None:
    if as_json:
        for one in found:
            print_json_line({"subject": one.subject, "what": one.what, "version": one.version, "reason": one.reason})
        return
    print_table(
        ("subject", "what", "latest version"),
        [(one.subject, words.get(one.what, one.what), str(one.version or "none")) for one in found],
    )
