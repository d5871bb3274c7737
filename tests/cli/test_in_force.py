"""A folder of mapping files beside those in force: it counts only once it is put in force, and whoever edits it is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from drawbar.cli.in_force import of_folder, put_in_force_by
from processors.mapping_files import texts_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped files."""
    for path in texts_of(None):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


class TestPutInForceBy:
    def test_is_nothing_for_the_files_that_are_in_force(self, folder: Path):
        assert put_in_force_by(folder, of_folder(None, by="")) is None

    def test_is_nothing_where_no_folder_is_named(self, folder: Path):
        """What was put in force since the first start stays so."""
        (folder / "contact.yaml").unlink()

        assert put_in_force_by(None, of_folder(folder, by="")) is None

    def test_names_the_commands_for_a_folder_that_was_edited(self, folder: Path):
        before = of_folder(folder, by="")
        with (folder / "contact.yaml").open("a", encoding="utf-8") as file:
            file.write("# a word more\n")

        assert f"drawbar mappings diff {folder}, then drawbar mappings apply {folder}" == put_in_force_by(
            folder, before
        )

    def test_names_them_for_a_folder_that_cannot_be_read(self, folder: Path):
        """It is being edited right now, perhaps."""
        before = of_folder(folder, by="")

        assert put_in_force_by(folder / "nowhere", before) is not None
