"""The pure parts of the shell: where a change goes, and what a dead letter looks like."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from drawbar.letters import bytes_letter, index_message, letter_message
from drawbar.ports import InMessage
from processors.route import changes_topics, routes_of, to_works
from schemas.codec import decode, encode
from schemas.errors import MappingUnknown, Undecodable
from schemas.records import DeadLetter
from tests.processors_shell.given import CUSTOMER, MAPPINGS, NOON, a_change, an_id

BROKEN = InMessage(
    topic="pairs.work",
    partition=2,
    offset=17,
    key=b"customer-account:1",
    value=b"\xff",
    headers=(("trace", b"1"), ("drawbar.letter-id", b"an earlier one")),
)


class TestToWorks:
    def test_sends_a_change_to_the_home_of_its_record_in_each_mapping(self):
        """One message per mapping that knows the entity, under a key and an id that a repetition gets again."""
        vendor = CUSTOMER.model_copy(update={"name": "vendor-account", "erp": "vendor"})
        change = a_change(an_id(1), entity="account")
        change = replace(change, ref=replace(change.ref, system=change.ref.system.other))
        works = to_works(encode(change), routes_of([*MAPPINGS.values(), vendor]))

        assert [f"customer-account:{an_id(1)}", f"vendor-account:{an_id(1)}"] == [work.key for work in works]
        assert [f"{change.event_id}:customer-account", f"{change.event_id}:vendor-account"] == [
            work.message_id for work in works
        ]

    def test_ignores_tombstones_and_entities_of_no_mapping(self):
        routes = routes_of([CUSTOMER])

        assert () == to_works(None, routes)
        assert () == to_works(encode(a_change(an_id(1), entity="salesperson")), routes)

    def test_refuses_bytes_that_are_no_change(self):
        with pytest.raises(Undecodable):
            to_works(b"\xff", routes_of([CUSTOMER]))

    def test_reads_a_topic_per_entity(self):
        assert ("crm.account.changes", "erp.customer.changes") == changes_topics(routes_of([CUSTOMER]))


class TestLetters:
    def test_key_value_and_headers_stay_as_they_were(self):
        """Our headers come after the message's own; those of an earlier letter are not kept."""
        letter = bytes_letter(BROKEN, Undecodable, now=NOON)
        message = letter_message(
            letter,
            key=BROKEN.key,
            value=BROKEN.value,
            headers=BROKEN.headers,
            stage="decide",
            partition=BROKEN.partition,
            offset=BROKEN.offset,
        )

        assert (BROKEN.key, BROKEN.value, ("trace", b"1")) == (message.key, message.value, message.headers[0])
        headers = dict(message.headers)
        assert {
            "drawbar.letter-id": letter.letter_id.encode(),
            "drawbar.code": b"DRW-3010",
            "drawbar.slug": b"undecodable",
            "drawbar.mapping": b"",
            "drawbar.ref": b"",
            "drawbar.missing": b"",
            "drawbar.cause": b"undecodable pairs.work",
            "drawbar.topic": b"pairs.work",
            "drawbar.partition": b"2",
            "drawbar.offset": b"17",
            "drawbar.stage": b"decide",
        } == {name: value for name, value in headers.items() if name.startswith("drawbar.")}

    def test_a_message_delivered_twice_is_one_letter(self):
        first = bytes_letter(BROKEN, Undecodable, now=NOON)

        assert first.letter_id == bytes_letter(BROKEN, Undecodable, now=NOON).letter_id
        assert first.letter_id != bytes_letter(replace(BROKEN, offset=18), Undecodable, now=NOON).letter_id

    def test_letters_of_one_unknown_mapping_have_one_cause(self):
        letters = [
            bytes_letter(replace(BROKEN, offset=offset), MappingUnknown, now=NOON, mapping="vendor-account")
            for offset in (1, 2)
        ]

        assert {("DRW-3011", "mapping-unknown vendor-account")} == {(letter.code, letter.cause) for letter in letters}

    def test_the_index_line_names_the_place_of_the_bytes(self):
        letter = bytes_letter(BROKEN, Undecodable, now=NOON)
        line = index_message(letter, partition=0, offset=5)

        assert letter.letter_id.encode() == line.key
        assert replace(letter, partition=0, offset=5) == decode(DeadLetter, line.value)
