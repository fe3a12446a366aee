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
    found = read_archive(name, io.BytesIO(content), largest_file, largest_archive)
    return {member: str(what) if isinstance(what, TableError) else what for member, what in found}


ARCHIVES = {
    "x.tar": tar(FILES),
    "x.tar.gz": tar(FILES, "w:gz"),
    "x.tgz": tar(FILES, "w:gz"),
    "x.tar.bz2": tar(FILES, "w:bz2"),
    "x.tar.zst": zstd(tar(FILES)),
    "x.zip": zipped(FILES),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_file_of_an_archive_is_read_in_its_order(name):
    assert is_archive(name)
    assert list(read(name, ARCHIVES[name]).items()) == list(CONTENT.items())


@pytest.mark.parametrize(
    ("name", "compress"),
    [("a.cif.gz", gzip.compress), ("a.cif.zst", zstd), ("a.cif.bz2", bz2.compress), ("a.cif", bytes)],
)
def test_compressed_file_is_what_was_compressed(name, compress):
    assert not is_archive(name)
    assert without_compression(name) == "a.cif"
    assert read_bounded(name, io.BytesIO(compress(b"data_x\n")), 100) == b"data_x\n"


@pytest.mark.parametrize("path", ["../../etc/passwd.cif", "/etc/one.cif", "a/../../b.cif", "..\\b.cif"])
@pytest.mark.parametrize("make", [tar, zipped], ids=["tar", "zip"])
def test_path_that_leads_out_of_an_archive_is_refused_and_its_neighbours_are_read(make, path):
    found = read(f"x.{'tar' if make is tar else 'zip'}", make({path: b"evil", "good.cif": b"data_good"}))
    assert found.pop("good.cif") == b"data_good"
    assert [("its path leads out of the archive" in text) for text in found.values()] == [True]


def test_file_that_is_too_large_is_refused_with_both_numbers():
    with pytest.raises(TableError, match="more than 1,000 bytes; split it, or raise --largest-file"):
        read_bounded("bomb.cif.gz", io.BytesIO(gzip.compress(bytes(50 * MB))), 1000)
    for name in ("x.tar.gz", "x.zip"):
        found = read(
            name,
            tar({"big.cif": bytes(2 * MB), "small.cif": b"s"}, "w:gz")
            if name != "x.zip"
            else zipped({"big.cif": bytes(2 * MB), "small.cif": b"s"}),
        )
        assert found["small.cif"] == b"s"
        assert "2,000,000 bytes are more than 1,000,000" in found["big.cif"]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.zst", "x.zip"])
def test_bomb_is_bounded_by_what_comes_out_of_it(name):
    files = {f"{i}.cif": bytes(MB) for i in range(30)}
    bomb = {
        "x.tar.gz": lambda: tar(files, "w:gz"),
        "x.tar.zst": lambda: zstd(tar(files)),
        "x.zip": lambda: zipped(files),
    }[name]()
    found = read(name, bomb, largest_archive=10 * MB)
    assert len(found) <= 11
    assert "more than 10,000,000 bytes come out of it" in found[""]


@pytest.mark.parametrize("name", ARCHIVES)
def test_damaged_archive_gives_what_came_before_and_a_reason(name):
    found = read(name, ARCHIVES[name][: len(ARCHIVES[name]) // 2])
    assert any("damaged" in str(what) for what in found.values())
    assert all(content == CONTENT[member] for member, content in found.items() if isinstance(content, bytes))


def test_what_macos_puts_beside_each_file_is_left_out():
    assert list(read("x.zip", zipped({"__MACOSX/._y.cif": b"\0", "a/._y.cif": b"\0", "a/y.cif": b"y"}))) == ["a/y.cif"]


def test_archive_in_an_archive_is_refused():
    assert "an archive in an archive" in read("x.zip", zipped({"y.tar.gz": b"anything"}))["y.tar.gz"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(ARCHIVES)), at=st.floats(0, 1), junk=st.binary(max_size=50))
def test_any_damage_ends_in_bytes_or_reasons(name, at, junk):
    content = ARCHIVES[name]
    place = int(at * len(content))
    for what in read(name, content[:place] + junk + content[place + len(junk) :]).values():
        assert isinstance(what, bytes) or "\n" not in what
