"""Changes in columns: whatever an event holds comes back, and standard tools see a column for each captured field."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drawbar.metadata import FieldFacts, Form
from drawbar.registry import RegistryFraming, schemas_of, subject_of
from schemas.codec import avro_schema, decode, encode, install
from schemas.errors import Undecodable
from schemas.records import ChangeEvent, Order, OrderKind, System, Value, Work
from schemas.typed_changes import columns_of
from tests.builders import a_change, a_small_customer
from tests.contract.strategies import VALUES

FIELDS = {(System.ERP, "customer"): ("displayName", "creditLimit", "isActive", "visits")}
FACTS = {
    (System.ERP, "customer"): {
        "isActive": FieldFacts(name="isActive", form=Form.BOOLEAN),
        "visits": FieldFacts(name="visits", form=Form.INTEGER),
    }
}
NAMES = st.sampled_from(["displayName", "creditLimit", "isActive", "visits", "new field", "drawbar_others"])


class Books:
    """A registry in memory, with as little as framing asks of one."""

    def __init__(self, schemas: Mapping[str, dict[str, Any]] | None = None) -> None:
        self.schemas: list[dict[str, Any]] = []
        self.subjects: dict[str, int] = {}
        for subject, schema in (schemas if schemas is not None else schemas_of(FIELDS, FACTS)).items():
            self.register(subject, schema)

    def register(self, subject: str, schema: dict[str, Any]) -> None:
        self.schemas.append(schema)
        self.subjects[subject] = len(self.schemas)

    def id_of(self, subject: str, schema: Mapping[str, Any]) -> int:
        assert schema == self.schemas[self.subjects[subject] - 1]
        return self.subjects[subject]

    def latest(self, subject: str) -> tuple[int, dict[str, Any]]:
        return self.subjects[subject], self.schemas[self.subjects[subject] - 1]

    def by_id(self, schema_id: int) -> dict[str, Any] | None:
        return self.schemas[schema_id - 1] if 0 < schema_id <= len(self.schemas) else None


@pytest.fixture
def books():
    made = Books()
    install(RegistryFraming(made))
    yield made
    install(None)


def change(**after: Value) -> ChangeEvent:
    return a_change("erp:customer:C", state=after)


class TestTypedChanges:
    @given(st.dictionaries(NAMES, VALUES))
    def test_come_back_as_they_were(self, after: dict[str, Value]):
        """Values of another type than their column's, fields without a column, blank and unknown: all of it."""
        install(RegistryFraming(Books()))
        try:
            event = a_change("erp:customer:C", state=after)
            found = decode(ChangeEvent, encode(event))
        finally:
            install(None)

        assert event == found
        assert {name: type(value) for name, value in after.items()} == {
            name: type(value) for name, value in (found.after or {}).items()
        }

    def test_are_columns_for_whoever_reads_with_the_registered_schema(self, books: Books):
        data = encode(change(displayName="Fabrikam", creditLimit=Decimal("12.50"), isActive=True, visits=None))
        schema = books.by_id(int.from_bytes(data[1:5], "big"))
        row = fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)["after"]

        assert ("Fabrikam", "12.50", True, None) == tuple(row[name] for name in FIELDS[System.ERP, "customer"])
        assert ([], {}) == (row["drawbar_unknown"], row["drawbar_others"])

    def test_tell_unknown_from_blank(self, books: Books):
        found = decode(ChangeEvent, encode(change(displayName=None)))

        assert {"displayName": None} == found.after

    def test_of_a_delete_have_no_record(self, books: Books):
        gone = replace(change(), after=None)

        assert gone == decode(ChangeEvent, encode(gone))

    def test_are_read_by_the_schema_they_were_written_with(self, books: Books):
        """Columns came and went since: an old message is what it was."""
        old = encode(change(displayName="Fabrikam", visits=3))
        fewer = schemas_of({(System.ERP, "customer"): ("displayName", "city")}, {})
        subject = subject_of("erp.customer.changes")
        books.register(subject, fewer[subject])
        install(RegistryFraming(books))

        assert {"displayName": "Fabrikam", "visits": 3} == decode(ChangeEvent, old).after
        assert {"displayName", "city"} == set(columns_of(books.latest(subject)[1]))

    def test_take_their_types_from_the_systems_and_from_our_own_table(self):
        """The credit limit is an amount by our table; what nobody knows is text."""
        schema = schemas_of(FIELDS, FACTS)[subject_of("erp.customer.changes")]

        assert {
            "displayName": "text",
            "creditLimit": "amount",
            "isActive": "boolean",
            "visits": "integer",
        } == columns_of(schema)

    def test_have_schemas_that_other_avro_libraries_take(self):
        avro = pytest.importorskip("avro.schema")
        for schema in schemas_of(FIELDS, FACTS).values():
            avro.parse(json.dumps(schema))


class TestFraming:
    def test_leaves_what_was_written_without_a_registry_readable(self, books: Books):
        """Both kinds may stand on one topic: the first byte tells them apart."""
        order = Order(order_id="1", kind=OrderKind.RETRY)
        work = Work(message_id="m", mapping="customer-account", home="C", order=order)
        framed = encode(work)
        install(None)
        plain = encode(work)
        install(RegistryFraming(books))

        assert (0, 0xC3) == (framed[0], plain[0])
        assert [work, work] == [decode(Work, framed), decode(Work, plain)]

    def test_resolves_what_an_older_version_wrote(self, books: Books):
        """A field that came since has its default."""
        older = avro_schema(Work)
        older["fields"] = [field for field in older["fields"] if field["name"] != "hops"]
        books.register("old", older)
        out = io.BytesIO()
        datum = {"message_id": "m", "mapping": "x", "home": "C", "change": None, "outcome": None, "order": None}
        fastavro.schemaless_writer(out, fastavro.parse_schema(older, named_schemas={}), datum)
        head = bytes([0]) + len(books.schemas).to_bytes(4, "big")

        assert Work(message_id="m", mapping="x", home="C") == decode(Work, head + out.getvalue())

    @pytest.mark.parametrize("data", [b"\x00", b"\x00\x00\x00\x00\x63rest", b"\x00\x00\x00\x00\x01", b"\x01abc", b""])
    def test_does_not_take_what_nobody_wrote(self, books: Books, data: bytes):
        with pytest.raises(Undecodable):
            decode(Work, data)

    def test_does_not_take_another_type_for_the_wanted_one(self, books: Books):
        with pytest.raises(Undecodable, match="not a Work"):
            decode(Work, encode(a_change("erp:customer:C", state=a_small_customer())))
