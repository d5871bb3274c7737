"""`drawbar changes`: the change stream of one entity."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from drawbar.cli.changes import changes
from drawbar.ports import InMessage
from schemas.codec import encode
from schemas.records import ChangeEvent, Operation, RecordRef, System
from tests.cli.rows_fake import CONTOSO, NOW, FakeRows, app_of, run

app = app_of(changes)


def published(order: int, *, value: bytes | None = b"", key: str = CONTOSO) -> InMessage:
    event = ChangeEvent(
        event_id=f"e-{order}",
        ref=RecordRef(System.ERP, "customer", key),
        operation=Operation.CHANGE,
        version=f'W/"{order}"',
        order=order,
        modified_at=NOW,
        captured_at=NOW + timedelta(seconds=1.5),
        after={"displayName": "Contoso", "creditLimit": Decimal("10.50"), "blocked": None},
        field_set="abc",
    )
    return InMessage(
        topic="erp.customer.changes",
        partition=0,
        offset=order,
        key=key.encode(),
        value=encode(event) if value == b"" else value,
        timestamp_ms=1_700_000_000_000,
    )


class TestChanges:
    def test_json_is_one_object_a_change_without_values(self):
        """Names of fields, version, order and times are metadata."""
        (line,) = run(app, "changes", "erp", "customer", "--json", rows=FakeRows(published=[published(1)])).json

        assert (f"erp:customer:{CONTOSO}", "change", 'W/"1"', 1) == (
            line["ref"],
            line["operation"],
            line["version"],
            line["order"],
        )
        assert ["blocked", "creditLimit", "displayName"] == line["fields"]
        assert "after" not in line

    def test_values_when_asked_for_amounts_as_their_digits(self):
        """JSON's own numbers would round an amount."""
        (line,) = run(
            app, "changes", "erp", "customer", "--json", "--values", rows=FakeRows(published=[published(1)])
        ).json

        assert {"displayName": "Contoso", "creditLimit": "10.50", "blocked": None} == line["after"]

    def test_a_tombstone_ends_a_record(self):
        """It follows a delete."""
        rows = FakeRows(published=[published(2, value=None)])

        assert "tombstone" == run(app, "changes", "erp", "customer", "--json", rows=rows).json[0]["operation"]

    def test_what_cannot_be_decoded_is_a_line_too(self):
        """And is counted aside."""
        result = run(
            app, "changes", "erp", "customer", rows=FakeRows(published=[published(2, value=b"garbage"), published(3)])
        )

        assert 2 == len(result.out.splitlines())
        assert "1 of these cannot be decoded" in result.err

    def test_shows_the_last_unless_told_to_begin_at_the_beginning(self):
        """`--limit` bounds either."""
        rows = FakeRows(published=[published(order) for order in range(1, 31)])

        def orders(*options: str) -> list[int]:
            return [
                line["order"] for line in run(app, "changes", "erp", "customer", "--json", *options, rows=rows).json
            ]

        assert list(range(11, 31)) == orders()
        assert [29, 30] == orders("--limit", "2")
        assert [1, 2] == orders("--from-beginning", "--limit", "2")

    def test_people_see_how_late_a_change_was_seen(self):
        """From its modification in the source to our capture."""
        assert "seen after 1.5 s" in run(app, "changes", "erp", "customer", rows=FakeRows(published=[published(1)])).out

    def test_an_entity_that_is_not_captured_gets_a_suggestion(self):
        """Exit code 2."""
        result = run(app, "changes", "erp", "customers", rows=FakeRows())

        assert 2 == result.exit_code
        assert "did you mean 'customer'?" in result.err
