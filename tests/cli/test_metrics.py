"""The figures for Prometheus, and what reaches a log."""

from __future__ import annotations

import json
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import structlog
from prometheus_client.core import Metric

from drawbar import metrics
from drawbar.bus.apache import free_port
from drawbar.health import Sight, Verdict
from drawbar.histogram import Histogram
from drawbar.log import set_up_log, without_secrets
from drawbar.metrics import METRICS, Captured, Look, health_metric, installation_metrics, stage_metrics
from drawbar.settings import LogSettings, Settings
from drawbar.status import STAGES, LetterCounts, Traffic
from schemas.errors import BusUnavailable, SettingsError
from tests.cli.test_status import NOW, a_beat, a_picture, ago

ALL_WELL = Look(sight=Sight(beats=a_picture().beats))


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

    def test_tell_how_much_each_system_was_asked(self):
        """A sink says it of its own system, capture of both."""
        sink = a_beat("sink-crm", requests=5, throttled=2, allowance_used=0.25)
        lanes = {"erp": {"requests": 7, "throttled": 0, "allowance_used": 0.5}, "crm": {"requests": 3}}

        told = figures(stage_metrics(sink, now=NOW))
        assert {"sink-crm,crm": 5} == told["drawbar_requests_total"]
        assert {"sink-crm,crm": 2} == told["drawbar_throttled_total"]
        assert {"sink-crm,crm": 0.25} == told["drawbar_allowance_used_ratio"]
        told = figures(stage_metrics(a_beat("capture", systems=lanes), now=NOW))
        assert {"capture,erp": 7, "capture,crm": 3} == told["drawbar_requests_total"]

    def test_tell_how_long_a_change_takes(self):
        """Per direction; a bucket holds all that was no slower."""
        spread = Histogram()
        for seconds in (0.1, 1.0, 1.5, 7200.0):
            spread.add(seconds)

        told = figures(stage_metrics(a_beat("sink-erp", change_to_visible_s=spread.to_json()), now=NOW))
        buckets = told["drawbar_change_to_visible_seconds_bucket"]
        assert (1, 2, 3, 4) == tuple(buckets[f"to_erp,{bound}"] for bound in ("0.25", "1.0", "2.0", "+Inf"))
        assert {"to_erp": 4} == told["drawbar_change_to_visible_seconds_count"]
        assert {"to_erp": 7202.6} == told["drawbar_change_to_visible_seconds_sum"]

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

        told = figures(installation_metrics(a_picture(a_beat("process", brakes=[brake])), now=NOW))
        assert {"customer-account,to_crm,DRW-8001": 1} == told["drawbar_brake_on"]

    def test_tell_lag_letters_and_quiet(self):
        picture = a_picture(
            traffic=Traffic(lag={"pairs.work": 3, "crm.commands": 1}),
            letters=LetterCounts(open=2, by_code={"DRW-3001": 2}, oldest={"DRW-3001": ago(90)}),
        )

        told = figures(installation_metrics(picture, now=NOW))
        assert {"process,pairs.work": 3, "sink-crm,crm.commands": 1} == told["drawbar_lag_messages"]
        assert {"DRW-3001,owner-not-coupled": 2} == told["drawbar_dead_letters_open"]
        assert {"DRW-3001,owner-not-coupled": 90} == told["drawbar_dead_letter_oldest_age_seconds"]
        assert {"": 0.0} == told["drawbar_quiet"]
        assert dict.fromkeys(STAGES, 1) == told["drawbar_processes"]


class TestMetrics:
    def test_are_all_listed_and_all_served(self):
        """The list is what documents and dashboards are made from."""
        families = [family for stage in STAGES for family in stage_metrics(a_beat(stage), now=NOW)]
        families += [*installation_metrics(a_picture(), now=NOW), health_metric(Verdict((), {}), STAGES)]
        served = {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}

        assert {*served, "drawbar_bus_reachable"} == set(METRICS)
        assert {} == {
            name: family.type
            for name, family in served.items()
            if (family.type, METRICS[name].kind) != 2 * (family.type,)
        }

    def test_are_served_though_the_bus_is_away(self):
        """A scrape never fails for it: it says so."""

        def away() -> Look:
            raise BusUnavailable("no broker")

        assert "drawbar_bus_reachable 0.0" in got(serving(away), "/metrics")[1]

    def test_are_read_by_new_clients_after_a_fault(self):
        """A client that asked a frozen broker may never hear of it again; so it is closed, and another one is made."""
        made: list[Reader] = []

        class Reader:
            closed = False

            def __init__(self) -> None:
                made.append(self)

            def close(self) -> None:
                self.closed = True

        answers = iter((None, BusUnavailable("frozen"), None))
        reader = metrics._Lazy(Reader)

        def look() -> Look:
            reader.get()
            fault = next(answers)
            if fault is not None:
                raise fault
            return ALL_WELL

        looked = metrics._anew_after_faults(look, reader)
        looked()
        with pytest.raises(BusUnavailable):
            looked()
        looked()

        assert [True, False] == [one.closed for one in made]

    def test_say_when_their_port_is_taken(self):
        settings = settings_of(free_port())
        metrics._serve(settings, lambda: ALL_WELL, stages=STAGES)

        with pytest.raises(SettingsError, match=str(settings.log.metrics_port)):
            metrics._serve(settings, lambda: ALL_WELL, stages=STAGES)


class TestCaptured:
    def test_is_read_anew_when_a_stage_works_by_other_files(self):
        """After `mappings apply` what a new mapping needs must be captured too; nothing is read while nothing changes."""
        in_force = iter((["erp.customer"], ["erp.customer", "erp.currency"]))
        captured = Captured(lambda: next(in_force))
        before, after = a_beat("capture", mappings="v1"), a_beat("capture", mappings="v2")

        assert [["erp.customer"]] * 2 == [captured.names([before]) for _ in range(2)]
        assert [["erp.customer", "erp.currency"]] * 2 == [captured.names([after]) for _ in range(2)]


class TestHealthEndpoint:
    def test_says_200_while_all_is_well(self):
        status, body = got(serving(lambda: ALL_WELL), "/health")

        assert (200, "ok") == (status, json.loads(body)["status"])
        assert {stage: [] for stage in STAGES} == json.loads(body)["stages"]

    def test_says_503_and_what_is_wrong_since_when(self):
        """Whoever watches containers needs the status, whoever mends them the rest."""
        beats = [beat for beat in ALL_WELL.sight.beats if beat.stage != "capture"]
        looks = {"crm.account": {"state": "stopped", "reason": "DRW-6001"}}
        stopped = Look(sight=Sight(beats=[*beats, a_beat("capture", entities=looks)], entities=()))

        status, body = got(serving(lambda: stopped), "/health")
        (trouble,) = json.loads(body)["stages"]["capture"]
        assert (503, "red") == (status, json.loads(body)["status"])
        assert "crm.account: not captured until somebody acts, DRW-6001" == trouble["what"]
        assert {"what", "since", "for_s"} == set(trouble)
        assert 'drawbar_healthy{stage="capture"} 0.0' in got(serving(lambda: stopped), "/metrics")[1]


def settings_of(port: int) -> Settings:
    return Settings(log=LogSettings(metrics_port=port))


def serving(look: Callable[[], Look]) -> int:
    """The port of a server in a thread of this process."""
    port = free_port()
    metrics._serve(settings_of(port), look, stages=STAGES)
    return port


def got(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


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
