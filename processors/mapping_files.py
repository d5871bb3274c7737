"""Read the mapping files of a folder, and say what is wrong with one by file, line and suggestion.

The shell of `processors/mapping.py`: the only part of the processors that reads files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from processors.mapping import DIRECTIONS, Direction, EntityMapping, FieldMapping, source_of, target_of, with_compat
from processors.transfer import Known, carry, equal
from processors.view import ReferenceView
from schemas.errors import MappingExampleFailed, MappingFileError
from schemas.records import System, Value

SHIPPED = Path(__file__).resolve().parent.parent / "mappings"
INSTALLED = Path(__file__).resolve().parent.parent / "drawbar" / "_mappings"


def shipped_folder() -> Path:
    """The mapping files that come with Drawbar."""
    return SHIPPED if SHIPPED.is_dir() else INSTALLED


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A mapping file as it was read, with what is needed to name a line of it."""

    path: Path
    node: Any
    mapping: EntityMapping

    def where(self, *location: int | str) -> str:
        """File and line of a part of it, such as `"fields", 3, "crm"`."""
        return f"{self.path}:{_line_of(self.node, location)}"


def load_mappings(
    source: Path | Mapping[Path, str] | None, *, compat: str = "drawbar", ownership: str = "person"
) -> dict[str, EntityMapping]:
    """Every mapping of a folder (None: the shipped one), or of files that were read already, by name.

    Raises MappingFileError naming file and line for the first fault, MappingExampleFailed for an example that does
    not come out as written.
    """
    files = read_texts(source) if isinstance(source, Mapping) else read_files(source)
    for file in files.values():
        _check_references(file, [other.mapping for other in files.values()])
        _check_examples(file)
    return {name: with_compat(file.mapping, compat=compat, ownership=ownership) for name, file in files.items()}


def read_files(folder: Path | None) -> dict[str, MappingFile]:
    """Every mapping file of the folder (None: the shipped ones), each right by itself. Raises MappingFileError."""
    return read_texts(texts_of(folder))


def texts_of(folder: Path | None) -> dict[Path, str]:
    """Every `*.yaml` and `*.yml` of the folder (None: the shipped one), in order. Raises MappingFileError."""
    folder = folder or shipped_folder()
    paths = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))) if folder.is_dir() else []
    if not paths:
        raise MappingFileError("there is no mapping file", where=str(folder))
    return {path: _text_of(path) for path in paths}


def read_texts(texts: Mapping[Path, str]) -> dict[str, MappingFile]:
    """The mapping files with these texts, each right by itself, by name of the mapping. Raises MappingFileError."""
    files: dict[str, MappingFile] = {}
    for path, text in texts.items():
        file = _read(path, text)
        if file.mapping.name in files:
            raise MappingFileError(f"a second mapping is called {file.mapping.name!r}", where=str(path))
        files[file.mapping.name] = file
    return files


def read_mapping(path: Path) -> EntityMapping:
    """One mapping file. Raises MappingFileError with the line of the fault."""
    return _read(path, _text_of(path)).mapping


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise MappingFileError("not text in UTF-8", where=str(path)) from fault


def _read(path: Path, text: str) -> MappingFile:
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
    twice = _key_written_twice(node)
    if twice is not None:
        raise MappingFileError(f"key {twice.value!r} is written twice", where=f"{path}:{twice.start_mark.line + 1}")
    try:
        return MappingFile(path, node, EntityMapping.model_validate(_exact(values)))
    except ValidationError as fault:
        first = fault.errors()[0]
        location = tuple(first["loc"])
        where = f"{path}:{_line_of(node, location)}"
        raise MappingFileError(
            _sentence(first, location), where=where, next_step=_suggestion(first, location)
        ) from fault


def _key_written_twice(node: Any) -> Any:
    """The first key that its table has already; YAML itself would take the last value silently."""
    if isinstance(node, yaml.SequenceNode):
        return next((found for item in node.value if (found := _key_written_twice(item)) is not None), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            return key
        seen.add(key.value)
        found = _key_written_twice(value)
        if found is not None:
            return found
    return None


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
    """The model whose key the end of `location` is."""
    model: type[BaseModel] = EntityMapping
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(hint: Any) -> type[BaseModel] | None:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for inner in get_args(hint) if (found := _model_in(inner)) is not None), None)


