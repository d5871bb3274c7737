"""`drawbar setup webhooks`: against a sandbox, as an administrator types it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from drawbar.cli.setup import app
from tests.cli.rows_fake import Result, run
from tests.producers.sandboxes import Hands, sandbox
from tests.sandbox.conftest import Receiver


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as hands:
        yield hands


@pytest.fixture
def hub() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def system(hands: Hands, hub: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection file and the settings of the webhooks, in the environment."""
    path = tmp_path / "connection.json"
    path.write_text(json.dumps({**hands.info, "bootstrap_servers": "127.0.0.1:9"}, default=str), encoding="utf-8")
    monkeypatch.setenv("DRAWBAR_CONNECTION_FILE", str(path))
    monkeypatch.setenv("DRAWBAR_CAPTURE__WEBHOOK_PUBLIC_URL", hub.url)
    monkeypatch.setenv("DRAWBAR_CAPTURE__WEBHOOK_SECRET", "a secret for both")
    yield
    setup("--remove")


def setup(*options: str) -> Result:
    return run(app, "webhooks", *options)


def states(result: Result) -> Sequence[str]:
    return [json.loads(line)["state"] for line in result.out.splitlines()]


class TestSetupWebhooks:
    def test_makes_what_is_missing_and_nothing_the_second_time(self):
        assert (1, {"missing"}) == ((first := setup("--check", "--json")).exit_code, set(states(first)))

        assert (0, {"made"}) == ((made := setup("--json")).exit_code, set(states(made)))
        assert (0, {"as it should be"}) == ((again := setup("--json")).exit_code, set(states(again)))
        assert (0, {"as it should be"}) == ((looked := setup("--check", "--json")).exit_code, set(states(looked)))

    def test_takes_away_what_leads_to_the_address(self):
        made = setup("--json")

        assert (0, ["removed"] * len(states(made))) == ((gone := setup("--remove", "--json")).exit_code, states(gone))
        assert (0, "nothing is registered for this address\n") == ((again := setup("--remove")).exit_code, again.out)

    def test_watches_the_columns_of_the_mappings(self, hands: Hands):
        """An update of any other column is no news."""
        setup("--system", "crm")

        steps = hands.control("GET", "truth/crm/sdkmessageprocessingsteps")
        columns = {step["name"]: (step["filteringattributes"] or "").split(",") for step in steps}
        assert {"name", "telephone1", "ownerid"} <= set(columns["drawbar: Update of account"])
        assert [""] == columns["drawbar: Create of account"]

    def test_is_about_one_system_when_asked(self):
        assert {"erp"} == {json.loads(line)["system"] for line in setup("--system", "erp", "--json").out.splitlines()}

    def test_names_the_right_that_is_missing(self, hands: Hands):
        """What the other system has is registered all the same."""
        rule = {"system": "crm", "app": hands.info["crm"]["client_id"], "entity": "serviceendpoint"}
        hands.control("POST", "grants", {**rule, "operation": "create", "allowed": False})
        result = setup("--json")
        hands.control("POST", "grants", {**rule, "operation": "create", "allowed": True})

        assert 3 == result.exit_code
        assert "DRW-2003" in result.err
        assert "prvCreateServiceEndpoint" in result.err
        assert "made" in states(result)

    def test_says_that_the_erp_does_not_reach_the_address(self):
        result = setup("--system", "erp", "--url", "http://127.0.0.1:9")

        assert (3, True) == (result.exit_code, "DRW-2005" in result.err)

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (("--check", "--remove"), "DRW-1004"),
            (("--system", "both"), "DRW-1004"),
            (("--url", "hub.example.com"), "DRW-1001"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, options: Sequence[str], code: str):
        result = setup(*options)

        assert (2, True) == (result.exit_code, result.err.startswith(code))

    def test_prints_the_secret_nowhere(self, monkeypatch: pytest.MonkeyPatch):
        shown = setup()
        monkeypatch.delenv("DRAWBAR_CAPTURE__WEBHOOK_SECRET")
        refused = setup()

        assert "a secret" not in shown.out + shown.err
        assert (2, True) == (refused.exit_code, refused.err.startswith("DRW-1001"))
