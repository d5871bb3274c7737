"""Texts, literals, filters, query options, keys and headers, right and odd: what every kind of request is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from drawbar.sandbox.erp.model import EMPTY_GUID

NOWHERE = "12345678-1234-1234-1234-123456789abc"


ODD_TEXTS = (
    "", " ", "'", "''", '"', "%", "%00", "\x00", "\n", "\r\n", ";", "&", "=", "#", "+", "/", "\\", "*", "(", ")", "[", "{",
    "²", "١٢", "ß", "İ", "ﬁ", "e\u0301", "\u202e", "\ufeff", "\U0001f984", "\ufffe", "null", "NaN", "Infinity", "true",
    "None", "0", "-0", "1e999", "..", "../..", "$1", "$batch", "$metadata", "@odata.id", "x" * 300, "é" * 5000,
    "_x0020_", "_x0000_", "_xZZZZ_", "C00010", "USD", "EUR", "PCS", "2026-02-30", "0001-01-01", "9999-12-31",
    "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "<a>", "]]>", "javascript:x", "http://[", "https://example.test",
    "a@b", "1;2", "${x}", "%s", "{0}", "\ud7ff", "\x1f", "\x7f", "\x85", "\u2028",
)  # fmt: skip


texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=12))


numbers = st.one_of(
    st.integers(-10, 100),
    st.sampled_from([2**31 - 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**15, 10**40, -(10**40), 10**400]),
    st.floats(),
    st.sampled_from([1e308, -1e308, 1e15, 0.1 + 0.2, -0.0, 5e-324]),
)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@dataclass(frozen=True, slots=True)
class Sent:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda which: odd if which == 9 else usual)


def escaped(text: str, *, safe: str = "") -> str:
    return quote(text.encode("utf-8", "replace"), safe=safe)


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a set or table a request can name."""

    name: str
    columns: Mapping[str, str]  # name as it stands in an address, and type
    body: Sequence[str]  # names that may stand in a body
    navigations: Sequence[str]
    collections: Sequence[str]
    actions: Sequence[str]
    ids: Sequence[str]
    writable: Sequence[str]  # columns that a client may write, and lookups as they are bound
    fitting: Mapping[str, Sequence[Any]]  # values that are there to be pointed to, or to choose from
    base: Mapping[str, Any]  # a body that makes a row
    keys: Sequence[Sequence[str]] = ()  # columns of alternate keys, as they stand in an address


_LITERALS: Mapping[str, st.SearchStrategy[str]] = {
    "guid": st.sampled_from([NOWHERE, EMPTY_GUID, NOWHERE.upper(), NOWHERE[:-1]]),
    "number": st.one_of(
        numbers.map(str), st.sampled_from(["1e5", "+1", "-", "1.", ".5", "1e9999", "9" * 5000, "1d", "2m", "0x1"])
    ),
    "date": st.sampled_from(["2026-01-01", "2026-02-30", "0001-01-01", "9999-12-31", "2026-1-1", "0000-00-00"]),
    "time": st.sampled_from(
        [
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.1234567Z",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "2026-13-45T99:99:99Z",
            "2026-01-01T00:00:00+99:99",
            "2026-01-01T24:00:00Z",
        ]
    ),
    "bool": st.sampled_from(["true", "false", "TRUE", "1"]),
    "string": texts.map(lambda text: "'" + text.replace("'", "''") + "'"),
    "null": st.just("null"),
}


OF_TYPE = {
    "Guid": "guid", "Uniqueidentifier": "guid", "Lookup": "guid", "Customer": "guid", "Owner": "guid", "Boolean": "bool",
    "Date": "date", "DateTimeOffset": "time", "DateTime": "time", "String": "string", "Memo": "string",
    "DateFormula": "string", "Enum": "string", "Stream": "string",
}  # fmt: skip


def literals(kind: str) -> st.SearchStrategy[str]:
    return mostly(_LITERALS[OF_TYPE.get(kind, "number")], st.one_of(*_LITERALS.values(), texts))


@st.composite
def names(draw: st.DrawFn, shape: Shape) -> tuple[str, str]:
    """A property and its type; sometimes of another row, or none at all."""
    column = draw(st.sampled_from(sorted(shape.columns)))
    odd = draw(st.integers(0, 14))
    if odd == 13 and shape.navigations:
        return f"{draw(st.sampled_from(list(shape.navigations)))}/{column}", "String"
    if odd == 14:
        return draw(st.one_of(texts, st.sampled_from([*shape.navigations, *shape.collections, "$it", "@p1"]))), "String"
    return column, shape.columns[column]


