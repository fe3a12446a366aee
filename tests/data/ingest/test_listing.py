import errno
import os
import shutil
from pathlib import Path

import fsspec
import pytest

from mat2spec.data.ingest.listing import list_sources
from mat2spec.errors import TableError


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.cif",
        "a/POSCAR",
        "a/deep/x.cif.gz",
        "a/notes.txt",
        ".hidden/y.cif",
        "table.parquet",
        "all.tar.zst",
    ):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    return tmp_path / "in"


def names(*paths) -> list[str]:
    return [source.name for source in list_sources([str(path) for path in paths]).sources]


def test_folder_lists_the_structure_files_in_all_its_subfolders(folder):
    listing = list_sources([str(folder)])
    assert [source.name for source in listing.sources] == [
        "a/POSCAR",
        "a/deep/x.cif.gz",
        "all.tar.zst",
        "b.cif",
        "table.parquet",
    ]
    assert {source.size for source in listing.sources} == {5}
    assert (listing.rejects, listing.ignored) == ((), {".txt": 1})


def test_files_globs_and_urls_are_listed_once_each(folder):
    assert names(folder / "b.cif", folder / "b.cif", folder / "*.cif") == ["b.cif"]
    assert names(folder / "**/*.cif*") == ["a/deep/x.cif.gz", "b.cif"], "relative to the fixed part of the glob"
    assert names(folder / "?/POSCAR") == names(f"file://{folder}/?/POSCAR") == ["a/POSCAR"]
    assert dict(list_sources([str(folder), str(folder / "a")]).ignored) == {".txt": 1}, "named twice"
    assert names(f"file://{folder}") == names(folder), "an URL lists what its path does"
    assert names(f"file://{folder}/a/*") == ["POSCAR", "deep/x.cif.gz"], "a folder that matches is listed as a whole"


def test_fingerprint_changes_with_names_sizes_and_times_and_reads_no_file(folder, tmp_path):
    def fingerprint(path=folder) -> str:
        return list_sources([str(path)]).fingerprint

    first = fingerprint()
    moved = shutil.copytree(folder, tmp_path / "moved", symlinks=True)
    assert fingerprint(moved) == first, "a folder that is moved with its times is the same input"
    (folder / "b.cif").chmod(0)
    assert fingerprint() == first
    seen = {first}
    os.utime(folder / "b.cif", (1, 1))
    seen.add(fingerprint())
    (folder / "b.cif").rename(folder / "c.cif")
    seen.add(fingerprint())
    (folder / "d.cif").write_bytes(b"1")
    seen.add(fingerprint())
    assert len(seen) == 4


def test_output_of_the_job_is_left_out_wherever_it_is(folder):
    for root in (str(folder), f"file://{folder}"):
        listing = list_sources([root], f"{root}/a")
        assert [source.name for source in listing.sources] == ["all.tar.zst", "b.cif", "table.parquet"]
        assert listing.ignored == {}


def test_listing_of_tables_alone_holds_only_parquet(folder):
    assert list_sources([str(folder / "*.parquet")]).holds_only_parquet
    assert not list_sources([str(folder)]).holds_only_parquet
    only = folder.parent / "only"
    only.mkdir()
    (only / "table.parquet").touch()
    (only / "notes.txt").touch()
    assert list_sources([str(only)]).holds_only_parquet, "files of no known format do not count"
    (only / "gone").symlink_to(only / "nowhere")
    assert not list_sources([str(only)]).holds_only_parquet, "something could be lost"


def test_circular_and_broken_links_are_rejects_and_other_files_are_listed(folder):
    (folder / "a" / "again").symlink_to(folder)
    (folder / "self.cif").symlink_to(folder / "self.cif")
    (folder / "gone.cif").symlink_to(folder / "nowhere.cif")
    listing = list_sources([str(folder)])
    assert len(listing.sources) == 5
    rejects = {str(row["source"]).removeprefix(f"{folder}/"): row for row in listing.rejects}
    assert rejects.keys() == {"a/again", "self.cif", "gone.cif"}
    assert {(row["stage"], row["error_type"]) for row in rejects.values()} == {("list", "TableError")}
    assert "No such file" in rejects["gone.cif"]["error"]


