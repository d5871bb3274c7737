"""What stands in deploy/ is what an installation would use."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from drawbar.metrics import METRICS
from drawbar.settings import load_settings
from tests.repo.command_line import fault
from tests.repo.test_documents import settings_tables
from tests.repo.tree import ROOT, sections, table, text

DEPLOY = ROOT / "deploy"
STAGES = ("capture", "process", "sink-erp", "sink-crm", "metrics")


class Part(BaseModel):
    """Of a file that another program reads: an unknown key is one that it would refuse, or worse, overlook."""

    model_config = ConfigDict(extra="forbid", strict=True)


# --- compose: the parts that we use, as the Compose Specification has them ---------------------------------------------

Duration = Annotated[str, Field(pattern=r"^(\d+h)?(\d+m)?(\d+s)?$", min_length=2)]
Image = Annotated[str, Field(pattern=r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+$")]  # pinned to a release


class Build(Part):
    context: str
    dockerfile: str


class Healthcheck(Part):
    test: Optional[list[str]] = None
    interval: Optional[Duration] = None
    timeout: Optional[Duration] = None
    start_period: Optional[Duration] = None
    retries: Optional[int] = None
    disable: bool = False


class SecretOfService(Part):
    source: str
    target: str


class Condition(Part):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Service(Part):
    image: Image
    build: Optional[Build] = None
    command: Optional[list[str]] = None
    environment: dict[str, str] = {}
    volumes: list[str] = []
    secrets: list[SecretOfService] = []
    ports: list[str] = []
    read_only: bool = False
    tmpfs: list[str] = []
    cap_drop: list[str] = []
    security_opt: list[str] = []
    restart: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    stop_grace_period: Optional[Duration] = None
    healthcheck: Optional[Healthcheck] = None
    depends_on: Union[list[str], dict[str, Condition]] = {}


class SecretFile(Part):
    file: str


class Compose(Part):
    name: str
    services: dict[str, Service]
    secrets: dict[str, SecretFile]
    volumes: dict[str, Part]


def compose() -> Compose:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return Compose.model_validate({name: part for name, part in found.items() if not name.startswith("x-")})


class TestCompose:
    def test_is_one(self):
        """Every key is known, every image pinned to a release."""
        assert "drawbar" == compose().name

    def test_runs_every_stage_by_a_command_that_exists(self):
        services = compose().services
        ours = {name: service for name, service in services.items() if service.build is not None}

        assert {*STAGES, "topics"} == set(ours)
        assert {} == {
            name: wrong for name, service in ours.items() if (wrong := fault(shlex.join(service.command or [])))
        }

    def test_uses_only_what_it_declares(self):
        """Services, volumes, secrets and files that are named are there; a secret is for the installation to bring."""
        whole = compose()
        for service in whole.services.values():
            assert set(service.depends_on) <= set(whole.services)
            assert {secret.source for secret in service.secrets} <= set(whole.secrets)
            sources = [volume.split(":")[0] for volume in service.volumes]
            assert {source for source in sources if not source.startswith(".")} <= set(whole.volumes)
            assert [] == [source for source in sources if source.startswith(".") and not (DEPLOY / source).exists()]
            if service.build is not None:
                assert (DEPLOY / service.build.context / service.build.dockerfile).is_file()

    def test_uses_settings_that_exist(self):
        known = {line[0].strip("`") for rows in settings_tables().values() for line in rows}
        used = {name for service in compose().services.values() for name in service.environment}

        assert set() == {name for name in used if name.startswith("DRAWBAR_")} - known - {"DRAWBAR_SETTINGS_FILE"}

    def test_has_settings_that_can_be_loaded(self, monkeypatch: pytest.MonkeyPatch):
        """The environment of a stage over the example of the settings file: no TLS to the broker beside it."""
        stage = compose().services["process"]
        for name, value in stage.environment.items():
            monkeypatch.setenv(name, re.sub(r"\$\{\w+(:[-?][^}]*)?\}", "", value))
        monkeypatch.setenv("DRAWBAR_SETTINGS_FILE", str(DEPLOY / "drawbar.toml"))
        monkeypatch.delenv("DRAWBAR_CONNECTION_FILE", raising=False)
        settings = load_settings()

        assert "kafka:9092" == settings.bus.bootstrap_servers
        assert {} == settings.bus.extra
        assert {str(settings.erp.client_secret_file), str(settings.crm.client_secret_file)} == {
            secret.target for secret in stage.secrets
        }

    def test_opens_ports_on_this_machine_alone(self):
        """Neither figures nor dashboards are for the whole network; whoever wants that says so."""
        ports = [port for service in compose().services.values() for port in service.ports]

        assert [] == [port for port in ports if not port.startswith("127.0.0.1:")]

    def test_lets_a_stage_do_no_more_than_it_must(self):
        for name in STAGES:
            stage = compose().services[name]
            assert stage.read_only
            assert ["ALL"] == stage.cap_drop


# --- image ------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, lines that go on joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


class TestImage:
    def test_has_nothing_that_a_linter_finds(self):
        linter = Path(sys.executable).with_name("hadolint")
        done = subprocess.run([linter, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)

        assert (0, "") == (done.returncode, done.stdout)

    def test_is_built_apart_from_what_runs(self):
        """Two stages on one base, pinned by its tag; the tools of the first are not in the second."""
        bases = [base.split()[0] for base in arguments("FROM")]

        assert 2 == len(bases)
        assert 1 == len(set(bases))
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])

    def test_does_not_run_as_root(self):
        last = max(number for number, (word, _) in enumerate(instructions()) if word == "FROM")
        users = [rest for word, rest in instructions()[last:] if word == "USER"]

        assert ["10001:10001"] == users

    def test_copies_what_there_is_and_all_that_a_wheel_needs(self):
        copied = {name for rest in arguments("COPY") if "--from" not in rest for name in rest.split()[:-1]}
        needed = {"pyproject.toml", "README.md", "LICENSE", "mappings"}
        packages = {path.parent.name for path in ROOT.glob("*/py.typed")}

        assert [] == [name for name in copied if not (ROOT / name).exists()]
        assert needed | packages | {"requirements.lock"} == copied

    def test_is_given_what_it_copies(self):
        """What the ignore file leaves out cannot be copied."""
        lines = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        given = {line.removeprefix("!") for line in lines if line.startswith("!")}

        assert given == {name for rest in arguments("COPY") if "--from" not in rest for name in rest.split()[:-1]}

    def test_asks_its_own_health(self):
        """On the port that it serves, in a program that can be run."""
        (check,) = arguments("HEALTHCHECK")
        command = json.loads(check[check.index("[") :])
        compile(command[2], "healthcheck", "exec")
        port = re.search(r"DRAWBAR_LOG__METRICS_PORT=(\d+)", " ".join(arguments("ENV")))
        assert port is not None

        assert f"http://127.0.0.1:{port[1]}/health" in command[2]
        assert [port[1]] == arguments("EXPOSE")
        assert "drawbar" == json.loads(arguments("ENTRYPOINT")[0])[0]

    def test_sets_settings_that_exist(self):
        known = {line[0].strip("`") for rows in settings_tables().values() for line in rows}

        assert set() == set(re.findall(r"(DRAWBAR_\w+)=", " ".join(arguments("ENV")))) - known


# --- Prometheus and Grafana -------------------------------------------------------------------------------------------


class Labels(Part):
    severity: Literal["critical", "warning"]


class Annotations(Part):
    summary: str
    runbook: str


class Alarm(Part):
    alert: str = Field(pattern=r"^Drawbar[A-Z]\w+$")
    expr: str
    lasts: str = Field(alias="for", pattern=r"^\d+[smh]$")
    labels: Labels
    annotations: Annotations


class Group(Part):
    name: str
    rules: list[Alarm]


class Alarms(Part):
    groups: list[Group]


def loaded(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text("utf-8"))


def alarms() -> list[Alarm]:
    return [alarm for group in Alarms.model_validate(loaded("prometheus/alarms.yaml")).groups for alarm in group.rules]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana/dashboards/drawbar.json").read_text("utf-8"))


def panels() -> Iterator[dict[str, Any]]:
    for panel in dashboard()["panels"]:
        if panel["type"] != "row":
            yield panel


def expressions() -> dict[str, str]:
    """Where it stands -> PromQL."""
    found = {alarm.alert: alarm.expr for alarm in alarms()}
    return found | {
        f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]
    }


def series(name: str) -> str:
    """The metric that a series belongs to."""
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if METRICS.get(stem) is not None and METRICS[stem].kind == "histogram" else name


def labels_named(expression: str) -> set[str]:
    """By which labels an expression groups."""
    return {
        label.strip()
        for group in re.findall(r"by \(([^)]*)\)", expression)
        for label in group.split(",")
        if label.strip()
    }


class TestExpressions:
    @pytest.mark.parametrize("where", expressions())
    def test_ask_for_metrics_that_exist(self, where: str):
        """`up` is Prometheus' own."""
        named = {series(name) for name in re.findall(r"\bdrawbar_\w+", expressions()[where])}

        assert set() == named - set(METRICS)
        assert named or "up{" in expressions()[where]

    @pytest.mark.parametrize("where", expressions())
    def test_group_by_labels_that_the_metrics_have(self, where: str):
        """A label that is not there makes one series of all, and nobody notices."""
        expression = expressions()[where]
        has = {label for name in re.findall(r"\bdrawbar_\w+", expression) for label in METRICS[series(name)].labels}

        assert set() == labels_named(expression) - has - {"le"}

    @pytest.mark.parametrize("where", expressions())
    def test_take_rates_of_what_counts_up(self, where: str):
        """And of nothing else; a counter itself says only when its process began."""
        rated = set(re.findall(r"rate\((drawbar_\w+)", expressions()[where]))
        counted = {
            name
            for name in re.findall(r"\bdrawbar_\w+", expressions()[where])
            if METRICS[series(name)].kind in ("counter", "histogram")
        }

        assert counted == rated

    def test_show_every_metric(self):
        """What is not on the dashboard nor in an alarm is one figure too many, but for a few that say less than others."""
        asked = {series(name) for text_ in expressions().values() for name in re.findall(r"\bdrawbar_\w+", text_)}
        less = {
            "drawbar_capture_records",
            "drawbar_capture_requests_total",
            "drawbar_heartbeat_age_seconds",
            "drawbar_running",
        }

        assert set(METRICS) - less == asked


