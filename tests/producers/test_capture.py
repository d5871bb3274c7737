from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawbar.hints import Hint, HintKind, entity_at, partition_of, read_hint
from producers import capture
from producers.capture import Comparison, Known, Subject
from schemas.records import Observed, Operation, System, Value, Watermark
from schemas.topics import CAPTURED
from tests.producers.worlds import START, Fate, Store

CUSTOMER = Subject(system=System.ERP, entity="customer", field_set="f1")
CURRENCY = Subject(system=System.ERP, entity="currency", field_set="f1", derived=("exchangeRate",))
NOW = START + timedelta(hours=1)


def a_row(record_id: str = "a", *, version: str = "v1", order: int = 1000) -> Observed:
    return Observed(id=record_id, version=version, order=order, modified_at=START, state={"displayName": "Fabrikam"})


def as_known(version: str = "v1", order: int = 1000, *, field_set: str = "f1", deleted: bool = False) -> Known:
    return Known(version, order, field_set, deleted)


def events(row: Observed, known: Mapping[str, Known], **how: bool) -> list[tuple[Operation, int]]:
    found = capture.to_events([row], known, CUSTOMER, captured_at=NOW, **how)
    return [(event.operation, event.order) for event in found]


class TestToEvents:
    def test_a_state_that_is_published_is_no_news(self):
        assert [] == events(a_row(), {"a": as_known()})

    def test_the_same_state_with_other_fields_is_news_of_the_same_order(self):
        """It is the same state: nothing happened to the record."""
        assert [(Operation.SNAPSHOT, 1000)] == events(a_row(), {"a": as_known(field_set="f0")}, in_snapshot=True)

    def test_a_new_state_keeps_its_own_order_when_that_is_later(self):
        assert [(Operation.CHANGE, 1005)] == events(a_row(version="v2", order=1005), {"a": as_known()})

    @pytest.mark.parametrize("order", [1000, 900])
    def test_a_new_state_of_no_later_time_comes_right_after_the_last(self, order: int):
        """Two changes in one moment, or two servers' clocks: reads of a record do not go back in time."""
        assert [(Operation.CHANGE, 1001)] == events(a_row(version="v2", order=order), {"a": as_known()})

    def test_a_record_that_comes_back_under_its_old_version_is_news_after_its_delete(self):
        known = {"a": as_known(order=1001, deleted=True)}

        assert [(Operation.CHANGE, 1002)] == events(a_row(), known)

    def test_a_change_met_in_a_later_snapshot_is_a_change(self):
        """Only what is read for the first time is a snapshot; after a lost position most rows are known."""
        row, known = a_row(version="v2", order=2000), {"a": as_known()}

        assert [(Operation.CHANGE, 2000)] == events(row, known, in_snapshot=True)

    def test_the_same_capture_twice_gives_the_same_event(self):
        """The id of an event is derived from record, version and fields, so a repeat is recognised."""
        (first,) = capture.to_events([a_row()], {}, CUSTOMER, captured_at=NOW)
        (again,) = capture.to_events([a_row()], {}, CUSTOMER, captured_at=NOW + timedelta(hours=1))

        assert first.event_id == again.event_id

    def test_every_state_is_an_event_of_its_own(self):
        """Another record, another version, another set of fields, a return after a delete: none shares its id."""
        other_fields = Subject(system=System.ERP, entity="customer", field_set="f2")
        captures = [
            (a_row(), {}, CUSTOMER),
            (a_row("b"), {}, CUSTOMER),
            (a_row(version="v2"), {}, CUSTOMER),
            (a_row(), {}, other_fields),
            (a_row(), {"a": as_known(deleted=True)}, CUSTOMER),
        ]
        found = [capture.to_events([row], known, subject, captured_at=NOW) for row, known, subject in captures]

        assert 5 == len({event.event_id for (event,) in found})


def a_rated(rate: Value, *, version: str = "v1", order: int = 1000) -> Observed:
    state = {"code": "USD", "exchangeRate": rate}
    return Observed(id="usd", version=version, order=order, modified_at=START, state=state)


