import bz2
import gzip
import io
import tarfile
import zipfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mat2spec.errors import TableError
from mat2spec.structure.readers.archives import is_archive, read_archive, read_bounded, without_compression

FILES = {"a/one.cif": b"data_one\n", "two.vasp": b"two\n" * 1000, "three.cif.gz": gzip.compress(b"data_three\n")}
CONTENT = FILES | {"three.cif.gz": b"data_three\n"}
MB = 1_000_000


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def read(name: str, content: bytes, largest_file: int = MB, largest_archive: int = 100 * MB) -> dict[str, bytes | str]:
    files = read_archive(name, io.BytesIO(content), largest_file, largest_archive)
    return {member: str(file) if isinstance(file, TableError) else file for member, file in files}


ARCHIVES = {
    "x.tar": tar(FILES),
    "x.tar.gz": tar(FILES, "w:gz"),
    "x.tgz": tar(FILES, "w:gz"),
    "x.tar.bz2": tar(FILES, "w:bz2"),
    "x.tar.zst": zstd(tar(FILES)),
    "x.zip": zipped(FILES),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_file_of_an_archive_is_read_in_order(name):
    assert is_archive(name)
    assert list(read(name, ARCHIVES[name]).items()) == list(CONTENT.items())


@pytest.mark.parametrize(
    ("name", "compress"),
    [("a.cif.gz", gzip.compress), ("a.cif.zst", zstd), ("a.cif.bz2", bz2.compress), ("a.cif", bytes)],
)
def test_compressed_file_is_decompressed(name, compress):
    assert not is_archive(name)
    assert without_compression(name) == "a.cif"
    assert read_bounded(name, io.BytesIO(compress(b"data_x\n")), 100) == b"data_x\n"


@pytest.mark.parametrize("path", ["../../etc/passwd.cif", "/etc/one.cif", "a/../../b.cif", "..\\b.cif"])
@pytest.mark.parametrize("make", [tar, zipped], ids=["tar", "zip"])
def test_path_that_leads_out_of_an_archive_is_refused_and_other_files_are_read(make, path):
    files = read(f"x.{'tar' if make is tar else 'zip'}", make({path: b"evil", "good.cif": b"data_good"}))
    assert files.pop("good.cif") == b"data_good"
    assert [("leads out of the archive" in text) for text in files.values()] == [True]


def test_file_that_is_too_large_is_refused_with_both_numbers():
    with pytest.raises(TableError, match=r"bomb\.cif\.gz: .*1,000 bytes.*--reading.largest-file"):
        read_bounded("bomb.cif.gz", io.BytesIO(gzip.compress(bytes(50 * MB))), 1000)
    for name in ("x.tar.gz", "x.zip"):
        content = {"big.cif": bytes(2 * MB), "small.cif": b"s"}
        files = read(name, zipped(content) if name == "x.zip" else tar(content, "w:gz"))
        assert files["small.cif"] == b"s"
        for fact in ("x.", "big.cif", "2,000,000", "1,000,000", "--reading.largest-file"):
            assert fact in files["big.cif"]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.zst", "x.zip"])
def test_decompression_bomb_is_stopped_at_the_limit(name):
    files = {f"{i}.cif": bytes(MB) for i in range(30)}
    bomb = {
        "x.tar.gz": lambda: tar(files, "w:gz"),
        "x.tar.zst": lambda: zstd(tar(files)),
        "x.zip": lambda: zipped(files),
    }[name]()
    files = read(name, bomb, largest_archive=10 * MB)
    assert len(files) <= 11
    for fact in (name, "10,000,000 bytes", "--reading.largest-archive"):
        assert fact in files[""]


@pytest.mark.parametrize("name", ARCHIVES)
def test_damaged_archive_gives_the_files_before_the_damage_and_an_error(name):
    files = read(name, ARCHIVES[name][: len(ARCHIVES[name]) // 2])
    assert any("damaged" in str(file) for file in files.values())
    assert all(content == CONTENT[member] for member, content in files.items() if isinstance(content, bytes))


def test_metadata_of_macos_is_left_out():
    assert list(read("x.zip", zipped({"__MACOSX/._y.cif": b"\0", "a/._y.cif": b"\0", "a/y.cif": b"y"}))) == ["a/y.cif"]


def test_archive_inside_an_archive_is_refused():
    assert "archive inside an archive" in read("x.zip", zipped({"y.tar.gz": b"anything"}))["y.tar.gz"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(ARCHIVES)), at=st.floats(0, 1), junk=st.binary(max_size=50))
def test_any_damage_ends_in_bytes_or_errors_of_one_line(name, at, junk):
    content = ARCHIVES[name]
    start = int(at * len(content))
    for file in read(name, content[:start] + junk + content[start + len(junk) :]).values():
        assert isinstance(file, bytes) or "\n" not in file