@pytest.mark.parametrize("form", ["{}", "{}/*", "{}/**", "file://{}", "file://{}/*"])
def test_folder_behind_a_link_is_listed_however_it_is_named(tmp_path, form):
    for name in ("in/a.cif", "elsewhere/b.cif", "elsewhere/deep/c.cif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(form.format(tmp_path / "in")) == ["a.cif", "link/b.cif", "link/deep/c.cif"]


def test_glob_lists_each_file_once_though_a_link_leads_to_a_folder_above_it(folder):
    (folder / "a" / "again").symlink_to(folder)
    assert names(folder / "**/*.cif") == ["b.cif"]
    assert names(folder / "**/POSCAR") == ["a/POSCAR"]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".Trash-1000", ".hidden"])
@pytest.mark.parametrize(
    "form", ["{}", "{}/*", "{}/**", "{}/**/*.parquet", "file://{}", "memory://{}", "memory://{}/*"]
)
def test_stale_copies_in_hidden_folders_are_not_read(tmp_path, hidden, form):
    filesystem = fsspec.filesystem(form.split("://")[0] if "memory" in form else "file")
    for name in (f"in/{hidden}/a-checkpoint.parquet", "in/b.parquet"):
        filesystem.makedirs(str((tmp_path / name).parent), exist_ok=True)
        filesystem.pipe_file(str(tmp_path / name), b"1")
    assert names(form.format(tmp_path / "in")) == ["b.parquet"]


@pytest.mark.parametrize("name", ["t[1].parquet", "t?.parquet", "t*.parquet", "[t].cif"])
@pytest.mark.parametrize("protocol", ["", "file://", "memory://"])
def test_name_that_looks_like_a_pattern_is_that_of_a_file(tmp_path, name, protocol):
    filesystem = fsspec.filesystem(protocol.removesuffix("://") or "file")
    for other in (name, "t1.parquet", "t.cif"):
        filesystem.makedirs(str(tmp_path), exist_ok=True)
        filesystem.pipe_file(str(tmp_path / other), b"1")
    assert names(f"{protocol}{tmp_path}/{name}") == [name]


@pytest.mark.parametrize("extension", [".parquet", ".PARQUET", ".pq", ".parq", ".Pq"])
def test_every_usual_extension_of_parquet_is_known(tmp_path, extension):
    (tmp_path / f"table{extension}").touch()
    assert list_sources([str(tmp_path)]).holds_only_parquet


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
        ("deep/metadata/00000-8c4d.metadata.json", "an Iceberg table"),
    ],
)
@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_table_that_keeps_its_versions_is_refused_by_its_name(tmp_path, name, what, protocol):
    """Its files also hold rows that were deleted or replaced."""
    filesystem = fsspec.filesystem(protocol.removesuffix("://") or "file")
    for file in (name, "data/part-0.parquet"):
        filesystem.makedirs(str((tmp_path / "in" / file).parent), exist_ok=True)
        filesystem.pipe_file(str(tmp_path / "in" / file), b"1")
    with pytest.raises(TableError, match=f"holds {what}, .*current ones") as caught:
        list_sources([f"{protocol}{tmp_path}/in"])
    assert "\n" not in str(caught.value)


def test_unreadable_folder_is_a_reject(folder, monkeypatch):
    """Root may read everything, so the error of the system is simulated."""
    scandir = os.scandir

    def without_permission(path):
        if Path(path).name == "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_permission)
    listing = list_sources([str(folder)])
    (row,) = (row for row in listing.rejects if str(row["source"]).endswith("/a"))
    assert listing.sources
    assert (row["stage"], row["error_type"]) == ("list", "TableError")
    assert "Permission denied" in row["error"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "does not exist"),
        ("in/a/notes.txt", "holds 1 file, .*CIF"),
        ("*.none", "matches no file"),
    ],
)
def test_nothing_to_read_is_refused(folder, path, message):
    with pytest.raises(TableError, match=message):
        list_sources([str(folder.parent / path)])


def test_store_that_cannot_be_reached_is_one_line():
    with pytest.raises(TableError, match=r"nowhere://x: cannot be listed") as caught:
        list_sources(["nowhere://x"])
    assert "\n" not in str(caught.value)
