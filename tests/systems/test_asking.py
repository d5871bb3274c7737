"""What a refusal of one of the systems means to the person who asked."""

from __future__ import annotations

from typing import Any

import pytest

from drawbar.asking import Asker
from drawbar.ports import NoReply, Reply
from schemas.errors import (
    PrivilegeMissing,
    SettingsError,
    SourceBroken,
    TokenRefused,
    Unreachable,
    WebhookRefused,
)
from schemas.records import System


class Service:
    """Gives the replies it was made with, one after the other."""

    skew_s = 0.0

    def __init__(self, *replies: Reply | NoReply) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    def call(self, method: str, path: str, **_options: Any) -> Reply:
        self.asked.append(f"{method} {path}")
        reply = self.replies.pop(0)
        if isinstance(reply, NoReply):
            raise reply
        return reply


def asker(*replies: Reply | NoReply, **given: Any) -> Asker:
    return Asker(http=Service(*replies), system=System.CRM, **given)  # type: ignore[arg-type]


class TestRefusal:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, TokenRefused),
            (403, PrivilegeMissing),
            (404, SettingsError),
            (400, SourceBroken),
            (429, Unreachable),
            (500, Unreachable),
            (503, Unreachable),
        ],
    )
    def test_is_a_coded_error(self, status: int, kind: type):
        assert kind is type(asker().refusal("POST x", Reply(status=status, body={"error": "odd"})))

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (401, "Authorization_RequestDenied", PrivilegeMissing),
            (401, "Authentication_InvalidCredentials", TokenRefused),
            (400, "Internal_CompanyNotFound", SettingsError),
        ],
    )
    def test_is_told_by_the_code_where_services_differ_in_the_status(self, status: int, code: str, kind: type):
        assert kind is type(asker().refusal("GET x", Reply(status=status, body={"error": {"code": code}})))

    def test_is_of_the_kind_that_the_asker_is_about(self):
        about_webhooks = asker(refused=WebhookRefused, when_forbidden="ask somebody")

        assert WebhookRefused is type(about_webhooks.refusal("POST x", Reply(status=400)))
        assert about_webhooks.refusal("POST x", Reply(status=403)).todo == "ask somebody"

    @pytest.mark.parametrize(
        ("message", "named"),
        [
            (
                "Principal user (Id=1, type=8) is missing prvCreateServiceEndpoint privilege on OTC=4618.",
                "missing prvCreateServiceEndpoint",
            ),
            (
                "Sorry, … (TableData 2000000095 API Webhook Subscription Insert: System Application)",
                "missing TableData 2000000095 API Webhook Subscription Insert",
            ),
            ("No.", "0x80040220"),
        ],
    )
    def test_names_the_right_that_is_missing(self, message: str, named: str):
        """And nothing else of the message: it may quote a record."""
        body = {"error": {"code": "0x80040220", "message": message}}

        assert asker().refusal("POST x", Reply(status=403, body=body)).message.endswith(named)


class TestAsk:
    def test_raises_what_is_neither_a_success_nor_expected(self):
        with pytest.raises(SourceBroken, match="POST accounts: status 400"):
            asker(Reply(status=400)).ask("POST", "accounts(1)?$select=name")

        assert 404 == asker(Reply(status=404)).ask("GET", "accounts", accept=(404,)).status

    def test_says_that_nobody_answers(self):
        with pytest.raises(Unreachable, match="the CRM does not answer"):
            asker(NoReply("connection refused", sent=False)).answer("GET", "accounts")


class TestRows:
    def test_are_those_of_all_pages(self):
        first = Reply(status=200, body={"value": [{"a": 1}], "@odata.nextLink": "accounts?skip=1"})
        service = Service(first, Reply(status=200, body={"value": [{"a": 2}]}))

        found = Asker(http=service, system=System.ERP).rows("accounts")  # type: ignore[arg-type]

        assert [{"a": 1}, {"a": 2}] == found
        assert ["GET accounts", "GET accounts?skip=1"] == service.asked

    def test_are_not_made_of_another_answer(self):
        with pytest.raises(SourceBroken, match="without a list"):
            asker(Reply(status=200, body={"value": 3})).rows("accounts")
