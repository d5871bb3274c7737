"""`avro-python3`, which shares no code with fastavro, reads our schemas, accepts our records and decodes our bytes."""

from __future__ import annotations

import io
import json
import warnings
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import FILES, encode, from_datum, schema_text
from schemas.records import Record
from tests.contract.strategies import WITHOUT_SHRINKING, any_of
from tests.contract.test_codec import EXAMPLES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library announces that its successor is called `avro`
    import avro.io
    import avro.schema
    import avro.schemanormalization

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@cache
def parsed(name: str) -> Any:
    return avro.schema.parse(schema_text(name))


def whole(part: Any) -> Any:
    """A record with every field that it has, as the schemas describe it; nothing of our codec has a hand in it."""
    if isinstance(part, Record):
        return {name: whole(getattr(part, name)) for name in part.__struct_fields__}
    if isinstance(part, dict):
        return {name: whole(value) for name, value in part.items()}
    if isinstance(part, tuple):
        return [whole(item) for item in part]
    if isinstance(part, Decimal):
        return {"amount": str(part)}
    return part.value if isinstance(part, Enum) else part


def plain(datum: Any) -> Any:
    """A datum as this library takes it: it knows no logical types, so a time is a number of microseconds."""
    if isinstance(datum, datetime):
        return (datum - EPOCH) // timedelta(microseconds=1)
    if isinstance(datum, dict):
        return {key: plain(item) for key, item in datum.items()}
    return [plain(item) for item in datum] if isinstance(datum, list) else datum


def timely(datum: Any, expected: Any) -> Any:
    """The other way, where `expected` has a time."""
    if isinstance(expected, datetime):
        return EPOCH + timedelta(microseconds=datum)
    if isinstance(expected, dict):
        return {key: timely(item, expected[key]) for key, item in datum.items()}
    return [timely(*pair) for pair in zip(datum, expected, strict=True)] if isinstance(expected, list) else datum


def read(name: str, data: bytes) -> Any:
    decoder = avro.io.BinaryDecoder(io.BytesIO(data[10:]))
    return avro.io.DatumReader(parsed(name), parsed(name)).read(decoder)


class TestOracle:
    @pytest.mark.parametrize("name", FILES)
    def test_parses_every_schema_file(self, name: str):
        schema = parsed(name)

        assert FILES[name].__name__ == schema.name
        assert "drawbar" == schema.namespace

    @pytest.mark.parametrize("name", FILES)
    def test_computes_the_same_fingerprint(self, name: str):
        """The header of our bytes is what any Avro library makes of the file."""
        canonical = json.dumps(json.loads(avro.schemanormalization.ToParsingCanonicalForm(parsed(name))))
        canonical = canonical.replace(", ", ",").replace(": ", ":")
        fingerprint = avro.schemanormalization.Fingerprint(canonical, "CRC-64-AVRO")

        assert fingerprint == encode(EXAMPLES[name])[2:10]

    @pytest.mark.parametrize("name", FILES)
    def test_accepts_and_reads_the_examples(self, name: str):
        datum = whole(EXAMPLES[name])

        assert avro.io.Validate(parsed(name), plain(datum))
        assert plain(datum) == read(name, encode(EXAMPLES[name]))

    @settings(max_examples=120, phases=WITHOUT_SHRINKING)
    @given(st.data())
    def test_reads_whatever_we_write(self, data: st.DataObject):
        """The bytes of any record mean the same record to both libraries."""
        name = data.draw(st.sampled_from(sorted(FILES)))
        record = data.draw(any_of(FILES[name]))
        datum = whole(record)

        assert avro.io.Validate(parsed(name), plain(datum))
        assert record == from_datum(FILES[name], timely(read(name, encode(record)), datum))

    @pytest.mark.parametrize("name", FILES)
    def test_refuses_a_datum_without_a_field(self, name: str):
        """The oracle does look: it is not a yes-man."""
        datum = plain(whole(EXAMPLES[name]))
        datum.pop(next(iter(datum)))

        assert not avro.io.Validate(parsed(name), datum)