class TestAlarms:
    def test_have_each_a_line_for_who_is_woken(self):
        rows = table(sections(text("docs/operations.md"))["Alarms"], "Alarm", "Means", "Do")

        assert [f"`{alarm.alert}`" for alarm in alarms()] == [line[0] for line in rows]
        assert [] == [line for line in rows if not all(line)]

    def test_point_to_these_lines(self):
        assert {"docs/operations.md#alarms"} == {alarm.annotations.runbook for alarm in alarms()}

    def test_say_with_labels_that_are_there(self):
        """`{{ $labels.x }}` of a label that the expression drops is blank."""
        always = {"service", "instance"}
        for alarm in alarms():
            named = set(re.findall(r"\$labels\.(\w+)", alarm.annotations.summary))
            assert named <= labels_named(alarm.expr) | (always if "up{" in alarm.expr else set()), alarm.alert


class TestTestsOfAlarms:
    """The file that Prometheus' own promtool runs: it says of each alarm when it is raised."""

    def test_show_each_alarm_raised_and_not_raised(self):
        asked = [
            (rule["alertname"], bool(rule.get("exp_alerts")))
            for case in loaded("prometheus/alarms.test.yaml")["tests"]
            for rule in case["alert_rule_test"]
        ]
        raised = {name for name, is_raised in asked if is_raised}
        quiet = {name for name, is_raised in asked if not is_raised}
        beside = {"DrawbarStandsStill", "DrawbarBrakeOn"}  # other series of the same case do not raise them

        assert {alarm.alert for alarm in alarms()} == raised
        assert raised == quiet | beside

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not installed")
    def test_pass(self):
        done = subprocess.run(
            ["promtool", "test", "rules", str(DEPLOY / "prometheus" / "alarms.test.yaml")],
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr


class TestScrapes:
    def test_reach_every_stage_on_its_port(self):
        (job,) = loaded("prometheus/prometheus.yaml")["scrape_configs"]
        (found,) = job["dns_sd_configs"]

        assert sorted(STAGES) == sorted(found["names"])
        assert arguments("EXPOSE") == [str(found["port"])]

    def test_load_the_alarms(self):
        assert ["alarms.yaml"] == loaded("prometheus/prometheus.yaml")["rule_files"]


class TestDashboard:
    def test_asks_the_source_that_is_provisioned(self):
        (source,) = loaded("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
        asked = {part["datasource"]["uid"] for panel in panels() for part in (panel, *panel["targets"])}

        assert {source["uid"]} == asked
        assert source["url"].removeprefix("http://").split(":")[0] in compose().services

    def test_lies_where_grafana_looks_for_it(self):
        (provider,) = loaded("grafana/provisioning/dashboards/drawbar.yaml")["providers"]
        volumes = dict(volume.split(":")[:2] for volume in compose().services["grafana"].volumes)

        assert provider["options"]["path"] == volumes["./grafana/dashboards"]
        assert "/etc/grafana/provisioning" == volumes["./grafana/provisioning"]

    def test_has_panels_that_do_not_overlap(self):
        """Each has a title, an id of its own, and its place."""
        boxes: dict[tuple[int, int], str] = {}
        for panel in dashboard()["panels"]:
            at: Mapping[str, int] = TypeAdapter(dict[str, int]).validate_python(panel["gridPos"])
            for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
                assert cell not in boxes, (panel["title"], boxes[cell])
                assert cell[0] < 24
                boxes[cell] = panel["title"]
        ids = [panel["id"] for panel in dashboard()["panels"]]

        assert len(ids) == len(set(ids))


# --- without containers -----------------------------------------------------------------------------------------------


class TestExampleSettings:
    def test_are_settings(self, monkeypatch: pytest.MonkeyPatch):
        """Every name in the example is one, and the secrets come from files."""
        monkeypatch.setenv("DRAWBAR_SETTINGS_FILE", str(DEPLOY / "drawbar.toml"))
        monkeypatch.delenv("DRAWBAR_CONNECTION_FILE", raising=False)
        settings = load_settings()

        assert 3 == settings.bus.replication_factor
        assert None is settings.erp.client_secret
        assert Path("/etc/drawbar/crm-secret") == settings.crm.client_secret_file


class TestUnit:
    def test_starts_a_command_that_exists(self):
        (start,) = [
            line for line in (DEPLOY / "drawbar.service").read_text().splitlines() if line.startswith("ExecStart=")
        ]

        assert start.endswith("/drawbar up --state-dir /var/lib/drawbar")
