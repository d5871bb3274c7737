"""The documents tell the truth: every table is held against the code it describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr

from drawbar.metrics import METRICS
from drawbar.sandbox.switch import Switch, shown
from drawbar.sandbox.switch_list import SWITCHES
from drawbar.settings import Settings
from processors.mapping import (
    AlsoCapture,
    Condition,
    Defaults,
    EntityMapping,
    Example,
    FieldMapping,
    Filters,
    Key,
    MatchField,
)
from processors.transforms import TRANSFORMS
from schemas.errors import DrawbarError, all_errors
from schemas.topics import DAY_MS, TOPICS
from tests.repo.command_line import COMMANDS, GROUPS, fault, mention_fault
from tests.repo.tree import ROOT, documents, files, prose, row, sections, sources, spans, table, text, typed_commands

SECRET_DEFAULT = "(a fixed text: set your own)"


def choices(annotation: Any) -> tuple[str, ...]:
    """The values that a closed choice allows; none for any other type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := choices(part))), ())


def default_of(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value in ({}, (), ""):
        return ""
    if isinstance(value, SecretStr):
        return SECRET_DEFAULT
    return json.dumps(value) if isinstance(value, bool) else str(value)


def settings_tables() -> dict[str, list[tuple[str, ...]]]:
    """What docs/settings.md has to say, by its headings."""
    found: dict[str, list[tuple[str, ...]]] = {"General": []}
    for name, field in Settings.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            prefix = f"DRAWBAR_{name.upper()}__"
            found[f"`{name}`"] = [settings_row(prefix, inner, below) for inner, below in part.model_fields.items()]
        else:
            found["General"].append(settings_row("DRAWBAR_", name, field))
    return found


def settings_row(prefix: str, name: str, field: Any) -> tuple[str, ...]:
    allowed = choices(field.annotation)
    *others, last = (f"`{value}`" for value in allowed) if allowed else ("",)
    values = f"{', '.join(others)} or {last}" if others else last
    return f"`{prefix}{name.upper()}`", default_of(field), field.description + (f" ({values})" if values else "")


class TestSettings:
    @pytest.mark.parametrize("heading", settings_tables())
    def test_are_all_listed_with_default_and_meaning(self, heading: str):
        """A setting that is not in docs/settings.md does not exist for those who run Drawbar."""
        written = table(sections(text("docs/settings.md"))[heading], "Environment", "Default", "Meaning")

        assert settings_tables()[heading] == written

    def test_stand_under_a_heading_each_part(self):
        """No section is about a part of the settings that there is not."""
        assert ["", *settings_tables()] == list(sections(text("docs/settings.md")))

    def test_are_each_read_somewhere(self):
        """A setting that nothing reads is a promise that nobody keeps."""
        code = "\n".join(text(path) for path in sources("processors", "producers", "consumers", "drawbar"))
        code = code.replace(text("drawbar/settings.py"), "")
        names = [line[0].strip("`").rpartition("__")[2] for rows in settings_tables().values() for line in rows]
        fields = {name.removeprefix("DRAWBAR_").lower() for name in names}

        assert [] == sorted(name for name in fields if not re.search(rf"\b{name}\b", code))

    def test_of_the_environment_are_each_in_a_document(self):
        """A variable that code, tests or documents name is one that is explained, under this very name."""
        named = {
            name
            for path in files()
            if path.suffix in (".py", ".md", ".yaml", ".toml") and path.name != "test_documents.py"
            for name in re.findall(r"\bDRAWBAR_[A-Z0-9_]*[A-Z0-9]\b(?!_)", text(path))
        }
        known = {line[0].strip("`") for rows in settings_tables().values() for line in rows}
        explained = {name for path in documents() for name in spans(text(path)) if name.startswith("DRAWBAR_")}
        of_tests = {name for name in named if name.startswith("DRAWBAR_TEST_")}

        assert set() == named - known - explained - of_tests


def error_rows() -> Iterator[tuple[str, str, str, str]]:
    for error in all_errors():
        if error is not DrawbarError:
            yield error.code, error.slug, "yes" if error.retriable else "no", error.next_step


class TestErrors:
    def test_are_all_listed_in_the_order_of_their_codes(self):
        """The document has each code once, with its name and whether trying again can help."""
        written = table(text("docs/errors.md"), "Code", "Name", "Retriable", "What to do")

        assert sorted((f"`{code}`", slug, again) for code, slug, again, _ in error_rows()) == [
            line[:3] for line in written
        ]

    def test_say_the_same_in_the_document_as_on_the_terminal(self):
        """What to do is said in one wording."""
        written = {
            line[0]: line[3] for line in table(text("docs/errors.md"), "Code", "Name", "Retriable", "What to do")
        }
        said = {f"`{code}`": step for code, _, _, step in error_rows() if step}

        assert said == {code: written[code] for code in said}

    def test_leave_nobody_without_a_next_step(self):
        """Only a family, which is never raised by itself, and what is tried again need no advice of their own."""
        written = {
            line[0]: line[3] for line in table(text("docs/errors.md"), "Code", "Name", "Retriable", "What to do")
        }
        again = "nothing: it is tried again"

        assert {code for code, what in written.items() if code.endswith("000`")} == {
            code for code, what in written.items() if what == "(family)"
        }
        assert {f"`{code}`" for code, _, retriable, _ in error_rows() if retriable == "yes"} == {
            code for code, what in written.items() if what == again
        }
        assert [] == [code for code, what in written.items() if not what]

    def test_are_each_raised_or_written_somewhere(self):
        """A code that nothing gives is no code."""
        code = "\n".join(text(path) for path in sources("processors", "producers", "consumers", "drawbar"))
        code += text("schemas/codec.py")
        leaves = [error for error in all_errors() if not error.code.endswith("000")]

        assert [] == [error.__name__ for error in leaves if not re.search(rf"\b{error.__name__}\b", code)]

    def test_are_drawn_in_the_tree_of_their_module(self):
        """The docstring of schemas/errors.py draws the tree once, with every class and code."""
        drawn = re.findall(r"[├└]── (\w+) +(?:DRW-)?(\d)(\d{3}|xxx)", text("schemas/errors.py"))

        assert sorted(
            (error.__name__, error.code[4:]) for error in all_errors() if error is not DrawbarError
        ) == sorted((name, family + ("000" if number == "xxx" else number)) for name, family, number in drawn)


class TestMetrics:
    def test_are_all_listed(self):
        """What can be watched is explained in docs/metrics.md, in the words of the metric itself."""
        columns = ("Metric", "Type", "Unit", "Labels", "Meaning", "What to do when it is high")
        written = table(text("docs/metrics.md"), *columns)

        assert [
            (f"`{name}`", figure.kind, figure.unit, ", ".join(f"`{label}`" for label in figure.labels), figure.meaning)
            for name, figure in METRICS.items()
        ] == [line[:5] for line in written]
        assert [] == [line[0] for line in written if not line[5]]


class TestTopics:
    def test_are_all_listed(self):
        """docs/topics.md is the topic table, row by row."""
        expected = [
            (
                f"`{topic.name}`",
                topic.key,
                topic.schema,
                "installation" if topic.partitions is None else str(topic.partitions),
                topic.cleanup,
                "for ever" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} days",
                topic.writer,
                topic.doc,
            )
            for topic in TOPICS
        ]
        columns = ("Topic", "Key", "Value", "Partitions", "Cleanup", "Kept", "Written by", "What")

        assert expected == table(text("docs/topics.md"), *columns)

    def test_of_the_shipped_mappings_are_in_the_table(self):
        """Every entity that a shipped mapping reads has its topic."""
        from processors.mapping_files import captured_entities, load_mappings
        from schemas.topics import CAPTURED

        assert set(captured_entities(load_mappings(None).values())) == set(CAPTURED)


