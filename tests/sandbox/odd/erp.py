"""Requests to Business Central."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from drawbar.sandbox.erp.model import CUSTOM, RUNTIME, entity_sets
from tests.sandbox.in_process import World
from tests.sandbox.odd.bodies import bodies, json_texts, writes
from tests.sandbox.odd.queries import (
    METHODS,
    NOWHERE,
    Sent,
    Shape,
    escaped,
    headers,
    keys,
    mostly,
    queries,
    texts,
    values,
)


@st.composite
def entity_paths(draw: st.DrawFn, shape: Shape, *, namespace: str) -> str:
    key = f"({draw(keys(shape))})" if draw(st.integers(0, 3)) else ""
    below = [*shape.navigations, *shape.collections, *list(shape.columns)[:5], "$count", "$value", "$ref"]
    actions = [
        f"{namespace}{name}" for name in [*shape.actions, "CreateMultiple", "UpdateMultiple", "UpsertMultiple", "nope"]
    ]
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2:
            rest = "/" + draw(st.sampled_from(below))
            if draw(st.booleans()):
                rest += draw(st.sampled_from([f"({NOWHERE})", "/$ref", "/$count", "/$value", "()", "/x/y"]))
        case 3:
            rest = "/" + draw(st.sampled_from(actions))
        case 4:
            rest = "/" + escaped(draw(texts), safe="/()'")
        case _:
            rest = ""
    return f"{shape.name}{key}{rest}"


@st.composite
def erp_requests(draw: st.DrawFn, world: World) -> Sent:
    shape = world.shapes["erp"][draw(st.sampled_from(sorted(world.shapes["erp"])))]
    base, company = world.info["erp"]["base_url"].partition(".test")[2], world.info["erp"]["company_id"]
    route = entity_sets()[shape.name].route
    root = base.removesuffix("v2.0") + draw(
        mostly(st.just(route), st.sampled_from([CUSTOM, RUNTIME, "v2.0", "v9", ""]))
    )
    of_company = draw(
        mostly(
            st.just(f"/companies({company})"),
            st.one_of(st.just(""), keys(shape).map(lambda key: f"/companies({key})"), st.just("/companies")),
        )
    )
    path = draw(
        mostly(
            entity_paths(shape, namespace="Microsoft.NAV."),
            st.sampled_from(["$metadata", "companies", "", "subscriptions"]),
        )
    )
    query = draw(queries(shape))
    target = f"{root}{of_company}/{path}" + (f"?{query}" if query else "")
    return Sent(draw(METHODS), target, draw(headers()), draw(json_texts(bodies(shape, world))))


def erp_root(world: World, set_name: str) -> str:
    """The address that a set stands below."""
    base, company = world.info["erp"]["base_url"].partition(".test")[2], world.info["erp"]["company_id"]
    return f"{base.removesuffix('v2.0')}{entity_sets()[set_name].route}/companies({company})"


@st.composite
def erp_reads(draw: st.DrawFn, world: World) -> Sent:
    """Lists, and what belongs to an entity."""
    shape = world.shapes["erp"][draw(st.sampled_from(sorted(world.shapes["erp"])))]
    path = shape.name
    parents = [
        (parent, name) for parent, other in world.shapes["erp"].items() for name in other.collections if name == path
    ]
    if parents and draw(st.booleans()):
        parent, name = draw(st.sampled_from(parents))
        path = f"{parent}({draw(st.sampled_from(list(world.shapes['erp'][parent].ids) or [NOWHERE]))})/{name}"
    elif shape.ids and not draw(st.integers(0, 4)):
        path += f"({draw(st.sampled_from(list(shape.ids)))})"
    if not draw(st.integers(0, 9)):
        path += "/$count"
    query = draw(queries(shape))
    return Sent("GET", f"{erp_root(world, shape.name)}/{path}?{query}", draw(headers()))


@st.composite
def erp_writes(draw: st.DrawFn, world: World) -> Sent:
    """A new entity, a change, a delete or an action: with all that such a request needs."""
    sets = [
        name for name, each in entity_sets().items() if each.verbs & {"POST", "PATCH"} and name in world.shapes["erp"]
    ]
    shape = world.shapes["erp"][draw(st.sampled_from(sets))]
    root = erp_root(world, shape.name)
    body = draw(writes(shape, world))
    kind = draw(st.sampled_from(["POST", "POST", "PATCH", "PATCH", "PATCH", "DELETE", "act"]))
    if kind == "POST" or not shape.ids:
        return Sent("POST", f"{root}/{shape.name}", draw(headers()), draw(json_texts(st.just({**shape.base, **body}))))
    path = f"{root}/{shape.name}({draw(st.sampled_from(list(shape.ids)))})"
    if kind == "act" and shape.actions:
        path += f"/Microsoft.NAV.{draw(st.sampled_from(list(shape.actions)))}"
        return Sent("POST", path, draw(headers()), draw(st.sampled_from([b"", b"{}", b"[]", b"x"])))
    if kind == "DELETE":
        return Sent("DELETE", path, draw(headers()))
    return Sent("PATCH", path, {"if-match": "*", **draw(headers())}, draw(json_texts(st.just(body))))


@st.composite
def erp_batches(draw: st.DrawFn, world: World) -> Sent:
    shapes = world.shapes["erp"]
    base = world.info["erp"]["base_url"].partition(".test")[2]
    company = world.info["erp"]["company_id"]

    @st.composite
    def part(inner: st.DrawFn) -> Any:
        shape = shapes[inner(st.sampled_from(sorted(shapes)))]
        path = inner(entity_paths(shape, namespace="Microsoft.NAV."))
        url = inner(
            st.sampled_from([f"companies({company})/{path}", f"/{path}", f"{base}/companies({company})/{path}"])
        )
        made = {
            "method": inner(METHODS),
            "id": inner(mostly(st.sampled_from(["1", "r2"]), values)),
            "url": url + "?" + inner(queries(shape)),
            "headers": inner(st.one_of(headers(), values)),
            "body": inner(mostly(bodies(shape, world), values)),
        }
        for name in inner(st.lists(st.sampled_from(sorted(made)), max_size=2)):
            made[name] = inner(values)
        for name in inner(st.lists(st.sampled_from(sorted(made)), max_size=1)):
            del made[name]
        return made

    body = st.fixed_dictionaries(
        {
            "requests": mostly(
                st.lists(mostly(part(), values), max_size=4), st.one_of(values, st.just([{"url": "x"}] * 101))
            )
        }
    )
    target = f"{base}/$batch" + draw(st.sampled_from(["", "", "?$filter=x", "/x", "()"]))
    return Sent(draw(mostly(st.just("POST"), METHODS)), target, draw(headers()), draw(json_texts(body)))