@st.composite
def conditions(draw: st.DrawFn, shape: Shape) -> str:
    name, kind = draw(names(shape))
    literal = draw(literals(kind))
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2 | 3:
            operator = draw(st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "has", "like", "EQ"]))
            left, right = (name, literal) if draw(st.integers(0, 3)) else (literal, name)
            return f"{left} {operator} {right}"
        case 4:
            function = draw(st.sampled_from(["contains", "startswith", "endswith", "substringof", "matchesPattern"]))
            return f"{function}({name},{literal})"
        case 5:
            inner = draw(st.sampled_from(["tolower", "toupper", "trim", "length", "year", "round", "indexof", "date"]))
            return f"{inner}({name}) {draw(st.sampled_from(['eq', 'gt']))} {literal}"
        case 6:
            start, length = draw(literals("Int32")), draw(literals("Int32"))
            return f"substring({name},{start},{length}) eq {literal}"
        case 7:
            given = ",".join(draw(st.lists(literals(kind), max_size=3)))
            return f"{name} in ({given})"
        case 8:
            function = draw(
                st.sampled_from(
                    ["In", "NotIn", "OnOrAfter", "OnOrBefore", "LastXHours", "LastXDays", "Under", "EqualUserId"]
                )
            )
            value = draw(
                st.one_of(literals(kind), st.lists(literals(kind), max_size=3).map(lambda v: f"[{','.join(v)}]"))
            )
            argument = draw(st.sampled_from(["PropertyValue", "PropertyValues", "Other", ""]))
            return f"Microsoft.Dynamics.CRM.{function}(PropertyName='{name}',{argument}={value})"
        case _:
            other, _ = draw(names(shape))
            return draw(st.sampled_from([name, f"{name} eq {other}", f"{name} lt {other}", f"{name} any(x:x eq 1)"]))


def filters(shape: Shape) -> st.SearchStrategy[str]:
    whole = st.recursive(
        conditions(shape),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
            inner.map(lambda text: f"not ({text})"),
            inner.map(lambda text: f"({text})"),
        ),
        max_leaves=4,
    )
    deep = st.tuples(st.sampled_from(["(", "not ", "not(", "tolower(", "contains("]), st.integers(1, 3000)).map(
        lambda drawn: drawn[0] * drawn[1] + "1"
    )
    long = st.tuples(conditions(shape), st.sampled_from([" and ", " or "]), st.integers(2, 1500)).map(
        lambda drawn: drawn[1].join([drawn[0]] * drawn[2])
    )
    return mostly(st.one_of(whole, broken(whole)), st.one_of(deep, long, texts))


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[str]) -> str:
    """A text with a piece missing, doubled, or another in its place."""
    text = draw(whole)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 8)))
    piece = draw(st.one_of(st.just(""), st.just(text[start:end] * 2), st.sampled_from(ODD_TEXTS)))
    return text[:start] + piece + text[end:]


@st.composite
def queries(draw: st.DrawFn, shape: Shape, *, depth: int = 0) -> str:
    """The part behind the question mark, or (deeper) in the parentheses of an `$expand`."""
    whole_numbers = mostly(st.integers(0, 30).map(str), st.one_of(numbers.map(str), texts, st.just("9" * 5000)))
    a_name = names(shape).map(lambda drawn: drawn[0])
    related = [*shape.navigations, *shape.collections]
    some: dict[str, st.SearchStrategy[str]] = {
        "$filter": filters(shape),
        "$select": st.lists(st.one_of(a_name, st.just("*")), min_size=1, max_size=4).map(",".join),
        "$orderby": st.lists(
            st.tuples(a_name, st.sampled_from(["", " asc", " desc", " up", "  desc "])).map("".join), max_size=3
        ).map(",".join),
        "$top": whole_numbers,
        "$skip": whole_numbers,
        "$count": st.sampled_from(["true", "false", "TRUE", "", "1"]),
    }
    if depth < 2:
        inner = queries(shape, depth=depth + 1).map(lambda text: f"({text})" if text else "")
        some["$expand"] = st.lists(
            st.tuples(
                st.one_of(st.sampled_from(related), a_name) if related else a_name, st.one_of(st.just(""), inner)
            ).map("".join),
            min_size=1,
            max_size=2,
        ).map(",".join)
    if depth == 0:
        some |= {
            "$apply": st.sampled_from(["aggregate($count as c)", "groupby((name))", "x", ""]),
            "$skiptoken": st.one_of(texts, st.sampled_from(TOKENS)),
            "$deltatoken": st.one_of(texts, st.sampled_from(["1!01/01/2026 00:00:00", "9" * 5000 + "!x", "!"])),
            "$schemaversion": st.sampled_from(["2.0", "2.1", "9", ""]),
            "$search": texts,
            "$format": texts,
            "$id": texts,
            "company": st.one_of(texts, st.just(NOWHERE)),
            "tag": texts,
            "@p1": literals("String"),
            "annotations": texts,
        }
    chosen = draw(st.lists(st.sampled_from(sorted(some)), max_size=3))
    if depth:
        return ";".join(f"{name}={draw(some[name])}" for name in chosen)
    safe = draw(st.sampled_from(["", "/(),'"]))
    return "&".join(f"{name}={escaped(draw(some[name]), safe=safe)}" for name in chosen)


