"""Records become bytes and JSON text and come back as they were; whatever else arrives is Undecodable."""

from __future__ import annotations

import json
import struct
from decimal import Decimal
from pathlib import Path

import fastavro
import fastavro.schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from schemas.codec import FILES, avro_schema, decode, encode, from_json, schema_text, to_datum, to_json
from schemas.coupling import Hold, Matched, Row
from schemas.errors import Undecodable
from schemas.records import ChangeEvent, OrderKind, OutcomeStatus, Work
from tests.builders import (
    NOON,
    a_change,
    a_command,
    a_flight,
    a_home,
    a_journal_line,
    a_letter,
    a_pair,
    a_row,
    a_watermark,
    an_observed,
    an_order,
    an_outcome,
    work_of,
)
from tests.contract.strategies import WITHOUT_SHRINKING, any_of

RECORDS = st.sampled_from(sorted(FILES)).flatmap(lambda name: any_of(FILES[name]))
EXAMPLES = {
    "change_event": a_change(state={"name": "Łódź 🏭", "credit": Decimal("1.50"), "count": 0, "on": False, "no": None}),
    "command": a_command(),
    "outcome": an_outcome(a_command(), observed=an_observed()),
    "work": work_of(an_order(OrderKind.COUPLE, erp_id="C", crm_id="A", record=an_observed()), home="A"),
    "coupling": a_row(
        a_pair(
            erp={"city": "Rome"},
            in_flight=a_flight(),
            matched=Matched(test="t", candidates=("A",)),
            holds={"to_crm": Hold(code="DRW-3001", slug="owner-not-coupled", order=1, since=NOON, letter_id="l")},
        ),
        home=a_home("E"),
        deferred=(an_order(OrderKind.RETRY),),
    ),
    "dead_letter": a_letter(),
    "journal_line": a_journal_line(),
    "watermark": a_watermark(),
}


class TestEncode:
    @pytest.mark.parametrize("name", FILES)
    def test_has_an_example_of_every_record_type(self, name: str):
        assert EXAMPLES[name] == decode(FILES[name], encode(EXAMPLES[name]))
        assert EXAMPLES[name] == from_json(FILES[name], to_json(EXAMPLES[name]))

    @settings(max_examples=250, phases=WITHOUT_SHRINKING)
    @given(RECORDS)
    def test_and_decode_are_the_identity(self, record: object):
        """There and back is the same record, for every record that can be built: no loss, no change of type."""
        back = decode(type(record), encode(record))

        assert record == back
        assert repr(record) == repr(back)  # 1, True and Decimal(1) are equal to each other, but not the same

    @pytest.mark.parametrize(
        "value",
        [None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), "", " ", "0", "Ω\u0000\n", Decimal("0.10"), Decimal(7)],
    )
    def test_keeps_value_and_type(self, value: object):
        """A blank is not a zero, not false and not an empty text; 0.10 keeps its digits."""
        event = a_change(state={"field": value})

        back = decode(ChangeEvent, encode(event)).after

        assert (value, type(value)) == (back["field"], type(back["field"]))
        assert str(value) == str(back["field"])

    def test_tells_an_unknown_state_from_an_empty_one(self):
        """A deleted record has no state; a record of which nothing was asked has an empty one."""
        deleted, empty = replace(a_change(), after=None), replace(a_change(), after={})

        assert None is decode(ChangeEvent, encode(deleted)).after
        assert {} == decode(ChangeEvent, encode(empty)).after

    def test_refuses_a_class_without_schema(self):
        with pytest.raises(ValueError):
            encode(object())


class TestSingleObjectEncoding:
    """Avro 1.11, "Single object encoding": C3 01, the schema's CRC-64-AVRO little-endian, then the body."""

    @pytest.mark.parametrize("name", FILES)
    def test_begins_with_marker_and_fingerprint_of_the_schema(self, name: str):
        canonical = fastavro.schema.to_parsing_canonical_form(json.loads(schema_text(name)))

        assert b"\xc3\x01" + struct.pack("<Q", crc_64_avro(canonical.encode())) == encode(EXAMPLES[name])[:10]

    def test_the_fingerprint_of_the_specification_s_example(self):
        """The value that the specification's Java code gives for the schema "null" keeps our own oracle honest."""
        assert 0x63DD24E7CC258F8A == crc_64_avro(b'"null"')

    def test_gives_every_type_its_own_header(self):
        """A reader can tell the types apart, so a command on the wrong topic is not read as an outcome."""
        assert len(FILES) == len({encode(EXAMPLES[name])[:10] for name in FILES})


def crc_64_avro(data: bytes) -> int:
    """As the specification writes it down, bit by bit."""
    empty = 0xC15D213AA4D7A795
    fingerprint = empty
    for byte in data:
        table = (fingerprint ^ byte) & 0xFF
        for _ in range(8):
            table = (table >> 1) ^ (empty & -(table & 1) & 0xFFFFFFFFFFFFFFFF)
        fingerprint = (fingerprint >> 8) ^ table
    return fingerprint


def readable(cls: type, data: bytes) -> bool:
    """Whether a record of this class comes out. Raises what `decode` raises besides Undecodable."""
    try:
        return isinstance(decode(cls, data), cls)
    except Undecodable:
        return False