def _check_references(file: MappingFile, mappings: list[EntityMapping]) -> None:
    """Whatever a line looks up must be looked up by a mapping file (R220)."""
    by_name = {mapping.name: mapping for mapping in mappings}
    known = list(by_name)
    roles = {mapping.role for mapping in mappings} | {mapping.crm for mapping in mappings}
    for number, line in enumerate(file.mapping.fields):
        needs = ["company"] if line.company or line.team else []
        needs += ["local-currency", "transactioncurrency"] if line.currency else []
        missing = [need for need in needs if need not in roles]
        if missing:
            raise MappingFileError(
                f"no mapping file looks up what this line needs: {', '.join(missing)}",
                where=file.where("fields", number),
                next_step="bring back the shipped files company.yaml, company-information.yaml and currency.yaml",
            )
        for key, name in (("owner", line.owner), ("reference", line.reference), ("first", line.first)):
            if name is not None and name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise MappingFileError(
                    f"no mapping is called {name!r}",
                    where=file.where("fields", number, key),
                    next_step=f"did you mean {close[0]!r}?" if close else f"known mappings: {', '.join(sorted(known))}",
                )
        other = by_name.get(line.reference or "")
        if line.refers_by_field and other is not None and line.reference_by not in other.captured_fields(System.ERP):
            raise MappingFileError(
                f"mapping {other.name!r} does not capture {line.reference_by!r}",
                where=file.where("fields", number, "reference_by"),
                next_step=f"write key, id or a field it captures, or add it to also_capture.erp of {other.name}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleResult:
    """How one example came out in one direction it allows; `fault` blank: as written."""

    mapping: str
    name: str
    direction: Direction
    where: str
    compared: int  # fields that were carried and compared
    fault: str


def example_results(file: MappingFile) -> Iterator[ExampleResult]:
    """Run every example of a mapping in each direction it allows."""
    mapping = file.mapping
    view = ReferenceView((mapping,), company_id="")
    for number, example in enumerate(mapping.examples):
        sides: dict[System, Mapping[str, Value]] = {System.ERP: example.erp, System.CRM: example.crm}
        unmapped = [
            f"{mapping.entity_in(system)} has no mapped field {name!r}"
            for system, values in sides.items()
            for name in values
            if name not in mapping.targets(system)
        ]
        for direction in DIRECTIONS:
            if example.direction not in ("both", direction) or not mapping.flows(direction):
                continue
            lines = [line for line in mapping.lines(direction) if _is_shown(line, sides)]
            faults = [*unmapped, *(_example_fault(line, sides, direction, view) for line in lines)]
            yield ExampleResult(
                mapping=mapping.name,
                name=example.name,
                direction=direction,
                where=file.where("examples", number),
                compared=len(lines),
                fault=next(filter(None, faults), ""),
            )


def _is_shown(line: FieldMapping, sides: Mapping[System, Mapping[str, Value]]) -> bool:
    return all(line.name_in(system) in values for system, values in sides.items())


def _check_examples(file: MappingFile) -> None:
    """Raises MappingExampleFailed for the first example that does not come out as written."""
    for result in example_results(file):
        if result.fault:
            raise MappingExampleFailed(f"example {result.name!r}: {result.fault}", where=result.where)


def _example_fault(
    line: FieldMapping, sides: Mapping[System, Mapping[str, Value]], direction: Direction, view: ReferenceView
) -> str:
    source, target = source_of(direction), target_of(direction)
    here, there = line.name_in(source), line.name_in(target)
    if line.owner or line.reference or line.currency or line.rate or line.company:
        return f"{here} -> {there}: needs other records; an example is about plain fields"
    carried = carry(line, sides[source][here], direction, view, creating=True)
    if not isinstance(carried, Known):
        return f"{here} -> {there}: cannot be carried"
    if not equal(line, carried.value, sides[target][there]):
        return f"{here} -> {there}: comes out as {carried.value!r}, not {sides[target][there]!r}"
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