def keys_written(rows: list[tuple[str, ...]]) -> list[str]:
    return [key for line in rows for key in re.findall(r"`([^`]+)`", line[0])]


class TestSwitches:
    @pytest.mark.parametrize(
        ("system", "page"), [("erp", "docs/sandbox-business-central.md"), ("crm", "docs/sandbox-dataverse.md")]
    )
    def test_of_the_sandbox_are_in_the_table_of_their_service_with_every_answer(self, system: str, page: str):
        """One row each; the answer in bold is the default."""
        expected = [
            (f"`{switch.name}`", switch.question, self.answers(switch))
            for switch in SWITCHES.values()
            if switch.system == system
        ]

        assert expected == table(text(page), "Switch", "Question", "Answers")

    @staticmethod
    def answers(switch: Switch) -> str:
        if not switch.does:
            return f"{switch.takes}; **`{json.dumps(switch.initial)}`**"
        first, *rest = (f"`{shown(value)}`" for value in switch.does)
        texts = switch.does.values()
        return "; ".join(f"{value} {said}" for value, said in zip([f"**{first}**", *rest], texts, strict=True))

    def test_are_asked_for_by_names_that_there_are(self):
        """And none is there that no rule asks for."""
        asked = {
            name
            for path in (ROOT / "drawbar/sandbox").rglob("*.py")
            for name in re.findall(r"""witches\[["'](\w+)["']\]""", path.read_text("utf-8"))
        }

        by_status = {name for name in SWITCHES if name.endswith("_status")}
        assert set(SWITCHES) - by_status <= asked <= set(SWITCHES)