class TestDecode:
    @pytest.mark.parametrize(
        "data", [None, b"", b"{}", b"\xc3", b"\xc3\x01", b"\x00\x00\x00\x00\x01rest", b"\xc3\x01" + bytes(8), bytes(64)]
    )
    def test_refuses_what_is_not_ours(self, data: bytes | None):
        with pytest.raises(Undecodable):
            decode(ChangeEvent, data)

    @pytest.mark.parametrize("name", FILES)
    def test_refuses_another_record_type(self, name: str):
        other = next(cls for known, cls in FILES.items() if known != name)

        with pytest.raises(Undecodable):
            decode(other, encode(EXAMPLES[name]))

    @pytest.mark.parametrize("name", FILES)
    def test_refuses_every_truncation(self, name: str):
        """However few bytes are missing: half a record is no record."""
        whole = encode(EXAMPLES[name])

        assert [] == [length for length in range(len(whole)) if readable(FILES[name], whole[:length])]

    @pytest.mark.parametrize("name", FILES)
    def test_refuses_bytes_after_the_end(self, name: str):
        """Two records in one message, or a record with something behind it, was not written by us."""
        with pytest.raises(Undecodable):
            decode(FILES[name], encode(EXAMPLES[name]) + b"\x00")

    @settings(max_examples=300)
    @given(st.data())
    def test_of_damaged_bytes_gives_a_record_or_undecodable(self, data: st.DataObject):
        """No byte pattern raises anything else, hangs, or takes the process down."""
        name = data.draw(st.sampled_from(sorted(FILES)))
        damaged = bytearray(encode(EXAMPLES[name]))
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(10, len(damaged) - 1))] = data.draw(st.integers(0, 255))

        assert readable(FILES[name], bytes(damaged)) in {True, False}

    def test_does_not_repeat_the_values_in_its_message(self):
        """Values can be personal data."""
        event = encode(a_change(state={"name": "Jane Roe"}))

        with pytest.raises(Undecodable) as refused:
            decode(ChangeEvent, event[:-1])
        assert "Jane" not in refused.value.for_people()


class TestJson:
    @settings(max_examples=100, phases=WITHOUT_SHRINKING)
    @given(any_of(Row))
    def test_rows_come_back_as_they_were(self, row: Row):
        back = from_json(Row, to_json(row))

        assert row == back
        assert repr(row) == repr(back)

    @settings(max_examples=60, phases=WITHOUT_SHRINKING)
    @given(any_of(Work))
    def test_text_has_the_shape_of_the_avro_datum(self, work: Work):
        """One description of a record serves both: what analysts see in a row is named as in the schema."""
        assert set(to_datum(work)) == set(json.loads(to_json(work)))

    @pytest.mark.parametrize("text", ["", "null", "[]", "{}", "{", '"row"', '{"mapping": "m"}', b"\xff\xfe"])
    def test_refuses_what_is_no_row(self, text: str | bytes):
        with pytest.raises(Undecodable):
            from_json(Row, text)

    def test_reads_a_row_that_an_older_version_wrote(self):
        """Rows stay in their topic for years: one that names every field, and each decimal number as a record."""
        older = Path(__file__).with_name("row_of_an_older_version.json").read_bytes()
        row = a_row(
            a_pair(
                erp={"city": "Rome", "creditLimit": Decimal(7), "discount": Decimal("0.10")},
                in_flight=a_flight(),
                holds={"to_crm": Hold(code="DRW-3001", slug="owner-not-coupled", order=1, since=NOON, letter_id="l")},
            ),
            home=a_home("E"),
            deferred=(an_order(OrderKind.RETRY),),
        )

        assert row == from_json(Row, older)
        assert repr(row) == repr(from_json(Row, older))

    @pytest.mark.parametrize("number", ["7", "0.10", "-0", "1E+3", "1E-7", "123456789012345678901234567890", "0E-10"])
    def test_keeps_every_digit_of_a_decimal_number(self, number: str):
        """Whether it looks like an integer, like a fraction, or is longer than a machine's numbers."""
        row = a_row(a_pair(erp={"creditLimit": Decimal(number)}))

        back = from_json(Row, to_json(row)).pair.erp.state["creditLimit"]

        assert (number, Decimal) == (str(back), type(back))

    def test_leaves_out_what_has_its_default(self):
        """A row is kept in memory and in its topic as text, and most of what may be in one is not."""
        assert {"mapping", "id"} == set(json.loads(to_json(Row(mapping="m", id="i"))))


class TestSchemaFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_say_what_the_classes_say(self, name: str):
        """`python -m schemas.codec` writes them anew after a change of the contract."""
        assert avro_schema(FILES[name]) == json.loads(schema_text(name))

    @pytest.mark.parametrize("name", FILES)
    def test_give_every_added_field_a_default(self, name: str):
        """What has a default in the class has one in the schema, so that a new reader can read old bytes."""
        parsed = fastavro.parse_schema(json.loads(schema_text(name)))
        given_default = {entry["name"] for entry in parsed["fields"] if "default" in entry}

        assert {member.name for member in fields(FILES[name]) if not member.required} == given_default

    def test_name_every_outcome(self):
        assert {status.value for status in OutcomeStatus} == set(symbols_of("outcome", "OutcomeStatus"))


def symbols_of(file: str, enum: str) -> list[str]:
    def search(node: object) -> list[str] | None:
        if isinstance(node, dict):
            if node.get("name") == enum and "symbols" in node:
                return list(node["symbols"])
            return next((hit for item in node.values() if (hit := search(item))), None)
        return next((hit for item in node if (hit := search(item))), None) if isinstance(node, list) else None

    return search(json.loads(schema_text(file))) or []
