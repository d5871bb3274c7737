"""Read the mapping files of a folder, and say what is wrong with one by file, line and suggestion.

The shell of `processors/mapping.py`: the only part of the processors that reads files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from processors.mapping import EntityMapping, FieldMapping, Known, carry, equal, source_of, target_of, with_compat
from processors.view import ReferenceView
from schemas.errors import MappingExampleFailed, MappingFileError
from schemas.records import System, Value

SHIPPED = Path(__file__).resolve().parent.parent / "mappings"
INSTALLED = Path(__file__).resolve().parent.parent / "drawbar" / "_mappings"


def shipped_folder() -> Path:
    """The mapping files that come with Drawbar."""
    return SHIPPED if SHIPPED.is_dir() else INSTALLED


def load_mappings(
    folder: Path | None, *, compat: str = "drawbar", ownership: str = "person"
) -> dict[str, EntityMapping]:
    """Every `*.yaml` of the folder (None: the shipped ones), by name of the mapping.

    Raises MappingFileError naming file and line for the first fault, MappingExampleFailed for an example that does
    not come out as written.
    """
    folder = folder or shipped_folder()
    paths = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if not paths:
        raise MappingFileError("there is no mapping file", where=str(folder))
    found: dict[str, EntityMapping] = {}
    for path in paths:
        mapping = read_mapping(path)
        if mapping.name in found:
            raise MappingFileError(f"a second mapping is called {mapping.name!r}", where=str(path))
        found[mapping.name] = with_compat(mapping, compat=compat, ownership=ownership)
    for mapping in found.values():
        _check_references(mapping, found, folder)
        check_examples(mapping)
    return found


def read_mapping(path: Path) -> EntityMapping:
    """One mapping file. Raises MappingFileError with the line of the fault."""
    text = path.read_text(encoding="utf-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(fault, "problem", None) or "cannot be read"
        raise MappingFileError(f"not YAML: {problem}", where=f"{path}{line}") from fault
    if not isinstance(values, dict):
        raise MappingFileError("a mapping file is a table of keys", where=str(path))
    try:
        return EntityMapping.model_validate(_exact(values))
    except ValidationError as fault:
        first = fault.errors()[0]
        location = tuple(first["loc"])
        where = f"{path}:{_line_of(node, location)}"
        raise MappingFileError(
            _sentence(first, location), where=where, next_step=_suggestion(first, location)
        ) from fault


def _exact(value: Any) -> Any:
    """YAML's floats as Decimal: amounts are exact."""
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


def _line_of(node: Any, location: tuple[int | str, ...]) -> int:
    """Line of the innermost part of `location` that the file has, counted from 1."""
    line = int(node.start_mark.line) + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            hit = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if hit is None:
                break
            line, node = hit[0].start_mark.line + 1, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _sentence(error: Any, location: tuple[int | str, ...]) -> str:
    path = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {location[-1]!r}" if len(location) == 1 else f"unknown key {location[-1]!r} in {path}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _suggestion(error: Any, location: tuple[int | str, ...]) -> str:
    if error["type"] != "extra_forbidden":
        return ""
    known = list(_model_at(location).model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    return FieldMapping if location and location[0] == "fields" and len(location) > 1 else EntityMapping


def _check_references(mapping: EntityMapping, found: Mapping[str, EntityMapping], folder: Path) -> None:
    for number, line in enumerate(mapping.fields):
        for name in (line.owner, line.reference):
            if name is not None and name not in found:
                close = difflib.get_close_matches(name, list(found), n=1)
                raise MappingFileError(
                    f"no mapping is called {name!r}",
                    where=f"{folder}/{mapping.name}.yaml, field line {number + 1} ({line.erp} <-> {line.crm})",
                    next_step=f"did you mean {close[0]!r}?" if close else f"known mappings: {', '.join(sorted(found))}",
                )


def check_examples(mapping: EntityMapping) -> None:
    """Run every example of a mapping in each direction it allows. Raises MappingExampleFailed."""
    view = ReferenceView((mapping,), company_id="")
    for example in mapping.examples:
        for direction in ("to_crm", "to_erp"):
            if example.direction not in ("both", direction) or not mapping.flows(direction):
                continue
            for line in mapping.lines(direction):
                fault = _example_fault(line, example.erp, example.crm, direction, view)
                if fault:
                    raise MappingExampleFailed(f"example {example.name!r}: {fault}", where=f"mapping {mapping.name}")


def _example_fault(
    line: FieldMapping, erp: Mapping[str, Any], crm: Mapping[str, Any], direction: str, view: ReferenceView
) -> str:
    names: dict[System, Mapping[str, Value]] = {System.ERP: erp, System.CRM: crm}
    source, target = source_of(direction), target_of(direction)
    here, there = line.name_in(source), line.name_in(target)
    if here not in names[source] or there not in names[target]:
        return ""
    way = "to_crm" if direction == "to_crm" else "to_erp"
    carried = carry(line, names[source][here], way, view, creating=True)  # type: ignore[arg-type]
    if not isinstance(carried, Known):
        return f"{here} -> {there}: needs other records; an example is about plain fields"
    if not equal(line, carried.value, names[target][there]):
        return f"{here} -> {there}: comes out as {carried.value!r}, not {names[target][there]!r}"
    return ""


def captured_entities(mappings: Iterable[EntityMapping]) -> dict[tuple[System, str], tuple[str, ...]]:
    """Which fields of which entity capture has to read."""
    fields: dict[tuple[System, str], set[str]] = {}
    for mapping in mappings:
        for system in System:
            entity = mapping.entity_in(system)
            if entity is not None:
                fields.setdefault((system, entity), set()).update(mapping.captured_fields(system))
    return {key: tuple(sorted(names)) for key, names in fields.items()}


def looked_up_only(mappings: Iterable[EntityMapping]) -> frozenset[tuple[System, str]]:
    """Entities whose records do not flow: they may be read at a slower pace."""
    flowing = {
        (system, mapping.entity_in(system)) for mapping in mappings if mapping.role == "pair" for system in System
    }
    return frozenset(key for key in captured_entities(mappings) if key not in flowing)
