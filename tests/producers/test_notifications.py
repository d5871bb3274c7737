from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from producers.notifications import OLD_AFTER, Result, SecretSearch, Seen, Verdict, is_secret, judge_crm, judge_erp
from tests.producers.worlds import START

SECRET = "s3cret"
RESOURCE = "api/v2.0/companies(11111111-0000-4000-8000-000000000001)/customers"


def an_entry(**changed: Any) -> dict[str, Any]:
    entry = {
        "subscriptionId": "1",
        "clientState": SECRET,
        "expirationDateTime": "2026-03-05T09:00:00Z",
        "resource": f"{RESOURCE}(33333333-0000-4000-8000-000000000010)",
        "changeType": "updated",
        "lastModifiedDateTime": START.strftime("%Y-%m-%dT%H:%M:%S.5Z"),
    }
    return {**entry, **changed}


def a_body(*entries: Any) -> bytes:
    return json.dumps({"value": entries}).encode()


def a_context(**changed: Any) -> bytes:
    at = int(START.timestamp() * 1000)
    context = {"MessageName": "Update", "OperationCreatedOn": f"/Date({at}+0000)/", "OperationId": "1", **changed}
    return json.dumps(context).encode()


def erp(body: bytes, seen: Seen | None = None, **how: Any) -> Verdict:
    return judge_erp(body, SECRET, seen or Seen(), START, **how)


def crm(body: bytes, seen: Seen | None = None, **how: Any) -> Verdict:
    return judge_crm(body, seen or Seen(), START, **how)


class TestJudgeErp:
    def test_looks_for_what_is_new(self):
        assert Verdict(is_known=True, look=True, results={Result.TAKEN: 1}) == erp(a_body(an_entry()))

    @pytest.mark.parametrize(
        ("entry", "sweep"),
        [
            ({"changeType": "deleted"}, True),
            ({"changeType": "created"}, False),
            ({"changeType": "collection", "resource": RESOURCE}, True),
            ({"changeType": "collection", "resource": f"{RESOURCE}?$filter=lastModifiedDateTime%20gt%20x"}, False),
            ({"changeType": "renamed in a later version"}, False),
        ],
    )
    def test_lists_the_ids_where_something_may_be_gone(self, entry: dict[str, Any], sweep: bool):
        """A collection without a filter stands for deletes as well."""
        verdict = erp(a_body(an_entry(), an_entry(**entry)))

        assert (True, sweep) == (verdict.look, verdict.sweep)

    def test_does_not_look_again_for_what_came_before(self):
        """A call whose answer was lost comes again to the letter; a change of the same record since then is new."""
        seen = Seen()
        erp(a_body(an_entry()), seen)

        assert Verdict(is_known=True, results={Result.REPEATED: 1}) == erp(a_body(an_entry()), seen)
        later = an_entry(lastModifiedDateTime="2026-03-02T09:59:00Z")
        assert erp(a_body(an_entry(), later), seen).look

    def test_does_not_look_for_what_polling_has_seen_long_since(self):
        old = (START - OLD_AFTER - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

        verdict = erp(a_body(an_entry(lastModifiedDateTime=old)))

        assert Verdict(is_known=True, results={Result.OLD: 1}) == verdict

    @pytest.mark.parametrize("time", [None, "soon", 7, "9999-99-99T00:00:00Z", "2099-01-01T00:00:00Z"])
    def test_looks_when_it_cannot_tell_how_old_something_is(self, time: object):
        assert erp(a_body(an_entry(lastModifiedDateTime=time))).look

    @pytest.mark.parametrize("secret", ["wrong", "", None, 7, "s3cret ", "\ud800"])
    def test_knows_nobody_without_the_secret(self, secret: object):
        assert Verdict(is_known=False, results={Result.REFUSED: 1}) == erp(a_body(an_entry(clientState=secret)))

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"{}", b"7", b'{"value": []}', b'{"value": [7]}', b'{"value": 7}', b"[" * 100_000, b"\xff"]
    )
    def test_knows_nobody_who_sends_no_notification(self, body: bytes):
        assert Verdict(is_known=False, results={Result.REFUSED: 1}) == erp(body)

    def test_welcomes_a_call_with_one_right_entry(self):
        """Somebody else's subscription may lead to our address: the ERP sends both in one call, and would drop both."""
        verdict = erp(a_body(an_entry(clientState="theirs"), an_entry()))

        assert Verdict(is_known=True, look=True, results={Result.REFUSED: 1, Result.TAKEN: 1}) == verdict

    @pytest.mark.parametrize(("secret", "is_known"), [(SECRET, True), ("wrong", False)])
    def test_reads_of_what_is_too_large_no_more_than_the_secret(self, secret: str, is_known: bool):
        cut = a_body(*[an_entry(clientState=secret)] * 9)[:1000]

        verdict = erp(cut, is_whole=False)

        assert (is_known, is_known) == (verdict.is_known, verdict.look)
        assert (is_known, is_known) == (erp(cut).is_known, erp(cut).look), "cut off on its way"


