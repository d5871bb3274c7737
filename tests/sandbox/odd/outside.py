"""What is sent to the sign-in and to the control endpoint, and tokens that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.sandbox.in_process import World
from tests.sandbox.odd.bodies import json_texts
from tests.sandbox.odd.queries import NOWHERE, Sent, escaped, headers, mostly, numbers, texts, values


@st.composite
def sign_in_requests(draw: st.DrawFn, world: World) -> Sent:
    tenant = draw(mostly(st.just(world.info["sign_in"]["tenant_id"]), st.one_of(st.just("common"), texts.map(escaped))))
    path = draw(
        st.sampled_from(
            [
                "oauth2/v2.0/token",
                "oauth2/v2.0/token",
                "oauth2/v2.0/token",
                "v2.0/.well-known/openid-configuration",
                "discovery/v2.0/keys",
                "oauth2/token",
                "",
            ]
        )
    )
    erp = world.info["erp"]
    some: dict[str, st.SearchStrategy[str]] = {
        "grant_type": mostly(st.just("client_credentials"), texts),
        "client_id": mostly(st.just(erp["client_id"]), texts),
        "client_secret": mostly(st.just(erp["client_secret"]), texts),
        "scope": mostly(st.just(erp["scope"]), texts),
        "client_assertion_type": mostly(st.just("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), texts),
        "client_assertion": st.one_of(
            texts, st.sampled_from(["a.b.c", "e30.e30.", "eyJhbGciOiJub25lIn0.e30.", "..", "e30.e30.e30"])
        ),
    }
    form = draw(st.fixed_dictionaries({}, optional=some))
    body = "&".join(f"{name}={escaped(value)}" for name, value in form.items()).encode()
    body = draw(mostly(st.just(body), st.binary(max_size=30)))
    return Sent(
        draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT"])), f"/{tenant}/{path}", draw(headers()), body
    )


def authorizations(world: World) -> st.SearchStrategy[str]:
    token = world.tokens["erp"]
    head, claims, mark = token.split(".")
    return st.one_of(
        texts.map(lambda text: text.encode("latin-1", "replace").decode("latin-1")),
        st.sampled_from(
            [
                "",
                "Bearer",
                "Bearer ",
                "Basic x",
                "Bearer a.b.c",
                f"Bearer {token[:-3]}",
                f"Bearer {head}.{claims}.",
                f"Bearer {token}x",
                f"Bearer {head}.e30.{mark}",
                "Bearer eyJhbGciOiJub25lIn0.e30.",
                f"bearer  {token}",
                "Bearer e30.e30.e30",
                "Bearer ÿ",
            ]
        ),
    )


_CONTROL: Mapping[str, Sequence[str]] = {
    "faults": [
        "action",
        "system",
        "method",
        "path",
        "app",
        "after",
        "times",
        "seconds",
        "when",
        "status",
        "headers",
        "body",
    ],
    "latency": ["system", "ms"],
    "expire": ["what"],
    "limits": ["system", "on", "scale", "window_s"],
    "grants": ["system", "app", "entity", "operation", "allowed"],
    "webhooks": [
        "system",
        "delay_s",
        "drop",
        "retry_scale",
        "max_notifications",
        "lease_s",
        "handshake",
        "max_body_bytes",
    ],
    "switches": ["post_codes", "customer_template", "tax_rates", "full_name"],
    "clock": ["set", "advance_s", "rate", "reset"],
    "companies": ["name", "display_name", "currency", "environment"],
    "edit": ["system", "app", "set", "id", "key", "values", "delete", "silent", "late_ms", "company", "environment"],
    "automations": ["system", "set", "field", "after_app", "by_app", "values", "delay_ms", "times"],
    "requests": [],
    "nope": ["x"],
}


@st.composite
def control_calls(draw: st.DrawFn, world: World) -> tuple[str, str, bytes]:
    name = draw(st.sampled_from(sorted(_CONTROL)))
    usual: dict[str, st.SearchStrategy[Any]] = {
        "action": st.sampled_from(["status", "delay", "duplicate", "corrupt_json", "cut", "lose_reply"]),
        "system": st.sampled_from(["erp", "crm", "sign_in"]),
        "app": st.sampled_from([world.info["erp"]["client_id"], world.info["crm"]["client_id"]]),
        "by_app": st.sampled_from([world.info["erp"]["client_id"], world.info["crm"]["client_id"]]),
        "after_app": st.sampled_from([world.info["erp"]["client_id"], world.info["crm"]["client_id"]]),
        "status": st.sampled_from([429, 500, 503, 200, 99, 1000]),
        "set": st.sampled_from(["customers", "accounts", "contacts", "salesOrders", "quotes"]),
        "field": st.sampled_from(["displayName", "name"]),
        "values": st.dictionaries(st.sampled_from(["displayName", "name", "number", "id"]), values, max_size=2),
        "id": st.sampled_from([NOWHERE, *world.shapes["erp"]["customers"].ids, *world.shapes["crm"]["accounts"].ids]),
        "key": st.sampled_from(["C00010", ""]),
        "what": st.sampled_from(["tokens", "delta_links"]),
        "set_time": texts,
        "headers": st.dictionaries(texts, texts, max_size=2),
        "path": st.sampled_from(["customers", "(", "accounts", ".*"]),
        "full_name": st.sampled_from(["first_last", "x"]),
        "tax_rates": st.dictionaries(texts, numbers, max_size=2),
        "customer_template": st.dictionaries(texts, values, max_size=2),
        "currency": st.sampled_from(["EUR", "USD"]),
    }
    body: Any = {}
    for member in draw(st.lists(st.sampled_from(list(_CONTROL[name]) or ["x"]), max_size=5, unique=True)):
        # numbers that make the services wait would only make the fuzzing wait
        if member in ("ms", "seconds", "delay_s", "delay_ms", "window_s", "scale"):
            body[member] = draw(
                st.one_of(st.just(0), st.sampled_from(["x", None, [], -1, {}, "²", 1e999, float("nan")]))
            )
        else:
            body[member] = draw(mostly(usual.get(member, values), values))
    if name in ("faults", "edit", "automations") and draw(st.booleans()):
        body = [body]
    body = draw(mostly(st.just(body), values))
    method = draw(mostly(st.just("POST"), st.sampled_from(["GET", "DELETE", "PUT"])))
    if method == "GET" and draw(st.booleans()):
        return (
            "GET",
            draw(
                st.sampled_from(
                    [
                        "truth/erp/customers",
                        "truth/crm/accounts",
                        "truth/x/y",
                        "truth/erp/é",
                        "truth/erp/customers?company=x",
                    ]
                )
            ),
            b"",
        )
    return method, name, draw(json_texts(st.just(body)))
