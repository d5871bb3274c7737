"""What the topic `mappings` holds."""

from __future__ import annotations

import pytest

from schemas.errors import Undecodable
from schemas.mapping_set import MappingSet, read_mapping_set
from tests.builders import NOON

FILES = {"a.yaml": "name: ä\n", "b.yaml": "name: b\n"}


def a_set(**changed: object) -> MappingSet:
    return MappingSet(**{"files": FILES, "by": "jane", "at": NOON, **changed})  # type: ignore[arg-type]


class TestMappingSet:
    def test_comes_back_word_for_word(self):
        ours = a_set(unseen={"customer-account": ("telephone1",), "contact": ()}, added=("currency",))

        assert ours == read_mapping_set(ours.to_text())
        assert not ours.is_seen
        assert a_set().is_seen

    def test_has_the_version_of_its_files_whoever_put_them_there(self):
        assert a_set().version == a_set(by="pete", files=dict(reversed(FILES.items()))).version

    @pytest.mark.parametrize(
        "files",
        [{}, {"a.yaml": "name: ä\n"}, {**FILES, "b.yaml": "name: c\n"}, {"a.yaml": FILES["b.yaml"]}],
    )
    def test_has_another_version_for_other_files(self, files: dict[str, str]):
        assert a_set().version != a_set(files=files).version

    @pytest.mark.parametrize("text", [b"", b"null", b"{}", b'{"files": 1}', b"\xff"])
    def test_is_not_made_of_nonsense(self, text: bytes):
        with pytest.raises(Undecodable):
            read_mapping_set(text)
