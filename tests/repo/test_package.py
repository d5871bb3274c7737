"""What is installed is what is here: a wheel with mappings and schemas, pinned dependencies, an entry point."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.repo.tree import PACKAGES, ROOT, files, imports, sources, text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads(text("pyproject.toml"))


def canonical(requirement: str) -> str:
    """The name of a distribution, as registries compare names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


DEPENDENCIES = {canonical(line) for line in PROJECT["project"]["dependencies"]}
EXTRAS = {
    file: {canonical(line) for line in PROJECT["project"]["optional-dependencies"][extra]}
    for file, extra in (("drawbar/telemetry.py", "otel"), ("drawbar/bus/docker.py", "docker"))
}
FOR_DEVELOPMENT = {canonical(line) for line in PROJECT["project"]["optional-dependencies"]["dev"]}


def uv() -> str:
    """The tool that `make setup` installs with."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    assert found, "make setup installs uv"
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy of it: nothing is left behind here."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for path in files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    build = [uv(), "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(out), str(copy)]
    # `make setup` had the build back end fetched: from the cache when it is still there.
    for command in ([*build, "--offline"], build):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is unpacked into, as an installation does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(folder: Path, *arguments: str) -> str:
    """What Python says when only the unpacked wheel is there, with this environment's libraries."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder.parent,
        env={"PYTHONPATH": str(folder), "HOME": str(folder.parent), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestWheel:
    def test_has_every_file_of_the_packages(self, installed: Path):
        """Code, types, schemas and tables of the sandbox: nothing is left at home."""
        expected = {str(path) for path in files() if path.parts[0] in PACKAGES}
        there = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}

        assert set() == expected - there

    def test_has_the_shipped_mappings(self, installed: Path):
        """The mapping files come along, byte by byte."""
        expected = {path.name: (ROOT / path).read_bytes() for path in files() if path.parts[0] == "mappings"}

        assert expected == {path.name: path.read_bytes() for path in (installed / "drawbar/_mappings").iterdir()}

    def test_has_nothing_else(self, installed: Path):
        """No tests, documents or local state in somebody's site-packages."""
        assert {*PACKAGES, "drawbar-0.1.0.dist-info"} == {path.name for path in installed.iterdir()}

    def test_finds_mappings_and_schemas_where_it_is_installed(self, installed: Path):
        """An installation works without the repository."""
        program = (
            "import processors.mapping_files as files, schemas.codec as codec, schemas.records as records; "
            "print(files.__file__); print(files.shipped_folder()); print(len(files.load_mappings(None)))"
        )
        where, folder, count = run_installed(installed, "-c", program).splitlines()

        assert str(installed / "processors/mapping_files.py") == where
        assert str(installed / "drawbar/_mappings") == folder
        assert len([path for path in files() if path.parts[0] == "mappings"]) == int(count)

    def test_runs_as_a_command(self, installed: Path):
        """`python -m drawbar` and the script `drawbar` are the same."""
        entry = (installed / "drawbar-0.1.0.dist-info/entry_points.txt").read_text(encoding="utf-8")

        assert "drawbar = drawbar.cli:main" in entry
        assert f"drawbar {PROJECT['project']['version']}" == run_installed(installed, "-m", "drawbar", "--version")

    def test_says_its_licence_and_what_it_needs(self, installed: Path):
        metadata = (installed / "drawbar-0.1.0.dist-info/METADATA").read_text(encoding="utf-8")
        needed = {
            canonical(line)
            for line in re.findall(r"^Requires-Dist: (.+)$", metadata, flags=re.MULTILINE)
            if "extra ==" not in line
        }

        assert "License-Expression: Apache-2.0" in metadata
        assert (ROOT / "LICENSE").read_bytes() == (installed / "drawbar-0.1.0.dist-info/licenses/LICENSE").read_bytes()
        assert DEPENDENCIES == needed


