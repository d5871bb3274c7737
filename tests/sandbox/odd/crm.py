"""Requests to Dataverse."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from drawbar.sandbox.crm.actions import UNBOUND
from tests.sandbox.in_process import World
from tests.sandbox.odd.bodies import bodies, json_texts, references, usual_value, writes
from tests.sandbox.odd.erp import entity_paths
from tests.sandbox.odd.fetch import fetches
from tests.sandbox.odd.queries import (
    METHODS,
    NOWHERE,
    Sent,
    broken,
    escaped,
    headers,
    keys,
    mostly,
    queries,
    texts,
    values,
)


@st.composite
def crm_reads(draw: st.DrawFn, world: World) -> Sent:
    shape = world.shapes["crm"][draw(st.sampled_from(world.crm_sets))]
    path = shape.name
    if shape.ids and not draw(st.integers(0, 3)):
        path += f"({draw(st.sampled_from(list(shape.ids)))})"
        if shape.collections and draw(st.booleans()):
            path += "/" + draw(st.sampled_from(list(shape.collections)))
    if not draw(st.integers(0, 9)):
        path += "/$count"
    query = draw(
        st.one_of(queries(shape), queries(shape), fetches(world, shape).map(lambda xml: f"fetchXml={escaped(xml)}"))
    )
    return Sent("GET", f"/api/data/v9.2/{path}?{query}", draw(headers()))


@st.composite
def crm_writes(draw: st.DrawFn, world: World) -> Sent:
    shape = world.shapes["crm"][draw(st.sampled_from(world.crm_sets))]
    body = draw(writes(shape, world))
    kind = draw(st.sampled_from(["POST", "POST", "PATCH", "PATCH", "PATCH", "DELETE", "act", "$ref", "many"]))
    root = "/api/data/v9.2/"
    if kind == "POST" or not shape.ids:
        return Sent("POST", root + shape.name, draw(headers()), draw(json_texts(st.just({**shape.base, **body}))))
    if kind == "many":
        message = draw(st.sampled_from(["CreateMultiple", "UpdateMultiple", "UpsertMultiple"]))
        entity = world.crm.records.by_set[shape.name]
        kind = f"Microsoft.Dynamics.CRM.{entity.logical}"
        known = {} if message == "CreateMultiple" else {entity.id: draw(st.sampled_from([*list(shape.ids), NOWHERE]))}
        targets = [
            {"@odata.type": kind, **shape.base, **body, **known},
            {"@odata.type": kind, **draw(writes(shape, world))},
        ]
        text = draw(json_texts(st.just({"Targets": targets[: draw(st.integers(0, 2))]})))
        return Sent("POST", f"{root}{shape.name}/Microsoft.Dynamics.CRM.{message}", draw(headers()), text)
    row_id = draw(keys(shape)) if shape.keys and draw(st.booleans()) else draw(st.sampled_from(list(shape.ids)))
    path = f"{root}{shape.name}({row_id})"
    if kind == "act":
        if shape.actions and draw(st.booleans()):
            action = draw(st.sampled_from(list(shape.actions)))
            return Sent("POST", f"{path}/Microsoft.Dynamics.CRM.{action}", draw(headers()), draw(json_texts(values)))
        action = draw(st.sampled_from(sorted(UNBOUND)))
        return Sent("POST", root + action, draw(headers()), draw(json_texts(action_bodies(world))))
    if kind == "$ref" and (shape.navigations or shape.collections):
        name = draw(st.sampled_from([*shape.navigations, *shape.collections]))
        method = draw(st.sampled_from(["PUT", "POST", "DELETE"]))
        return Sent(
            method,
            f"{path}/{name}/$ref",
            draw(headers()),
            draw(json_texts(st.fixed_dictionaries({"@odata.id": references(world)}))),
        )
    if kind == "DELETE":
        return Sent("DELETE", path, draw(headers()))
    if shape.columns and not draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(shape.columns)))
        value = draw(json_texts(st.fixed_dictionaries({"value": usual_value(shape.columns[name])})))
        return Sent(draw(st.sampled_from(["PUT", "DELETE"])), f"{path}/{name}", draw(headers()), value)
    return Sent("PATCH", path, draw(headers()), draw(json_texts(st.just(body))))


@st.composite
def crm_requests(draw: st.DrawFn, world: World) -> Sent:
    shape = world.shapes["crm"][draw(st.sampled_from(world.crm_sets))]
    namespace = "Microsoft.Dynamics.CRM."
    root = draw(
        mostly(
            st.just("/api/data/v9.2/"), st.sampled_from(["/api/data/v9.2", "/", "/api/data/v9.1/", "/api/data/v9.2//"])
        )
    )
    body = bodies(shape, world)
    targets = st.fixed_dictionaries(
        {
            "Targets": mostly(
                st.lists(
                    st.tuples(body, st.sampled_from(world.crm_tables)).map(
                        lambda drawn: {"@odata.type": f"{namespace}{drawn[1]}", **drawn[0]}
                    ),
                    max_size=3,
                ),
                values,
            )
        }
    )
    path = draw(mostly(entity_paths(shape, namespace=namespace), crm_other_paths(world)))
    chosen = targets if "Multiple" in path else action_bodies(world) if path in UNBOUND else body
    query = draw(st.one_of(queries(shape), fetches(world, shape).map(lambda xml: f"fetchXml={escaped(xml)}")))
    if path.endswith("$ref") and draw(st.booleans()):
        chosen = st.fixed_dictionaries({"@odata.id": references(world)})
    target = root + path + (f"?{query}" if query else "")
    return Sent(draw(METHODS), target, draw(headers()), draw(json_texts(mostly(chosen, values))))


@st.composite
def crm_other_paths(draw: st.DrawFn, world: World) -> str:
    table = draw(st.sampled_from(world.crm_tables))
    definition = f"EntityDefinitions(LogicalName='{table}')"
    return draw(
        st.sampled_from(
            [
                "WhoAmI",
                "WhoAmI()",
                "$metadata",
                "",
                *sorted(UNBOUND),
                "EntityDefinitions",
                definition,
                f"{definition}/Attributes",
                f"{definition}/Attributes(LogicalName='name')",
                f"{definition}/Keys",
                f"{definition}/Keys(x)",
                "EntityDefinitions(x)",
                f"{definition}/Attributes/Microsoft.Dynamics.CRM.PicklistAttributeMetadata",
                f"{definition}/x",
                f"{definition}/OneToManyRelationships",
                f"{definition}/ManyToOneRelationships",
                f"{definition}/Keys()",
            ]
        )
    )


@st.composite
def action_bodies(draw: st.DrawFn, world: World) -> dict[str, Any]:
    def an_id(set_name: str) -> st.SearchStrategy[Any]:
        return mostly(st.sampled_from(list(world.shapes["crm"][set_name].ids)), st.one_of(values, st.just(NOWHERE)))

    def closing(table: str) -> st.SearchStrategy[Any]:
        bound = st.fixed_dictionaries(
            {f"{table}id@odata.bind": references(world)}, optional={"actualrevenue": values, "actualend": values}
        )
        return mostly(bound, values)

    document = st.sampled_from(["opportunities", "quotes", "salesorders", "invoices"])
    some = {
        "Status": mostly(st.sampled_from([-1, 3, 4, 5, 100001]), values),
        "OpportunityClose": closing("opportunity"),
        "QuoteClose": closing("quote"),
        "OrderClose": closing("salesorder"),
        "OpportunityId": document.flatmap(an_id),
        "QuoteId": an_id("quotes"),
        "SalesOrderId": an_id("salesorders"),
        "InvoiceId": an_id("invoices"),
        "ColumnSet": st.one_of(
            values, st.fixed_dictionaries({"AllColumns": values}), st.fixed_dictionaries({"Columns": values})
        ),
        "Target": st.one_of(
            values,
            st.fixed_dictionaries(
                {"@odata.type": st.just("Microsoft.Dynamics.CRM.salesorder"), "salesorderid": an_id("salesorders")}
            ),
        ),
    }
    return draw(st.fixed_dictionaries({}, optional=some))


@st.composite
def crm_batches(draw: st.DrawFn, world: World) -> Sent:
    boundary = draw(mostly(st.just("b"), st.sampled_from(["", '"b"', "b c", "é", "b" * 200, "(", "b;x=y"])))
    end = draw(mostly(st.just("\r\n"), st.just("\n")))

    @st.composite
    def operation(inner: st.DrawFn, *, content_id: bool) -> str:
        shape = world.shapes["crm"][inner(st.sampled_from(world.crm_sets))]
        path = inner(
            st.one_of(
                entity_paths(shape, namespace="Microsoft.Dynamics.CRM."),
                st.sampled_from(["$1", "$2/x", "$batch", "$metadata"]),
            )
        )
        target = inner(st.sampled_from(["", "/api/data/v9.2/", world.info["crm"]["base_url"] + "/"])) + path
        body = json.dumps(inner(mostly(bodies(shape, world), values)))
        head = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
        if content_id:
            head.append(f"Content-ID: {inner(st.sampled_from(['1', '2', '3', '', 'é', '1 2']))}")
        lines = [*head, "", f"{inner(METHODS)} {target} HTTP/1.1", "Content-Type: application/json"]
        lines += [
            f"{name}: {value}" for name, value in inner(headers()).items() if "\n" not in value and "\r" not in value
        ]
        length = inner(st.sampled_from([None, len(body), 1, 10**9]))
        lines += [f"Content-Length: {length}"] if length is not None else []
        return end.join([*lines, "", body])

    @st.composite
    def change_set(inner: st.DrawFn) -> str:
        parts = inner(st.lists(operation(content_id=inner(st.booleans())), max_size=3))
        text = "".join(f"--c{end}{part}{end}" for part in parts) + inner(mostly(st.just(f"--c--{end}"), st.just("")))
        return f"Content-Type: multipart/mixed; boundary=c{end}{end}{text}"

    parts = draw(st.lists(st.one_of(operation(content_id=False), operation(content_id=True), change_set()), max_size=3))
    plain = boundary.strip('"')
    text = "".join(f"--{plain}{end}{part}{end}" for part in parts) + draw(mostly(st.just(f"--{plain}--{end}"), texts))
    if not draw(st.integers(0, 5)):
        text = draw(broken(st.just(text)))
    kind = draw(mostly(st.just(f"multipart/mixed; boundary={boundary}"), texts))
    sent = {**draw(headers()), "content-type": kind.encode("latin-1", "replace").decode("latin-1")}
    return Sent(draw(mostly(st.just("POST"), METHODS)), "/api/data/v9.2/$batch", sent, text.encode("utf-8", "replace"))
