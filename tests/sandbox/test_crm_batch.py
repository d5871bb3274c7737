"""Dataverse's `$batch`: multipart in, multipart out, fact by fact."""

from __future__ import annotations

import email
import json
import uuid
from email.message import Message

import pytest

from tests.sandbox.client import Client, error_code

PATH = "/api/data/v9.2"


def operation(
    method: str, path: str, body: dict | None = None, *, content_id: str | None = None, **headers: str
) -> str:
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    lines += [f"Content-ID: {content_id}"] if content_id else []
    lines += ["", f"{method} {path} HTTP/1.1", "Content-Type: application/json; type=entry"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", "" if body is None else json.dumps(body)])


def joined(boundary: str, parts: list[str]) -> str:
    return "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"


def change_set(*parts: str) -> str:
    return 'Content-Type: multipart/mixed; boundary="changeset_1"\r\n\r\n' + joined("changeset_1", list(parts))


def send(crm: Client, *parts: str, prefer: str | None = None):
    headers = {"Content-Type": 'multipart/mixed; boundary="batch_7f3c"'}
    body = joined("batch_7f3c", list(parts)).encode()
    return crm.send("POST", "$batch", data=body, headers=headers, prefer=prefer)


def replies(reply) -> list[list[tuple[int, dict[str, str], str]]]:
    """Each part as the replies in it: status, headers, body."""
    whole = email.message_from_bytes(f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode() + reply.content)
    found = []
    for part in whole.get_payload():
        inner = part.get_payload() if part.is_multipart() else [part]
        found.append([_http(one) for one in inner])
    return found


def _http(part: Message) -> tuple[int, dict[str, str], str]:
    head, _, body = part.get_payload().replace("\r\n", "\n").partition("\n\n")
    line, *headers = head.split("\n")
    return int(line.split()[1]), dict(header.split(": ", 1) for header in headers), body.strip()


@pytest.fixture
def name() -> str:
    return f"Batch-{uuid.uuid4()}"


def named(crm: Client, name: str) -> list[dict]:
    return crm.rows(f"accounts?$filter=name eq '{name}'")


class TestOperations:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api"""

    def test_are_answered_one_by_one_in_order(self, crm: Client, name):
        reply = send(
            crm,
            operation("POST", f"{PATH}/accounts", {"name": name}),
            operation("GET", f"{crm.base}/accounts?$select=name&$filter=name%20eq%20'{name}'"),
        )

        (made,), (read,) = replies(reply)
        assert (200, 204, 200) == (reply.status_code, made[0], read[0])
        assert made[1]["OData-EntityId"] == made[1]["Location"]
        assert [name] == [row["name"] for row in json.loads(read[2])["value"]]

    def test_have_headers_of_their_own(self, crm: Client, name):
        (made,) = replies(
            send(crm, operation("POST", f"{PATH}/accounts", {"name": name}, Prefer="return=representation"))
        )[0]

        assert (201, name) == (made[0], json.loads(made[2])["name"])

    def test_may_end_with_their_headers(self, crm: Client):
        """As Microsoft's own client sends those without a body: one blank line, not two."""
        part = f"GET {PATH}/WhoAmI HTTP/1.1\r\nAccept: application/json\r\n"
        text = f"Content-Type: application/http\r\n\r\n{part}"

        assert [[200]] == [[status for status, _, _ in replied] for replied in replies(send(crm, text))]

    def test_stop_at_the_first_error_which_gives_the_status(self, crm: Client, name):
        missing = operation("GET", f"{PATH}/accounts({uuid.uuid4()})")
        made = operation("POST", f"{PATH}/accounts", {"name": name})

        reply = send(crm, made, missing, made)

        assert (404, [204, 404]) == (reply.status_code, [part[0][0] for part in replies(reply)])
        assert 1 == len(named(crm, name))

    def test_go_on_when_asked(self, crm: Client, name):
        missing = operation("GET", f"{PATH}/accounts({uuid.uuid4()})")
        made = operation("POST", f"{PATH}/accounts", {"name": name})

        reply = send(crm, made, missing, made, prefer="odata.continue-on-error")

        assert (200, [204, 404, 204]) == (reply.status_code, [part[0][0] for part in replies(reply)])
        assert "0x80040217" == json.loads(replies(reply)[1][0][2])["error"]["code"]


class TestChangeSet:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api"""

    def test_may_refer_to_what_it_made(self, crm: Client, name):
        reply = send(
            crm,
            change_set(
                operation("POST", f"{PATH}/accounts", {"name": name}, content_id="1"),
                operation(
                    "POST",
                    f"{PATH}/contacts",
                    {"lastname": name, "parentcustomerid_account@odata.bind": "$1"},
                    content_id="2",
                ),
                operation("PATCH", "$1", {"telephone1": "7"}, content_id="3"),
                operation("PUT", "$1/primarycontactid/$ref", {"@odata.id": "$2"}, content_id="4"),
            ),
        )

        assert (200, [[204, 204, 204, 204]]) == (
            reply.status_code,
            [[status for status, _, _ in part] for part in replies(reply)],
        )
        account = named(crm, name)[0]
        contact = crm.rows(f"contacts?$filter=_parentcustomerid_value eq {account['accountid']}")[0]
        assert ("7", contact["contactid"]) == (account["telephone1"], account["_primarycontactid_value"])

    def test_may_bind_several_of_what_it_made_to_a_new_row(self, crm: Client, name):
        """webapi/execute-batch-operations-using-web-api: Reference URIs; create-entity-web-api: associate on create"""
        body = {"name": name, "contact_customer_accounts@odata.bind": ["$1", "$2"]}
        send(
            crm,
            change_set(
                *(
                    operation("POST", f"{PATH}/contacts", {"lastname": name}, content_id=number)
                    for number in ("1", "2")
                ),
                operation("POST", f"{PATH}/accounts", body, content_id="3"),
            ),
        )

        assert 2 == len(crm.rows(f"contacts?$filter=_parentcustomerid_value eq {named(crm, name)[0]['accountid']}"))

    def test_is_taken_back_as_a_whole_and_answers_with_one_error(self, crm: Client, name):
        made = operation("POST", f"{PATH}/accounts", {"name": name}, content_id="1")
        wrong = operation("POST", f"{PATH}/accounts", {"nosuch": 1}, content_id="2")

        reply = send(crm, change_set(made, wrong))

        ((only,),) = replies(reply)
        assert (400, 400, "0x80048d19") == (reply.status_code, only[0], json.loads(only[2])["error"]["code"])
        assert [] == named(crm, name)

    def test_fails_alone(self, crm: Client, name):
        made = operation("POST", f"{PATH}/accounts", {"name": name})
        wrong = change_set(operation("POST", f"{PATH}/accounts", {"nosuch": 1}, content_id="2"))

        reply = send(crm, made, wrong, made, prefer="odata.continue-on-error")

        assert [204, 400, 204] == [part[0][0] for part in replies(reply)]
        assert 2 == len(named(crm, name))

    def test_that_failed_has_declared_nothing(self, crm: Client, name):
        made = operation("POST", f"{PATH}/accounts", {"name": name}, content_id="1")
        wrong = operation("POST", f"{PATH}/accounts", {"nosuch": 1}, content_id="2")

        reply = send(crm, change_set(made, wrong), operation("GET", "$1"), prefer="odata.continue-on-error")

        assert [(400, "0x80048d19"), (400, "0x80060888")] == [
            (part[0][0], json.loads(part[0][2])["error"]["code"]) for part in replies(reply)
        ]

    def test_knows_only_what_was_declared(self, crm: Client):
        wrong = operation("PATCH", "$9", {"telephone1": "7"}, content_id="1")

        ((only,),) = replies(send(crm, change_set(wrong)))

        assert "Content-ID Reference: '$9' does not exist in the batch context." in only[2]

    @pytest.mark.parametrize(
        "parts",
        [
            [operation("GET", f"{PATH}/accounts", content_id="1")],
            [operation("POST", f"{PATH}/accounts", {"name": "N"})],
            [operation("POST", f"{PATH}/accounts", {"name": "N"}, content_id="1")] * 2,
        ],
        ids=["a read", "no id", "an id twice"],
    )
    def test_takes_only_writes_each_with_an_id_of_its_own(self, crm: Client, parts):
        assert (400, "0x80060888") == error_code(send(crm, change_set(*parts)))


class TestRefusedAsAWhole:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api"""

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/json", b"{}"),
            ("multipart/mixed", b""),
            ("multipart/mixed; boundary=b", b""),
            ("multipart/mixed; boundary=b", b"--other\r\n\r\n--other--\r\n"),
            ("multipart/mixed; boundary=b", b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n"),
            ("multipart/mixed; boundary=b", b"--b\nContent-Type: application/http\n\nGET /x HTTP/1.1\n\n--b--\n"),
            ("multipart/mixed; boundary=b", b"--b\r\nContent-Type: application/http\r\n\r\nHELLO\r\n\r\n--b--\r\n"),
            (
                "multipart/mixed; boundary=b",
                b"--b\r\nContent-Type: application/http\r\n\r\nPOST /api/data/v9.2/$batch HTTP/1.1\r\n\r\n--b--\r\n",
            ),
        ],
        ids=["json", "no boundary", "empty", "other boundary", "no request", "bare LF", "no request line", "nested"],
    )
    def test_is_answered_in_plain_json(self, crm: Client, content_type, body):
        reply = crm.send("POST", "$batch", data=body, headers={"Content-Type": content_type})

        assert (400, "0x80060888") == error_code(reply)

    def test_has_at_most_a_thousand_operations(self, crm: Client):
        read = operation("GET", f"{PATH}/WhoAmI")

        assert 200 == send(crm, *[read] * 1000).status_code
        assert (400, "0x80060888") == error_code(send(crm, *[read] * 1001))