class TestSecretSearch:
    @pytest.mark.parametrize("size", [1, 7, 64, 1000])
    @pytest.mark.parametrize(("secret", "found"), [(SECRET, True), ("wrong", False)])
    def test_finds_the_secret_wherever_the_parts_end(self, size: int, secret: str, found: bool):
        body = b'{"value":[{"x":"' + b"y" * 5000 + b'"},' + json.dumps(an_entry(clientState=secret)).encode() + b"]}"
        search = SecretSearch(SECRET)

        for start in range(0, len(body), size):
            search.feed(body[start : start + size])

        assert found is search.found


class TestJudgeCrm:
    def test_looks_for_what_is_new_once(self):
        """The one retry of the CRM is about the same operation."""
        seen = Seen()

        assert Verdict(is_known=True, look=True, results={Result.TAKEN: 1}) == crm(a_context(), seen)
        assert Verdict(is_known=True, results={Result.REPEATED: 1}) == crm(a_context(), seen)
        assert crm(a_context(OperationId="2"), seen).look

    def test_does_not_look_for_what_polling_has_seen_long_since(self):
        at = int((START - OLD_AFTER).timestamp() * 1000) - 1

        assert Verdict(is_known=True, results={Result.OLD: 1}) == crm(a_context(OperationCreatedOn=f"/Date({at})/"))

    @pytest.mark.parametrize("body", [b"", b"cut off {", b"[]", b"\xff"])
    def test_looks_when_the_body_cannot_be_read(self, body: bytes):
        """The entity stands in a header, and that something changed is certain."""
        assert Verdict(is_known=True, look=True, results={Result.TOO_LARGE: 1}) == crm(body)

    @pytest.mark.parametrize("time", [None, "/Date(x)/", f"/Date({10**30})/", f"/Date(-{10**14})x/", 5])
    def test_looks_when_it_cannot_tell_how_old_something_is(self, time: object):
        assert crm(a_context(OperationCreatedOn=time)).look


class TestSeen:
    def test_forgets_the_oldest_first(self):
        seen = Seen(capacity=2)

        assert [False] * 3 == [seen.is_repeated(key) for key in "abc"]
        assert (True, False) == (seen.is_repeated("c"), seen.is_repeated("a"))

    def test_does_not_take_two_that_read_the_same_for_one(self):
        seen = Seen()

        assert (False, False) == (seen.is_repeated("a", "b"), seen.is_repeated("ab", ""))


class TestIsSecret:
    @pytest.mark.parametrize(("given", "right"), [(SECRET, True), ("S3cret", False), ("é\udcff", False), (None, False)])
    def test_is_equal_to_the_letter(self, given: object, right: bool):
        assert right is is_secret(given, SECRET)
