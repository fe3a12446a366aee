"""Listings of object stores, and errors of storage in one line."""

import fsspec
import pytest

from mat2spec.errors import StorageError, TableError
from mat2spec.storage.location import (
    folders_before_pattern,
    list_remote_files,
    locate,
    remove_tree,
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
    assert [(file.name, file.size) for file in files] == [("a/POSCAR", 5), ("b/POSCAR", 5)]
    assert [locate(file.url).read_bytes() for file in files] == [b"12345", b"12345"]


def test_version_of_a_remote_file_changes_with_it(store):
    (before,) = list_remote_files(f"{store}/a/POSCAR")
    locate(before.url).write_bytes(b"67890")
    (after,) = list_remote_files(f"{store}/a/POSCAR")
    assert before.version
    assert before.version != after.version


def test_url_of_one_file_lists_that_file(store):
    assert [(file.name, file.size) for file in list_remote_files(f"{store}/a/POSCAR")] == [("POSCAR", 5)]


def test_tree_is_removed_whole_and_may_be_gone(store, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder in (locate(f"{store}/b"), tmp_path / "a"):
        remove_tree(folder)
        assert not folder.exists()
        remove_tree(folder)
    assert locate(f"{store}/a/POSCAR").exists()


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