class TestStamp:
    def test_is_the_version_where_nothing_is_derived(self):
        assert "v1" == capture.stamp("v1", {"code": "USD"}, ())
        assert "v1" == capture.stamp("v1", {"code": "USD"}, ("exchangeRate",))

    def test_names_version_and_derived_values_and_nothing_else(self):
        """Equal numbers are equal whatever their type, and a blank is not an absent field."""
        stamps = [
            capture.stamp("v1", {"code": code, "exchangeRate": rate}, ("exchangeRate",))
            for code, rate in [("USD", Decimal("2.0")), ("GBP", 2), ("USD", Decimal("2.1")), ("USD", None)]
        ]

        assert stamps[0] == stamps[1]
        assert 3 == len({*stamps})
        assert "v1" not in stamps


class TestDerivedChanges:
    def test_are_news_under_the_same_version(self):
        """The next event comes right after the last one; its version stays what the system goes by."""
        (first,) = capture.to_events([a_rated(Decimal("1.1"))], {}, CURRENCY, captured_at=NOW)
        known = capture.remembered([first], CURRENCY)
        (second,) = capture.to_events([a_rated(Decimal("1.2"))], known, CURRENCY, captured_at=NOW)

        assert () == capture.to_events([a_rated(Decimal("1.10"))], known, CURRENCY, captured_at=NOW)
        assert (1000, 1001) == (first.order, second.order)
        assert {"v1"} == {first.version, second.version}
        assert first.event_id != second.event_id

    def test_that_come_back_are_another_event(self):
        """A rate that goes up and down again is two changes, not a repeat."""
        known: dict[str, Known] = {}
        ids = set()
        for rate in (1, 2, 1):
            (event,) = capture.to_events([a_rated(rate)], known, CURRENCY, captured_at=NOW)
            known = capture.remembered([event], CURRENCY)
            ids.add(event.event_id)

        assert 3 == len(ids)

    def test_are_recalled_from_the_topic(self):
        """A successor finds the same stamps, so it publishes nothing twice."""
        store = Store(Fate())
        found = capture.to_events([a_rated(Decimal("1.0825"))], {}, CURRENCY, captured_at=NOW)
        store.commit(capture.to_messages(found))

        known = capture.recalled(store.topics[CURRENCY.topic], CURRENCY)
        assert capture.remembered(found, CURRENCY) == known
        stamped = capture.stamp("v1", {"exchangeRate": Decimal("1.0825")}, CURRENCY.derived)
        assert Comparison(differing=(), missing=()) == capture.compare({"usd": stamped}, known, CURRENCY)
        assert Comparison(differing=("usd",), missing=()) == capture.compare({"usd": "v1"}, known, CURRENCY)


class TestRecalled:
    @given(
        story=st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from(["v1", "v2", "v3", "gone"]), st.integers(1, 99)),
            max_size=20,
        )
    )
    def test_is_what_was_remembered_when_it_was_published(self, story: list[tuple[str, str, int]]):
        """The memory of a process and that of its successor, read from the topic, are one."""
        store, known = Store(Fate()), dict[str, Known]()
        for record_id, version, order in story:
            rows = [a_row(record_id, version=version, order=order)]
            found = (
                capture.to_deletes([record_id], known, CUSTOMER, captured_at=NOW)
                if version == "gone"
                else capture.to_events(rows, known, CUSTOMER, captured_at=NOW)
            )
            store.commit(capture.to_messages(found))
            known.update(capture.remembered(found, CUSTOMER))

        assert known == capture.recalled(store.topics.get(CUSTOMER.topic, []), CUSTOMER)


class TestCompare:
    def test_finds_what_is_new_changed_gone_or_captured_with_other_fields(self):
        known = {
            "same": as_known(),
            "changed": as_known(),
            "fields": as_known(field_set="f0"),
            "gone": as_known(),
            "deleted": as_known(deleted=True),
            "back": as_known(deleted=True),
        }
        listed = {"same": "v1", "changed": "v2", "fields": "v1", "back": "v1", "new": "v1"}

        expected = Comparison(differing=("changed", "fields", "back", "new"), missing=("gone",))
        assert expected == capture.compare(listed, known, CUSTOMER)


class TestWitnesses:
    def test_are_records_just_listed_then_published_ones_and_never_suspects(self):
        known = {"a": as_known(), "b": as_known(), "c": as_known(deleted=True), "d": as_known()}

        assert ("x", "b", "d") == capture.witnesses(["a"], known, ["a", "x"])