class TestMappingKeys:
    def test_of_a_mapping_are_all_listed_with_their_defaults(self):
        """A key that docs/mappings.md does not list cannot be found by those who write mapping files."""
        rows = table(sections(text("docs/mappings.md"))["Keys of a mapping"], "Key", "Meaning", "Default")
        written = {key: line[2].strip("`") for line in rows for key in keys_written([line])}
        defaults = {
            name: default_of(field)
            for name, field in EntityMapping.model_fields.items()
            if not isinstance(field.get_default(call_default_factory=True), BaseModel) and not field.is_required()
        }

        assert sorted(EntityMapping.model_fields) == sorted(written)
        assert {name: value for name, value in defaults.items() if value} == {
            name: written[name] for name, value in defaults.items() if value
        }

    def test_of_a_field_line_are_all_listed_with_their_defaults(self):
        rows = table(sections(text("docs/mappings.md"))["Keys of a field line"], "Key", "Meaning", "Default")
        written = {key: line[2].strip("`") for line in rows for key in keys_written([line])}

        assert {name: default_of(field) for name, field in FieldMapping.model_fields.items()} == written

    def test_below_these_are_all_listed(self):
        """Filters, matches, defaults and examples have keys of their own."""
        rows = table(sections(text("docs/mappings.md"))["Keys below these"], "Below", "Key", "Meaning")
        models: dict[str, type[BaseModel]] = {
            "key": Key,
            "match": MatchField,
            "filter": Filters,
            "a condition of `filter`": Condition,
            "defaults": Defaults,
            "also_capture": AlsoCapture,
            "examples": Example,
        }
        written: dict[str, set[str]] = {}
        for line in rows:
            below = line[0] if " " in line[0] else line[0].strip("`")
            written.setdefault(below, set()).update(keys_written([line[1:]]))

        assert {below: set(model.model_fields) for below, model in models.items()} == written

    @pytest.mark.parametrize(
        ("model", "heading"), [(EntityMapping, "Keys of a mapping"), (FieldMapping, "Keys of a field line")]
    )
    def test_with_a_closed_choice_list_every_value(self, model: type[BaseModel], heading: str):
        rows = table(sections(text("docs/mappings.md"))[heading], "Key", "Meaning", "Default")
        said = {key: re.findall(r"`([^`]+)`", line[1]) for line in rows for key in keys_written([line])}

        assert {} == {
            name: missing
            for name, field in model.model_fields.items()
            if (missing := set(choices(field.annotation)) - set(said[name]))
        }


