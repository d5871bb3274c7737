"""Bodies: of the right types and of wrong ones, and JSON that is nearly JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from drawbar.sandbox.erp.model import EMPTY_GUID
from tests.sandbox.in_process import World
from tests.sandbox.odd.queries import NOWHERE, OF_TYPE, Shape, broken, mostly, numbers, texts, values


def usual_value(kind: str) -> st.SearchStrategy[Any]:
    match OF_TYPE.get(kind, "number"):
        case "guid":
            return st.sampled_from([NOWHERE, EMPTY_GUID])
        case "bool":
            return st.booleans()
        case "date":
            return st.sampled_from(["2026-01-01", "0001-01-01", "9999-12-31"])
        case "time":
            return st.sampled_from(["2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
        case "string":
            return texts
        case _:
            return mostly(st.integers(-5, 100), numbers)


@st.composite
def json_texts(draw: st.DrawFn, value: st.SearchStrategy[Any]) -> bytes:
    """As JSON, and sometimes as what is nearly JSON."""
    text = json.dumps(draw(value), ensure_ascii=draw(st.booleans()))
    match draw(st.integers(0, 19)):
        case 0:
            text = draw(broken(st.just(text)))
        case 1 if text.startswith("{") and len(text) > 2:
            text = text[:-1] + "," + text[1:]  # every name twice
        case 2:
            depth = draw(st.integers(1, 3000))
            text = '{"a":' * depth + text + "}" * depth
        case 3:
            depth = draw(st.integers(1, 3000))
            text = "[" * depth + "]" * depth
        case 4:
            text = '{"name": "\\ud800", "displayName": "\\ud800"}'
        case 5:
            return draw(st.binary(max_size=20))
        case 6:
            return text.encode("utf-16")
        case _:
            pass
    return text.encode("utf-8", "replace")


@st.composite
def bodies(draw: st.DrawFn, shape: Shape, world: World) -> dict[str, Any]:
    chosen = draw(st.lists(st.sampled_from(list(shape.body)), max_size=5, unique=True))
    body: dict[str, Any] = {}
    for name in chosen:
        if name.endswith(("@odata.bind", "@odata.id")):
            body[name] = draw(references(world))
        elif name in shape.collections:
            body[name] = draw(st.one_of(values, st.lists(st.dictionaries(texts, values, max_size=2), max_size=2)))
        else:
            ids = st.sampled_from(list(shape.ids) or [NOWHERE])
            of_type = usual_value(shape.columns.get(name, "String"))
            body[name] = draw(mostly(of_type, st.one_of(values, ids)))
    if not draw(st.integers(0, 9)):
        body[draw(texts)] = draw(values)
    return body


@st.composite
def references(draw: st.DrawFn, world: World) -> Any:
    set_name = draw(st.sampled_from(world.crm_sets))
    ids = world.shapes["crm"][set_name].ids
    row_id = draw(st.sampled_from([*list(ids)[:3], NOWHERE]))
    base = world.info["crm"]["base_url"]
    right = st.sampled_from([f"/{set_name}({row_id})", f"{set_name}({row_id})", f"{base}/{set_name}({row_id})"])
    return draw(
        mostly(
            right, st.one_of(values, st.sampled_from(["$1", f"/{set_name}", f"/{set_name}(a='b')", "://", "http://["]))
        )
    )


@st.composite
def writes(draw: st.DrawFn, shape: Shape, world: World) -> dict[str, Any]:
    """Some columns that may be written, most of them with a value of their type."""
    body: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(list(shape.writable) or ["x"]), max_size=4, unique=True)):
        if shape.fitting.get(name) and draw(st.integers(0, 5)):
            body[name] = draw(st.sampled_from(list(shape.fitting[name])))
        elif name.endswith("@odata.bind"):
            body[name] = draw(references(world))
        else:
            of_type = usual_value(shape.columns.get(name, "String"))
            others = [row_id for other in world.shapes["erp"].values() for row_id in other.ids[:2]]
            body[name] = draw(mostly(of_type, st.one_of(values, st.sampled_from(others))))
    return body
