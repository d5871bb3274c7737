"""The codes are a promise: runbooks, alerts and dead letters of years ago name them."""

from __future__ import annotations

import re

import pytest

import schemas.errors
from schemas.errors import DrawbarError, RecordError, Throttled, all_errors, by_code

# code: class, slug. A code never changes its meaning and is never used again; new ones are added.
STABLE = {
    "DRW-0000": ("DrawbarError", "error"),
    "DRW-1000": ("ConfigError", "config"),
    "DRW-1001": ("SettingsError", "settings"),
    "DRW-1002": ("MappingFileError", "mapping-file"),
    "DRW-1003": ("MappingExampleFailed", "mapping-example"),
    "DRW-1004": ("UsageError", "usage"),
    "DRW-1005": ("MappingMismatch", "mapping-mismatch"),
    "DRW-1006": ("MappingIdle", "mapping-idle"),
    "DRW-2000": ("AccessError", "access"),
    "DRW-2001": ("SignInFailed", "sign-in-failed"),
    "DRW-2002": ("TokenRefused", "token-refused"),
    "DRW-2003": ("PrivilegeMissing", "privilege-missing"),
    "DRW-2004": ("Unreachable", "unreachable"),
    "DRW-2005": ("WebhookRefused", "webhook-refused"),
    "DRW-3000": ("RecordError", "record"),
    "DRW-3001": ("OwnerNotCoupled", "owner-not-coupled"),
    "DRW-3002": ("ReferenceNotCoupled", "reference-not-coupled"),
    "DRW-3003": ("OptionNotCoupled", "option-not-coupled"),
    "DRW-3004": ("UpdateConflict", "update-conflict"),
    "DRW-3005": ("CounterpartDeleted", "counterpart-deleted"),
    "DRW-3006": ("AlreadyCoupled", "already-coupled"),
    "DRW-3007": ("AmbiguousMatch", "ambiguous-match"),
    "DRW-3008": ("RequiredFieldBlank", "required-field-blank"),
    "DRW-3009": ("ValueNotMappable", "value-not-mappable"),
    "DRW-3010": ("Undecodable", "undecodable"),
    "DRW-3011": ("MappingUnknown", "mapping-unknown"),
    "DRW-4000": ("SinkError", "sink"),
    "DRW-4001": ("Rejected", "rejected"),
    "DRW-4002": ("Throttled", "throttled"),
    "DRW-4003": ("Unavailable", "unavailable"),
    "DRW-4004": ("WriteForbidden", "write-forbidden"),
    "DRW-4005": ("KeyTaken", "key-taken"),
    "DRW-5000": ("BusError", "bus"),
    "DRW-5001": ("BusUnavailable", "bus-unavailable"),
    "DRW-5002": ("BusStartFailed", "bus-start-failed"),
    "DRW-5003": ("TopicMismatch", "topic-mismatch"),
    "DRW-5004": ("JarMismatch", "jar-mismatch"),
    "DRW-5005": ("BusUntrusted", "bus-untrusted"),
    "DRW-5006": ("BusSignInRefused", "bus-sign-in-refused"),
    "DRW-5008": ("RegistryUnavailable", "registry-unavailable"),
    "DRW-5009": ("SchemaNotRegistered", "schema-not-registered"),
    "DRW-5010": ("SchemaIncompatible", "schema-incompatible"),
    "DRW-5007": ("BusRightMissing", "bus-right-missing"),
    "DRW-6000": ("CaptureError", "capture"),
    "DRW-6001": ("MassDelete", "mass-delete"),
    "DRW-6002": ("PositionExpired", "position-expired"),
    "DRW-6003": ("SourceBroken", "source-broken"),
    "DRW-7001": ("DemoFailed", "demo-failed"),
    "DRW-8000": ("BrakeError", "brake"),
    "DRW-8001": ("MassUpdate", "mass-update"),
    "DRW-8002": ("BrakeNotConfirmed", "brake-not-confirmed"),
    "DRW-9001": ("MappingsNotTaken", "mappings-not-taken"),
}
OURS = tuple(error for error in all_errors() if error.__module__ == "schemas.errors")
TREE_LINE = re.compile(r"[├└]── (\w+) +(?:DRW-)?(\d)(xxx|\d{3})\b(.*)")


def drawn() -> dict[str, str]:
    """Code -> class, as the tree in the docstring draws them; a branch is drawn as 1xxx and has the code 1000."""
    found = {}
    for line in str(schemas.errors.__doc__).splitlines():
        hit = TREE_LINE.search(line)
        if hit:
            found[f"DRW-{hit[2]}{hit[3].replace('xxx', '000')}"] = hit[1]
    return found


class TestTree:
    def test_codes_and_slugs_are_stable(self):
        assert STABLE == {error.code: (error.__name__, error.slug) for error in OURS}

    def test_every_class_has_a_code_and_a_slug_of_its_own(self):
        assert len(OURS) == len({error.code for error in OURS}) == len({error.slug for error in OURS})
        assert [] == [error.__name__ for error in OURS if "code" not in vars(error) or "slug" not in vars(error)]

    def test_the_docstring_draws_the_classes(self):
        assert {code: name for code, (name, _) in STABLE.items() if code != "DRW-0000"} == drawn()

    def test_the_docstring_says_what_is_retriable(self):
        retriable = {error.code for error in OURS if error.retriable}
        said = {
            f"DRW-{hit[2]}{hit[3]}"
            for hit in map(TREE_LINE.search, str(schemas.errors.__doc__).splitlines())
            if hit and "retriable" in hit[4]
        }

        assert retriable == said

    @pytest.mark.parametrize("error", OURS)
    def test_branches_share_the_first_digit(self, error: type[DrawbarError]):
        parent = error.__mro__[1]
        if parent is not DrawbarError and issubclass(parent, DrawbarError):
            assert parent.code[:5] == error.code[:5]

    @pytest.mark.parametrize("error", [error for error in OURS if error.__mro__[1] is RecordError])
    def test_every_fault_of_a_record_says_what_to_do(self, error: type[DrawbarError]):
        """A dead letter names its next step."""
        assert error.next_step

    def test_exit_codes_are_those_of_the_command_line(self):
        """1 failed, 2 settings or mapping wrong, 3 not reachable."""
        assert {1, 2, 3} == {error.exit_code for error in OURS}
        assert {"DRW-1", "DRW-2", "DRW-5"} == {error.code[:5] for error in OURS if error.exit_code != 1}


class TestByCode:
    @pytest.mark.parametrize("error", OURS)
    def test_finds_every_class(self, error: type[DrawbarError]):
        assert error is by_code(error.code)

    def test_raises_for_an_unknown_code(self):
        with pytest.raises(KeyError):
            by_code("DRW-9999")


class TestForPeople:
    def test_says_code_what_where_and_what_to_do(self):
        error = schemas.errors.MappingFileError(
            "unknown key 'feilds'", where="m.yaml:3", next_step="did you mean fields?"
        )

        assert "DRW-1002 unknown key 'feilds'\n  where: m.yaml:3\n  do:    did you mean fields?" == error.for_people()

    def test_falls_back_on_the_next_step_of_the_class(self):
        assert "docs/mappings.md" in schemas.errors.MappingFileError("broken").for_people()

    def test_throttled_carries_how_long(self):
        assert (30, True) == (Throttled(30).retry_after_s, Throttled(30).retriable)