class TestPackages:
    @pytest.mark.parametrize("package", PACKAGES)
    def test_say_that_they_are_typed(self, package: str):
        assert (ROOT / package / "py.typed").is_file()

    def test_are_those_of_the_project(self):
        """Wheel, type checker and import rules are about the same packages."""
        tools = PROJECT["tool"]

        assert list(PACKAGES) == tools["hatch"]["build"]["targets"]["wheel"]["packages"]
        assert list(PACKAGES) == tools["mypy"]["packages"]
        assert list(PACKAGES) == tools["importlinter"]["root_packages"]

    def test_hold_no_module_that_a_folder_without_init_hides(self):
        """A folder with code is a package: else it would be missing in a wheel without anybody noticing."""
        folders = {path.parent for path in sources(*PACKAGES, "tests")}

        assert [] == sorted(str(folder) for folder in folders if folder / "__init__.py" not in files())


def third_party(paths: tuple[Path, ...]) -> Iterator[tuple[frozenset[str], Path]]:
    """Distributions (several may share a package's name) and file of each import that is neither ours nor Python's."""
    distributions = packages_distributions()
    for path in paths:
        for name in imports(path):
            top = name.split(".")[0]
            if top not in (*PACKAGES, "tests", "tomllib", *sys.stdlib_module_names):
                yield frozenset(map(canonical, distributions.get(top, [top]))), path


class TestDependencies:
    def test_are_declared_where_they_are_imported(self):
        """Nothing rests on what another dependency happens to bring."""
        of_packages = {
            f"{sorted(names)} in {path}"
            for names, path in third_party(sources(*PACKAGES))
            if not names & (DEPENDENCIES | EXTRAS.get(str(path), set()))
        }
        of_tests = {
            f"{sorted(names)} in {path}"
            for names, path in third_party(sources("tests"))
            if not names & (DEPENDENCIES | FOR_DEVELOPMENT | set().union(*EXTRAS.values()))
        }

        assert set() == of_packages
        assert set() == of_tests

    def test_are_each_used(self):
        """What nothing imports is not installed on anybody's machine."""
        used = {name for names, _ in third_party(sources(*PACKAGES, "tests")) for name in names}
        not_here = {"tomli"}  # only below Python 3.11
        by_another = {"httptools"}  # uvicorn's protocol that the sandbox asks for

        assert set() == DEPENDENCIES - used - not_here - by_another

    def test_are_pinned_with_their_hashes(self):
        """`make setup` installs the same files everywhere, or none."""
        blocks = re.findall(r"^([a-z0-9][^\n]*(?:\n    [^\n]*)*)", text("requirements.lock"), flags=re.MULTILINE)
        pinned = {canonical(block) for block in blocks}

        assert set() == (DEPENDENCIES | FOR_DEVELOPMENT).union(*EXTRAS.values()) - pinned
        assert [] == [block.splitlines()[0] for block in blocks if "==" not in block or "--hash=sha256:" not in block]


class TestChecks:
    def test_are_left_out_only_for_a_reason(self):
        """Each rule that is switched off says why, on its line."""
        block = re.search(r"^ignore = \[\n(.*?)^\]", text("pyproject.toml"), flags=re.MULTILINE | re.DOTALL)
        assert block is not None

        assert [] == [
            line.strip() for line in block[1].splitlines() if "#" not in line and line.strip() != '"D105", "D107",'
        ]
        assert ["error"] == PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"]
        assert PROJECT["tool"]["mypy"]["strict"] is True
        assert ["ALL"] == PROJECT["tool"]["ruff"]["lint"]["select"]


class TestMappings:
    def test_that_are_shipped_load_and_keep_their_examples(self):
        """The files that everybody starts with are right; loading runs every example in them."""
        from processors.mapping_files import load_mappings

        shipped = load_mappings(None)

        assert {path.stem for path in files() if path.parts[0] == "mappings"} == set(shipped)
        assert [] == [name for name, mapping in shipped.items() if mapping.role == "pair" and mapping.key.erp is None]
