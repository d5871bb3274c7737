"""The figures for Prometheus, and what reaches a log."""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client.core import Metric

from drawbar import metrics
from drawbar.bus.apache import free_port
from drawbar.log import set_up_log, without_secrets
from drawbar.metrics import METRICS, installation_metrics, stage_metrics
from drawbar.settings import LogSettings
from drawbar.status import STAGES, LetterCounts, Traffic
from schemas.errors import BusUnavailable, SettingsError
from tests.cli.test_status import NOW, a_beat, a_picture


def figures(found: Iterator[Metric]) -> dict[str, dict[str, float]]:
    """Sample -> label values -> figure."""
    told: dict[str, dict[str, float]] = {}
    for metric in found:
        for sample in metric.samples:
            told.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return told


class TestStageMetrics:
    def test_tell_what_decide_does(self):
        beat = a_beat("process", messages=70, waiting=19, in_flight=2, releases_due=3)

        told = figures(stage_metrics(beat, now=NOW))
        assert {"process": 70} == told["drawbar_messages_total"]
        assert {"process": 19} == told["drawbar_waiting_records"]
        assert {"process": 1.0} == told["drawbar_running"]
        assert {"process": 1.0} == told["drawbar_heartbeat_age_seconds"]

    def test_tell_what_a_sink_does(self):
        beat = a_beat("sink-crm", state="paused", paused_reason="throttled", counts={"written": 4}, requests=5)

        told = figures(stage_metrics(beat, now=NOW))
        assert {"sink-crm,written": 4} == told["drawbar_outcomes_total"]
        assert {"sink-crm": 1.0} == told["drawbar_paused"]
        assert {"sink-crm": 0.0} == told["drawbar_running"]

    def test_tell_of_each_entity(self):
        looks = {"crm.account": {"state": "stopped", "known": 8, "events": 9, "requests": 3}}

        told = figures(stage_metrics(a_beat("capture", entities=looks), now=NOW))
        assert {"crm.account": 8} == told["drawbar_capture_records"]
        assert {"crm.account": 9} == told["drawbar_capture_events_total"]
        assert {"crm.account": 1.0} == told["drawbar_capture_stopped"]

    def test_tell_what_became_of_notifications(self):
        beat = a_beat("capture", webhooks={"listening": True, "erp.taken": 3, "crm.refused": 1})

        assert {"erp,taken": 3, "crm,refused": 1} == figures(stage_metrics(beat, now=NOW))["drawbar_webhooks_total"]


class TestInstallationMetrics:
    def test_tell_which_brakes_are_on(self):
        brake = {"mapping": "customer-account", "direction": "to_crm", "code": "DRW-8001"}

        told = figures(installation_metrics(a_picture(a_beat("process", brakes=[brake]))))
        assert {"customer-account,to_crm,DRW-8001": 1} == told["drawbar_brake_on"]

    def test_tell_lag_letters_and_quiet(self):
        picture = a_picture(
            traffic=Traffic(lag={"pairs.work": 3}), letters=LetterCounts(open=2, by_code={"DRW-3001": 2})
        )

        told = figures(installation_metrics(picture))
        assert {"pairs.work": 3} == told["drawbar_lag_messages"]
        assert {"DRW-3001": 2} == told["drawbar_dead_letters_open"]
        assert {"": 0.0} == told["drawbar_quiet"]
        assert dict.fromkeys(STAGES, 1) == told["drawbar_processes"]


class TestMetrics:
    def test_are_all_listed_and_all_served(self):
        """The list is what documents and dashboards are made from."""
        families = [family for stage in STAGES for family in stage_metrics(a_beat(stage), now=NOW)]
        families += list(installation_metrics(a_picture()))
        served = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}

        assert served | {"drawbar_bus_reachable"} == set(METRICS)

    def test_are_served_though_the_bus_is_away(self):
        """A scrape never fails for it: it says so."""

        def away() -> Iterator[Metric]:
            raise BusUnavailable("no broker")

        port = free_port()
        metrics._serve(port, away)

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            assert "drawbar_bus_reachable 0.0" in reply.read().decode()

    def test_say_when_their_port_is_taken(self):
        port = free_port()
        metrics._serve(port, lambda: iter(()))

        with pytest.raises(SettingsError, match=str(port)):
            metrics._serve(port, lambda: iter(()))


@pytest.fixture
def own_log() -> Iterator[None]:
    """What a test sets up for its process does not stay."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.mark.usefixtures("own_log")
class TestSetUpLog:
    def test_writes_one_json_object_a_line(self, capsys: pytest.CaptureFixture[str]):
        """To standard error, with the stage on each; libraries take the same way."""
        set_up_log(LogSettings(format="json"), stage="process")
        structlog.get_logger("a").info("process.started", pid=1)
        logging.getLogger("library").warning("something %s", "odd")

        said = capsys.readouterr()
        lines = [json.loads(line) for line in said.err.splitlines()]
        assert "" == said.out
        assert ["process.started", "something odd"] == [line["event"] for line in lines]
        assert ["process", "process"] == [line["stage"] for line in lines]

    def test_leaves_out_what_is_below_the_level(self, capsys: pytest.CaptureFixture[str]):
        set_up_log(LogSettings(format="json", level="warning"))
        structlog.get_logger("b").info("process.started")

        assert "" == capsys.readouterr().err


class TestWithoutSecrets:
    def test_strikes_out_what_is_named_like_one(self):
        """Nobody passes one; should anybody ever, it does not get far."""
        event = {"event": "x.y", "client_secret": "s", "Authorization": "Bearer t", "pair_key": "k"}

        assert {"event": "x.y", "client_secret": "***", "Authorization": "***", "pair_key": "k"} == without_secrets(
            None, "", event
        )


class TestMetricNames:
    def test_follow_the_rules_of_prometheus(self):
        """A base unit ends the name; what only grows ends in `_total`."""
        assert [] == [name for name in METRICS if not re.fullmatch(r"drawbar_[a-z]+(_[a-z]+)*", name)]
        assert sorted(METRICS) == list(METRICS)
