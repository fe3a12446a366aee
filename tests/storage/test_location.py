"""Listings of object stores, and errors of storage in one line."""

import fsspec
import pytest

from mat2spec.errors import StorageError, TableError
from mat2spec.storage.location import (
    folders_before_pattern,
    list_remote_files,
    locate,
    storage_errors,
    store_errors_as_oserror,
)


@pytest.fixture
def store():
    """A store in memory with two structures and a hidden file."""
    filesystem = fsspec.filesystem("memory")
    for name in ("a/POSCAR", "b/POSCAR", "b/.hidden", ".staged/POSCAR"):
        filesystem.pipe_file(f"/lake/{name}", b"12345")
    yield "memory://lake"
    filesystem.rm("/lake", recursive=True)


@pytest.mark.parametrize("pattern", ["", "/*/POSCAR"])
def test_remote_listing_has_relative_paths_and_sizes_and_skips_hidden_files(store, pattern):
    files = list(list_remote_files(store + pattern))
    assert [(path, size) for _, path, size in files] == [("a/POSCAR", 5), ("b/POSCAR", 5)]
    assert [locate(url).read_bytes() for url, _, _ in files] == [b"12345", b"12345"]


def test_url_of_one_file_lists_that_file(store):
    assert [(path, size) for _, path, size in list_remote_files(f"{store}/a/POSCAR")] == [("POSCAR", 5)]


def test_store_without_its_package_is_refused_in_one_line():
    with pytest.raises(TableError) as caught:
        list(list_remote_files("nosuchstore://lake"))
    assert "nosuchstore://lake" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "folders"), [("a/b/*/POSCAR", "a/b"), ("/*.cif", "/"), ("*.cif", "."), ("a/b.cif", "a")]
)
def test_folders_before_a_pattern_have_no_wildcard(pattern, folders):
    assert folders_before_pattern(pattern) == folders


def test_error_of_any_package_becomes_one_line_with_path_and_reason(tmp_path):
    def fail() -> None:
        with storage_errors(tmp_path), store_errors_as_oserror():
            raise LookupError("no such\nbucket")

    with pytest.raises(StorageError) as caught:
        fail()
    assert str(tmp_path) in str(caught.value)
    assert "LookupError: no such bucket" in str(caught.value)
