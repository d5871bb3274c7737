"""What differs between two sets of mappings, and for how many records a write would follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from msgspec.structs import replace

from processors.coupling import Fingerprints, agree
from processors.mapping import EntityMapping, FieldMapping
from processors.mapping_diff import Effect, NewFields, changes_of, effects_of, new_fields, unseen_lines
from schemas.coupling import Pair, PairState, Row, Side
from schemas.records import System, Value

PRINTS = Fingerprints.of_key("test")
NOW = datetime(2026, 3, 2, tzinfo=timezone.utc)
NAME = {"erp": "displayName", "crm": "name"}
PHONE = {"erp": "phoneNumber", "crm": "telephone1"}


def a_mapping(*lines: dict[str, Any], **keys: Any) -> EntityMapping:
    given = {"name": "customer-account", "erp": "customer", "crm": "account", "match": [[NAME]], **keys}
    return EntityMapping(**given, fields=tuple(FieldMapping(**line) for line in (lines or (NAME, PHONE))))


def by_name(mapping: EntityMapping) -> Mapping[str, EntityMapping]:
    return {mapping.name: mapping}


def a_side(record_id: str, state: Mapping[str, Value]) -> Side:
    return Side(id=record_id, version="1", order=1, modified_at=NOW, state=state)


def a_pair(number: int, erp: Mapping[str, Value], crm: Mapping[str, Value], mapping: EntityMapping) -> Row:
    """Coupled, and agreed on what `mapping` says of it."""
    record_id = f"00000000-0000-4000-8000-{number:012d}"
    sides = {"erp": a_side(record_id, erp), "crm": a_side(record_id, crm)}
    pair = Pair(state=PairState.COUPLED, key_id=PRINTS.key_id, **sides)
    return Row(mapping=mapping.name, id=record_id, pair=agree(pair, mapping.fields, PRINTS, company=None))


def effect_of(rows: list[Row], before: EntityMapping, after: EntityMapping) -> Effect | None:
    effects = effects_of(rows, by_name(before), by_name(after), prints=PRINTS, company_id="")
    assert len(effects) <= 1
    return effects[0] if effects else None


class TestUnseenLines:
    def test_are_those_that_came_or_changed(self):
        """A removed line has nothing to be looked at; its mapping may have."""
        before, after = a_mapping(NAME, PHONE), a_mapping({**NAME, "crm_length": 50})
        added = a_mapping(NAME, PHONE, {"erp": "email", "crm": "emailaddress1"})

        assert {"customer-account": ("name",)} == unseen_lines(changes_of(by_name(before), by_name(after)))
        assert {"customer-account": ("emailaddress1",)} == unseen_lines(changes_of(by_name(before), by_name(added)))
        assert {"customer-account": ()} == unseen_lines(changes_of(by_name(added), by_name(before)))

    def test_are_none_of_mappings_that_came_whole(self):
        """Their records come by capture."""
        assert {} == unseen_lines(changes_of({}, by_name(a_mapping())))


class TestChangesOf:
    def test_the_same_files_have_none(self):
        assert () == changes_of(by_name(a_mapping()), by_name(a_mapping()))

    def test_tells_lines_that_came_went_and_changed(self):
        before = a_mapping(NAME, PHONE)
        after = a_mapping({**NAME, "crm_length": 50}, {"erp": "email", "crm": "emailaddress1"})
        (change,) = changes_of(by_name(before), by_name(after))

        assert [("changed", "name"), ("removed", "telephone1"), ("added", "emailaddress1")] == [
            (line.kind, line.crm) for line in change.lines
        ]
        (key,) = change.lines[0].keys
        assert ("crm_length", None, 50) == (key.key, key.before, key.after)

    def test_a_line_that_reads_another_field_is_changed(self):
        """The column that it writes is what tells it."""
        (change,) = changes_of(by_name(a_mapping(NAME, PHONE)), by_name(a_mapping(NAME, {**PHONE, "erp": "mobile"})))

        (line,) = change.lines
        assert ("changed", "mobile", ["erp"]) == (line.kind, line.erp, [key.key for key in line.keys])

    def test_a_line_that_is_switched_off_is_gone(self):
        (change,) = changes_of(by_name(a_mapping(NAME, PHONE)), by_name(a_mapping(NAME, {**PHONE, "enabled": False})))

        assert [("removed", "telephone1")] == [(line.kind, line.crm) for line in change.lines]

    def test_tells_keys_of_the_mapping_and_mappings_that_came_and_went(self):
        before = {"a": a_mapping(name="a"), "b": a_mapping(name="b")}
        after = {"a": a_mapping(name="a", conflict="erp"), "c": a_mapping(name="c")}
        changed, removed, added = changes_of(before, after)

        assert ["conflict"] == [key.key for key in changed.keys]
        assert [("removed", "b"), ("added", "c")] == [(one.kind, one.name) for one in (removed, added)]
        assert 2 == len(added.lines)


class TestNewFields:
    def test_names_what_is_not_captured_yet(self):
        """Per system and entity; what another mapping captures already is there."""
        before = (a_mapping(NAME), a_mapping(PHONE, name="other", match=[]))
        after = (a_mapping(NAME, PHONE, {"erp": "email", "crm": "emailaddress1"}),)

        assert (
            NewFields(system=System.CRM, entity="account", fields=("emailaddress1",)),
            NewFields(system=System.ERP, entity="customer", fields=("email",)),
        ) == new_fields(before, after)


class TestEffectsOf:
    ROWS = (
        ({"displayName": "A", "phoneNumber": "1"}, {"name": "A", "telephone1": "9"}),
        ({"displayName": "B", "phoneNumber": "2"}, {"name": "B", "telephone1": "2"}),
        ({"displayName": "C", "phoneNumber": None}, {"name": "C", "telephone1": "7"}),
    )

    @pytest.fixture
    def rows(self) -> list[Row]:
        return [a_pair(number, erp, crm, a_mapping(NAME)) for number, (erp, crm) in enumerate(self.ROWS)]

    def test_the_same_files_have_none(self, rows: list[Row]):
        assert effect_of(rows, a_mapping(NAME), a_mapping(NAME)) is None

    def test_counts_the_records_that_a_new_line_writes(self, rows: list[Row]):
        """At the first agreement the authority's value stands, and a blank gives way: neither side is blanked."""
        effect = effect_of(rows, a_mapping(NAME), a_mapping(NAME, PHONE))

        assert effect is not None
        assert (Counter(to_crm=1, to_erp=1), Counter(telephone1=1), Counter(phoneNumber=1)) == (
            effect.writes,
            effect.fields["to_crm"],
            effect.fields["to_erp"],
        )

    def test_leaves_out_what_is_written_anyway(self):
        """A change that is on its way is none of the new files."""
        row = a_pair(1, {"displayName": "A"}, {"name": "A"}, a_mapping(NAME))
        assert row.pair is not None
        assert row.pair.erp is not None
        changed = replace(row.pair.erp, state={"displayName": "Z"})
        moved = replace(row, pair=replace(row.pair, erp=changed))

        assert effect_of([moved], a_mapping(NAME), a_mapping(NAME, PHONE)) == Effect(
            mapping="customer-account", unknown=Counter(telephone1=1)
        )

    def test_says_what_rows_cannot_tell(self, rows: list[Row]):
        """A field that is not captured is unknown, not blank: nothing is counted as written."""
        effect = effect_of(rows, a_mapping(NAME), a_mapping(NAME, {"erp": "email", "crm": "emailaddress1"}))

        assert effect is not None
        assert (Counter(emailaddress1=3), Counter()) == (effect.unknown, effect.writes)

    def test_counts_values_that_would_come_out_otherwise_but_stand(self):
        """A transform is put in: nobody changed either side since, so nothing is written."""
        spaced = {"displayName": "A", "phoneNumber": "+49 30"}, {"name": "A", "telephone1": "+49 30"}
        before, after = a_mapping(NAME, PHONE), a_mapping(NAME, {**PHONE, "transform": "international"})
        effect = effect_of([a_pair(1, *spaced, before)], before, after)

        assert effect is not None
        assert (Counter(telephone1=1), Counter()) == (effect.differ, effect.writes)

    def test_counts_records_that_would_be_made(self):
        """A filter that lets more through, for example."""
        closed = a_mapping(NAME, filter={"erp": [{"field": "type", "equals": "Company"}]})
        side = a_side("00000000-0000-4000-8000-000000000001", {"displayName": "A", "type": "Person"})
        effect = effect_of([Row(mapping=closed.name, id=side.id, pair=Pair(erp=side))], closed, a_mapping(NAME))

        assert effect is not None
        assert Counter(to_crm=1) == effect.made

    @pytest.mark.parametrize(
        ("deletes", "deleted", "settled"),
        [
            ("propagate", Counter(to_crm=1), Counter()),
            ("restore", Counter(), Counter(restore=1)),
            ("uncouple", Counter(), Counter(uncouple=1)),
        ],
    )
    def test_counts_what_becomes_of_pairs_that_lost_a_record(
        self, deletes: str, deleted: Counter[str], settled: Counter[str]
    ):
        """Another policy for deletes reaches those that waited for a person."""
        before, after = a_mapping(NAME), a_mapping(NAME, deletes=deletes)
        row = a_pair(1, {"displayName": "A"}, {"name": "A"}, before)
        assert row.pair is not None
        assert row.pair.erp is not None
        orphan = replace(row, pair=replace(row.pair, erp=replace(row.pair.erp, deleted=True)))
        effect = effect_of([orphan], before, after)

        assert effect is not None
        assert (deleted, settled) == (effect.deleted, effect.settled)

    def test_counts_the_pairs_of_a_mapping_that_is_gone(self, rows: list[Row]):
        (effect,) = effects_of(rows, by_name(a_mapping(NAME)), {}, prints=PRINTS, company_id="")

        assert 3 == effect.dropped

    def test_a_mapping_that_is_new_knows_no_rows(self, rows: list[Row]):
        """It says nothing rather than something wrong."""
        other = a_mapping(NAME, name="other")
        before = by_name(a_mapping(NAME))

        assert () == effects_of(rows, before, {**before, "other": other}, prints=PRINTS, company_id="")