# Tokens of pages: base64 of JSON of the wrong kind, right in their outer shape.
TOKENS = (
    "W10", "W10=", "bnVsbA", "W1tdLG51bGxd", "W1sxXSxudWxsXQ", "W1siYSIsImIiXSwiYyJd", "W1tudWxsLG51bGxdLC0xXQ", "eyJhIjoxfQ",
    '<cookie pagenumber="2" bookmark="W10=" />', '<cookie pagenumber="2" bookmark="W1sxXSwxXQ==" />',
    '<cookie pagenumber="²" bookmark="bnVsbA==" />', '<cookie pagenumber="99999999999" bookmark="WzEsMl0=" />',
    '<cookie pagenumber="2" bookmark="WyJhIiwiYiJd" />', '<cookie pagenumber="2" bookmark="%%%" />',
    '<cookie pagenumber="2" bookmark="W1siYSJdLCJiIl0=" />', '<cookie pagenumber="2" bookmark="W1tudWxsXSxudWxsXQ==" />',
    '<cookie pagenumber="2" bookmark="W1tbXV0sMV0=" />',
)  # fmt: skip


@st.composite
def keys(draw: st.DrawFn, shape: Shape) -> str:
    real = st.sampled_from(list(shape.ids)) if shape.ids else st.just(NOWHERE)
    odd = st.one_of(
        texts,
        st.sampled_from([NOWHERE, NOWHERE.upper(), f"id={NOWHERE}", f"'{NOWHERE}'", "", "1,2", "=", "a=", "=b", "a='"]),
        st.tuples(names(shape), texts).map(lambda drawn: f"{drawn[0][0]}='{drawn[1]}'"),
        st.tuples(names(shape), numbers).map(lambda drawn: f"{drawn[0][0]}={drawn[1]}"),
    )
    if shape.keys and not draw(st.integers(0, 3)):
        key = draw(st.sampled_from(list(shape.keys)))
        real = st.tuples(*(literals(shape.columns[name]) for name in key)).map(
            lambda drawn: ",".join(f"{name}={value}" for name, value in zip(key, drawn, strict=True))
        )
    return escaped(draw(mostly(real, odd)), safe="'=,()/")


def headers() -> st.SearchStrategy[dict[str, str]]:
    odd = mostly(texts, st.text(max_size=8)).map(lambda text: text.encode("latin-1", "replace").decode("latin-1"))
    prefer = st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "return=representation",
                    "return=minimal",
                    "return-no-content",
                    "odata.maxpagesize=2",
                    "odata.maxpagesize=²",
                    "odata.maxpagesize=0",
                    "odata.maxpagesize=-1",
                    f"odata.maxpagesize={'9' * 5000}",
                    "odata.maxpagesize=x",
                    "odata.track-changes",
                    'odata.include-annotations="*"',
                    'odata.include-annotations="',
                    "=",
                    ",,",
                    "odata.continue-on-error",
                    "odata.continue-on-error=false",
                    "respond-async",
                    "odata.maxpagesize",
                ]
            ),
            odd,
        ),
        max_size=3,
    ).map(",".join)
    tags = st.one_of(
        st.sampled_from(
            ["*", 'W/"1"', '"1"', 'W/"', "", 'W/"MQ=="', 'W/"JzIwOzE7MDA7Jw=="', 'W/"²"', '*, W/"1"', "null"]
        ),
        odd,
    )
    some: dict[str, st.SearchStrategy[str]] = {
        "prefer": prefer,
        "if-match": tags,
        "if-none-match": tags,
        "content-type": st.one_of(
            st.sampled_from(
                ["application/json", "text/plain", "multipart/mixed", "application/xml; charset=utf-16", ""]
            ),
            odd,
        ),
        "accept": st.one_of(st.sampled_from(["application/json", "application/atom+xml", "*/*;q=0"]), odd),
        "accept-language": odd,
        "company": st.one_of(st.sampled_from(["CRONUS", NOWHERE, "'"]), odd),
        "isolation": st.sampled_from(["snapshot", "SNAPSHOT", "x", ""]),
        "data-access-intent": st.sampled_from(["ReadOnly", "ReadWrite", "x"]),
        "odata-version": st.sampled_from(["4.0", "4.01", "3.0", "x"]),
        "odata-maxversion": odd,
        "mscrm.mergelabels": odd,
        "mscrm.suppressduplicatedetection": odd,
        "mscrm.bypasscustompluginexecution": odd,
        "mscrm.solutionuniquename": odd,
        "x-http-method": st.sampled_from(["PATCH", "DELETE"]),
        "x-ms-client-request-id": odd,
        "consistency": odd,
    }
    return st.one_of(st.just({}), st.fixed_dictionaries({}, optional=some))


METHODS = mostly(
    st.sampled_from(["GET", "POST", "PATCH", "DELETE"]), st.sampled_from(["PUT", "HEAD", "OPTIONS", "TRACE", "X"])
)
