"""Copies of frozen records are those that `dataclasses.replace` makes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import FILES
from schemas.compiled import replace
from tests.builders import a_pair, a_row
from tests.contract.strategies import WITHOUT_SHRINKING, any_of

RECORDS = st.sampled_from(sorted(FILES)).flatmap(lambda name: any_of(FILES[name]))


class TestReplace:
    @settings(max_examples=100, deadline=None, phases=WITHOUT_SHRINKING)
    @given(RECORDS, st.data())
    def test_changes_the_named_fields_and_no_other(self, record: object, data: st.DataObject):
        names = [member.name for member in dataclasses.fields(record)]  # type: ignore[arg-type]
        changes = {name: object() for name in data.draw(st.sets(st.sampled_from(names)))}
        before = repr(record)

        copy = replace(record, **changes)  # type: ignore[type-var]

        assert copy == dataclasses.replace(record, **changes)  # type: ignore[type-var]
        assert type(copy) is type(record)
        assert repr(record) == before

    def test_refuses_a_field_that_there_is_not(self):
        with pytest.raises(KeyError):
            replace(a_row(), nonsense=1)  # type: ignore[call-arg]

    def test_leaves_a_copy_as_frozen_as_the_record(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            replace(a_row(a_pair()), id="x").id = "y"  # type: ignore[misc]