class TestTransforms:
    def test_are_all_listed(self):
        """docs/mappings.md says of each transform what the transform says of itself."""
        rows = table(sections(text("docs/mappings.md"))["Transforms"], "Name", "Does")

        assert [(f"`{name}`", transform.doc) for name, transform in TRANSFORMS.items()] == rows


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(markdown: str) -> set[str]:
    """The anchors that a heading gets where Markdown is shown."""
    headings = re.findall(r"^#+ (.+)$", prose(markdown), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TestDocuments:
    @pytest.mark.parametrize("document", documents(), ids=str)
    def test_link_only_to_what_there_is(self, document):
        """Every relative link leads to a file of the repository, and to a heading in it where it names one."""
        broken = []
        for link in LINK.findall(prose(text(document))):
            if "://" in link or link.startswith("mailto:"):
                continue
            target, _, anchor = link.partition("#")
            path = (ROOT / document.parent / target).resolve() if target else ROOT / document
            if (
                not path.exists()
                or ROOT not in (path, *path.parents)
                or (anchor and anchor not in anchors(path.read_text(encoding="utf-8")))
            ):
                broken.append(link)

        assert [] == broken

    @pytest.mark.parametrize("document", documents(), ids=str)
    def test_name_only_files_that_there_are(self, document):
        """A path in `backticks` that begins with a folder of the repository is a file of it."""
        folders = {path.parts[0] for path in files() if len(path.parts) > 1}
        named = [span for span in spans(text(document)) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", span)]

        assert [] == [name for name in named if name.split("/")[0] in folders and not (ROOT / name).exists()]

    @pytest.mark.parametrize("document", documents(), ids=str)
    def test_show_only_commands_that_can_be_typed(self, document):
        """Each line after a `$` is a command of ours that takes these arguments, a target of make, or plain shell."""
        typed = [line.removeprefix(".venv/bin/") for line in typed_commands(text(document))]
        ours = [line.removeprefix("drawbar ") for line in typed if line.startswith("drawbar ")]

        assert [] == [wrong for line in ours if (wrong := fault(line))]
        assert [] == [
            line for line in typed if line.split()[0] not in ("drawbar", "make", "export", "git", "cd", "curl")
        ]

    @pytest.mark.parametrize("document", documents(), ids=str)
    def test_name_only_commands_that_there_are(self, document):
        """`drawbar …` and `make …` in running text name commands, options and targets that exist."""
        named = spans(text(document)) + typed_commands(text(document))
        mentioned = [span.removeprefix("drawbar ") for span in named if span.startswith("drawbar ")]
        made = [span.split()[1] for span in named if re.match(r"make \w", span)]
        targets = re.findall(r"^([a-z]+):", text("Makefile"), flags=re.MULTILINE)

        assert [] == [wrong for line in mentioned if (wrong := mention_fault(line))]
        assert set() == set(made) - set(targets)

    def test_name_every_command(self):
        """A command that no document names is not found."""
        said = " ".join(" ".join(spans(text(path)) + typed_commands(text(path))) for path in documents())
        missing = []
        for path in COMMANDS:
            alone = f"drawbar {' '.join(path)}"
            group = rf"drawbar {re.escape(' '.join(path[:-1]))} [\w| -]*\b{re.escape(path[-1])}\b"
            if alone not in said and not (len(path) > 1 and re.search(group, said)):
                missing.append(alone)

        assert [] == missing

    def test_are_each_reached_from_the_readme(self):
        """Whoever begins with the README and follows the links comes to every document."""
        known, reached, ahead = set(documents()), set(), [Path("README.md")]
        while ahead:
            path = ahead.pop()
            reached.add(path)
            targets = [(ROOT / path.parent / link.partition("#")[0]).resolve() for link in LINK.findall(text(path))]
            there = {target.relative_to(ROOT) for target in targets if target.is_relative_to(ROOT)}
            ahead += [found for found in known - reached if there & {found, found.parent} - {Path()}]

        assert set() == known - reached

    def test_name_errors_by_the_codes_they_have(self):
        known = {error.code for error in all_errors()}
        named = {code for path in documents() for code in re.findall(r"DRW-\d{4}", text(path))}

        assert set() == named - known


class TestGuarantees:
    def test_are_the_same_in_the_readme(self):
        """The README promises what docs/guarantees.md holds tests against: no more, no fewer."""
        kept = table(text("docs/guarantees.md"), "", "Promise", "Kept by")
        promised = re.findall(r"^\| (G\d) \|", text("README.md"), flags=re.MULTILINE)

        assert [line[0].strip("*") for line in kept] == promised

    def test_name_tests_that_there_are(self):
        """Each class of tests that is named stands in one of the files that its row links to."""
        missing = []
        for line in table(text("docs/guarantees.md"), "", "Promise", "Kept by"):
            paths = [(ROOT / "docs" / link).resolve() for link in LINK.findall(line[2])]
            code = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
            missing += [name for name in re.findall(r"`(Test\w+)`", line[2]) if f"class {name}" not in code]

        assert [] == missing


class TestGlossary:
    def test_has_the_words_of_the_command_line(self):
        """What a group of commands is about is a word of ours, explained once."""
        words = text("docs/glossary.md").lower()
        about = {
            "brakes": "brake",
            "capture": "capture",
            "couplings": "coupling",
            "dead-letters": "dead letter",
            "mappings": "mapping",
            "schemas": "schemas",
            "setup": "webhook",
            "sync": "plan",
        }

        assert set(about) | {"topics"} == {path[0] for path in GROUPS if path}
        assert [] == [word for word in about.values() if word not in words]


class TestTableReader:
    def test_reads_what_it_writes(self):
        """The tables that these tests compare are read cell by cell, blank cells included."""
        lines = [row(("A", "B")), "|---|---|", row(("`x`", "")), row(("", "y z")), "", row(("no", "row"))]

        assert [("`x`", ""), ("", "y z")] == table("\n".join(lines), "A", "B")