class TestMaxDeletes:
    @pytest.mark.parametrize(("known", "allowed"), [(100, 20), (2000, 20), (2100, 21), (10_000, 100)])
    def test_is_a_number_or_a_share_whichever_is_more(self, known: int, allowed: int):
        assert allowed == capture.max_deletes(
            {str(number): as_known() for number in range(known)}, at_least=20, share=0.01
        )


class TestLowerBound:
    POSITION = "2026-03-02T09:00:10.000Z"

    @pytest.mark.parametrize(
        ("quiet_s", "bound"),
        [
            (0, "2026-03-02T09:00:05.000Z"),
            (2, "2026-03-02T09:00:07.000Z"),
            (60, "2026-03-02T09:00:09.950Z"),
        ],
    )
    def test_reads_back_as_far_as_a_late_commit_may_still_come(self, quiet_s: float, bound: str):
        """The longer nothing came, the less there is to wait for; what rounding hides is always read again."""
        assert bound == capture.lower_bound(self.POSITION, overlap_s=5, quiet_s=quiet_s)

    @pytest.mark.parametrize("position", ["", "0001-01-01T00:00:00.000Z"])
    def test_is_blank_when_nothing_was_read_or_all_rows_are_without_a_time(self, position: str):
        assert not capture.lower_bound(position, overlap_s=5, quiet_s=0)


class TestPosition:
    @given(time=st.datetimes(timezones=st.just(timezone.utc)))
    def test_sorts_as_time_does_and_comes_back(self, time: datetime):
        whole = time.replace(microsecond=time.microsecond // 1000 * 1000)

        assert whole == capture.from_position(capture.to_position(time))
        assert len("2026-03-02T09:00:10.000Z") == len(capture.to_position(time))


class TestSweepPause:
    @pytest.mark.parametrize(("requests", "pause_s"), [(1, 15), (10, 15), (15, 15), (100, 100)])
    def test_keeps_sweeps_within_their_budget(self, requests: int, pause_s: float):
        """300 requests in 5 minutes: a sweep of 100 may come every 100 s."""
        assert pause_s == capture.sweep_pause(requests, interval_s=15, requests_per_5_min=300)


class TestToMessages:
    def test_have_the_record_id_for_a_key_and_cloud_event_headers(self):
        (event,) = capture.to_events([a_row()], {}, CUSTOMER, captured_at=NOW)
        (message,) = capture.to_messages([event])

        headers = dict(message.headers)
        assert (b"a", "erp.customer.changes") == (message.key, message.topic)
        assert (b"1.0", event.event_id.encode(), b"drawbar.change.change") == (
            headers["ce_specversion"],
            headers["ce_id"],
            headers["ce_type"],
        )
        assert {"ce_source", "ce_time", "ce_subject"} <= set(headers)


class TestLatestWatermark:
    def test_is_the_last_under_its_key(self):
        store = Store(Fate())
        marks = [
            Watermark(system=System.ERP, entity=entity, position=position, field_set="f1", snapshot_done=True, at=NOW)
            for entity, position in (("customer", "1"), ("salesperson", "2"), ("customer", "3"))
        ]
        store.commit(capture.to_watermark_message(mark) for mark in marks)
        (messages,) = store.topics.values()

        assert marks[2] == capture.latest_watermark(messages, "erp.customer")
        assert capture.latest_watermark(messages, "crm.account") is None


class TestHints:
    @pytest.mark.parametrize("kind", list(HintKind))
    @pytest.mark.parametrize("sweep", [True, False])
    def test_come_back_as_they_were_sent(self, kind: HintKind, sweep: bool):
        hint = Hint(kind=kind, system=System.CRM, entity="account", sweep=sweep)

        assert hint == read_hint(hint.to_json(NOW))

    @pytest.mark.parametrize("value", [None, b"", b"[]", b"7", b"{}", b'{"kind": "sing"}', b"\xff"])
    def test_that_are_none_are_passed_over(self, value: bytes | None):
        assert read_hint(value) is None

    def test_go_to_the_partition_of_their_entity(self):
        """The i-th captured entity has partition i: its assignment names the owner."""
        places = [partition_of(System(system), entity) for system, entity in CAPTURED]

        assert list(range(len(CAPTURED))) == places
        assert [(System(system), entity) for system, entity in CAPTURED] == [entity_at(place) for place in places]
        assert entity_at(len(CAPTURED)) is None
