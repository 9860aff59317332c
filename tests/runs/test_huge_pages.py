"""The hint on huge pages appears where they are the program's choice and it has not made it."""

import pytest

from cbalign.runs.train import huge_pages_note


@pytest.mark.parametrize(
    "setting, tunables, said",
    [
        ("always [madvise] never\n", "", True),
        ("always [madvise] never\n", "glibc.malloc.check=1", True),
        ("always [madvise] never\n", "glibc.malloc.check=1:glibc.malloc.hugetlb=1", False),
        ("[always] madvise never\n", "", False),
        ("always madvise [never]\n", "", False),
        (None, "", False),
    ],
)
def test_hint(tmp_path, setting, tunables, said):
    file = tmp_path / "enabled"
    if setting is not None:
        file.write_text(setting)
    assert ("GLIBC_TUNABLES" in huge_pages_note(file, {"GLIBC_TUNABLES": tunables})) == said
