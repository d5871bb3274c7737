"""Every command says what it does, and its example works."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import Any

import pytest

from drawbar.cli import main
from tests.repo.command_line import COMMANDS, GROUPS, fault, mention_fault
from tests.repo.tree import ROOT, sources, text, tree

HEAVY = ("faust", "confluent_kafka", "requests", "msal", "rich", "starlette", "uvicorn", "cryptography", "fastavro")


def named(path: tuple[str, ...]) -> str:
    return " ".join(("drawbar", *path))


EACH_COMMAND = [pytest.param(path, command, id=named(path)) for path, command in COMMANDS.items()]
EACH_GROUP = [pytest.param(path, group, id=named(path)) for path, group in GROUPS.items()]


class TestHelp:
    @pytest.mark.parametrize(("path", "command"), EACH_COMMAND)
    def test_of_a_command_opens_with_a_sentence(self, path: tuple[str, ...], command: Any):
        """The first line says what happens, as a whole sentence in the imperative."""
        first, *_ = (command.help or "").split("\n\n")

        assert re.fullmatch(r"[A-Z][a-z]+ .+\.", first, flags=re.DOTALL)

    @pytest.mark.parametrize(("path", "command"), EACH_COMMAND)
    def test_of_a_command_ends_with_an_example_that_can_be_typed(self, path: tuple[str, ...], command: Any):
        """The example is about this very command, and its arguments are taken."""
        example = (command.help or "").split("\n\n")[-1]

        assert example.startswith(f"Example: {named(path)}")
        assert "" == fault(example.removeprefix("Example: drawbar "))

    @pytest.mark.parametrize(("path", "command"), EACH_COMMAND)
    def test_of_a_command_explains_every_option_and_argument(self, path: tuple[str, ...], command: Any):
        """Each has a sentence, and a whole one."""
        silent = [param.name for param in command.params if not (param.help or "").endswith((".", "]"))]

        assert [] == silent

    @pytest.mark.parametrize(("path", "group"), EACH_GROUP)
    def test_of_a_group_says_what_it_is_about(self, path: tuple[str, ...], group: Any):
        assert (group.help or "").split("\n\n")[0].endswith(".")

    @pytest.mark.parametrize(("path", "command"), EACH_COMMAND)
    def test_names_options_with_their_units(self, path: tuple[str, ...], command: Any):
        """A number of seconds ends in `-s`: nobody has to guess."""
        vague = {"--timeout", "--interval", "--delay", "--pause", "--latency", "--wait"}

        assert set() == vague & {name for param in command.params for name in param.opts}


class TestMain:
    @pytest.mark.parametrize("words", [("--help",), ("-h",), ("dead-letters", "--help"), ("up", "-h")], ids=str)
    def test_gives_help_to_those_who_ask(self, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
        assert 0 == main(words)
        assert "Usage: drawbar" in capsys.readouterr().out

    @pytest.mark.parametrize("words", [(), ("dead-letters",)], ids=str)
    def test_shows_what_there_is_to_those_who_name_no_command(
        self, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ):
        """Nothing was done, so standard output stays empty and the exit code is not 0."""
        assert 2 == main(words)
        said = capsys.readouterr()
        assert "" == said.out
        assert "Commands:" in said.err

    @pytest.mark.parametrize(
        "words",
        [("dead-leters",), ("status", "--jsn"), ("sink",), ("sink", "--system", "sap"), ("up", "--capture", "0")],
    )
    def test_says_how_a_command_is_used_that_was_used_wrongly(
        self, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ):
        """Exit code 2, the fault and where the usage stands on standard error, nothing on standard output."""
        assert 2 == main(words)
        said = capsys.readouterr()
        assert "" == said.out
        assert "Usage: drawbar" in said.err or "--help" in said.err

    def test_is_quick_to_start(self):
        """Help loads none of the libraries that commands need: each costs a tenth of a second or more."""
        code = f"import sys, drawbar.cli; print([name for name in {HEAVY} if name in sys.modules])"
        loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

        assert "[]" == loaded.stdout.strip()


class TestAdvice:
    def test_names_only_commands_that_there_are(self):
        """What a message tells a person to type can be typed."""
        wrong = []
        for path in sources("schemas", "processors", "producers", "consumers", "drawbar"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for advice in re.findall(
                        r"(?<![\w./-])drawbar ((?:[a-z][a-z-]*|--[a-z-]+)(?: --?[a-z-]+)*)", node.value
                    ):
                        wrong += [f"{path}:{node.lineno}: {found}"] if (found := mention_fault(advice)) else []

        assert [] == wrong


class TestMake:
    def test_lists_every_target(self):
        """`make help` is the list of what can be made."""
        targets = re.search(r"^\.PHONY: (.+)$", text("Makefile"), flags=re.MULTILINE)
        assert targets is not None
        listed = subprocess.run(
            ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
        )

        assert sorted(targets[1].split()) == sorted(re.findall(r"^  make (\w+)  ", listed.stdout, flags=re.MULTILINE))

    def test_has_what_continuous_integration_calls(self):
        """`.ci/run` does what the README tells a person to do."""
        assert (ROOT / ".ci/run").stat().st_mode & 0o111
        assert "make test" == text(".ci/run").strip().splitlines()[-1]
        assert re.search(r"^test: check\b", text("Makefile"), flags=re.MULTILINE)
