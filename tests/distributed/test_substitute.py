"""Candidates of a table: every parent is accounted for, whatever the shards, after a kill, with and without Ray."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import mat2spec.distributed.ingest.substitute
from mat2spec.config.substitution import SubstituteConfig
from mat2spec.config.validation import validate
from mat2spec.distributed.ingest.substitute import substitute
from mat2spec.errors import ConfigError, RunError, TableError
from mat2spec.storage.run_directory import RunDirectory

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PARENTS = 402
"""The real ones, a duplicate, and one without a lattice."""


def config_of(**values: object) -> SubstituteConfig:
    return validate(SubstituteConfig, {"table": "table", "output": "output", "element": "K,Na"} | values, "test")


@pytest.fixture(scope="module")
def table(materials: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 real structures, a duplicate of one, and one without a lattice, in a directory as an ingestion writes it."""
    broken = materials.slice(5, 1).to_pylist()[0] | {"material_id": "broken", "lattice": None}
    schema = materials.schema.set(
        materials.schema.get_field_index("lattice"), pa.field("lattice", pa.list_(pa.float64()))
    )
    directory = tmp_path_factory.mktemp("ingested")
    (directory / "materials").mkdir()
    rows = [*materials.to_pylist(), materials.slice(3, 1).to_pylist()[0], broken]
    pq.write_table(pa.Table.from_pylist(rows, schema), directory / "materials" / "part-000000.parquet")
    (directory / "rejects").mkdir()
    pq.write_table(pa.table({"material_id": ["rejected"]}), directory / "rejects" / "part-000000.parquet")
    return directory


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in this process, however many shards there are."""
    monkeypatch.setattr(mat2spec.distributed.ingest.substitute, "SHARDS_WITHOUT_RAY", 1000)


@pytest.fixture(scope="module")
def whole(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run with a single shard."""
    output = tmp_path_factory.mktemp("whole") / "out"
    substitute(config_of(), table, output)
    return output


def rows_of(output: Path, folder: str = "materials") -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in (output / folder).glob("*.parquet")]).sort_by(
        "material_id"
    )


def counts_of(output: Path) -> dict[str, int]:
    return json.loads((output / "run.json").read_text())["counts"]


def test_every_parent_has_candidates_or_none_or_is_a_reject(whole):
    counts = counts_of(whole)
    assert counts["input"] == PARENTS
    assert counts["parents_with_candidates"] + counts["parents_without"] + counts["rejects"] == PARENTS
    assert counts["made"] == counts["materials"] + counts["duplicates"] + counts["known"]
    assert (len(rows_of(whole)), len(rows_of(whole, "rejects"))) == (counts["materials"], counts["rejects"])
    rejects = {row["material_id"]: row for row in rows_of(whole, "rejects").to_pylist()}
    assert rejects["broken"]["error_type"] == "StructureError"
    assert "lattice" in rejects["broken"]["error"]
    assert [row["error_type"] for row in rejects.values()].count("TableError") == 1, "the duplicate"


def test_no_temporary_files_remain(whole):
    assert {path.name for path in whole.iterdir()} == {"run.json", "materials", "rejects"}


def test_lineage_names_a_parent_of_the_table(whole, materials):
    candidates = rows_of(whole)
    assert set(candidates["parent_id"].to_pylist()) <= set(materials["material_id"].to_pylist())
    assert len(set(candidates["material_id"].to_pylist())) == len(candidates)
    assert candidates["known_as"].null_count == len(candidates), "known structures are dropped"


@pytest.mark.usefixtures("_without_ray")
def test_candidates_do_not_depend_on_the_shards(whole, table, tmp_path):
    substitute(config_of(rows_per_shard=60), table, tmp_path / "out")
    assert len(list((tmp_path / "out/materials").glob("*.parquet"))) > 1
    assert rows_of(tmp_path / "out").equals(rows_of(whole))
    assert rows_of(tmp_path / "out", "rejects").equals(rows_of(whole, "rejects"))


def test_candidates_are_the_same_with_ray(whole, table, tmp_path):
    substitute(config_of(rows_per_shard=210), table, tmp_path / "out")
    assert rows_of(tmp_path / "out").equals(rows_of(whole))


@pytest.mark.usefixtures("_without_ray")
@pytest.mark.parametrize(("step", "shards"), [("candidates", 3), ("distinct", 1)])
def test_interrupted_run_resumes_to_the_same_result(whole, table, tmp_path, monkeypatch, step, shards):
    done: list[str] = []
    again: list[str] = []

    def commit(self, name, results, rejects, commit=RunDirectory.commit):
        is_step = self.path.name == step
        if is_step and not again and len(done) == shards:
            raise KeyboardInterrupt
        commit(self, name, results, rejects)
        if is_step:
            done.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            substitute(config_of(rows_per_shard=60), table, tmp_path / "out")
    assert not list((tmp_path / "out/materials").glob("*.parquet"))
    first, done = done, []
    again.append("now it may finish")
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "commit", commit)
        substitute(config_of(rows_per_shard=60), table, tmp_path / "out")
    assert done
    assert not set(first) & set(done), "finished shards are not done again"
    assert rows_of(tmp_path / "out").equals(rows_of(whole))


@pytest.mark.usefixtures("_without_ray")
def test_parents_that_kill_their_process_are_rejects(whole, table, tmp_path, inject_faults):
    victim = rows_of(whole)["parent_id"][0].as_py()
    with inject_faults({victim: "substitute:segv"}):
        substitute(config_of(), table, tmp_path / "out")
    rejects = {row["material_id"]: row for row in rows_of(tmp_path / "out", "rejects").to_pylist()}
    assert (rejects[victim]["error_type"], rejects[victim]["stage"]) == ("WorkerDiedError", "substitute")
    parents, expected = (set(rows_of(output)["parent_id"].to_pylist()) for output in (tmp_path / "out", whole))
    assert parents == expected - {victim}
    assert counts_of(tmp_path / "out")["rejects"] == counts_of(whole)["rejects"] + 1


def test_finished_run_prints_its_summary_again(whole, table):
    before = (whole / "run.json").stat().st_mtime_ns
    counts = counts_of(whole)
    summary = substitute(config_of(), table, whole)
    assert summary.startswith(f"{PARENTS} parents ")
    assert f"{counts['materials']} candidates in {whole}" in summary
    assert (whole / "run.json").stat().st_mtime_ns == before


def test_other_elements_need_another_directory(whole, table):
    with pytest.raises(RunError, match="holds another run"):
        substitute(config_of(element="Li"), table, whole)


def test_limit_keeps_the_most_probable(whole, table, tmp_path):
    substitute(config_of(limit=20), table, tmp_path / "out")
    ranked = rows_of(whole).sort_by([("probability", "descending"), ("material_id", "ascending")])
    assert rows_of(tmp_path / "out").equals(ranked.slice(0, 20).sort_by("material_id"))
    assert counts_of(tmp_path / "out")["beyond_limit"] == len(ranked) - 20


def test_known_structures_are_marked_on_request(whole, table, tmp_path):
    substitute(config_of(known="mark"), table, tmp_path / "out")
    marked = rows_of(tmp_path / "out")
    assert marked.filter(pc.field("known_as").is_null()).equals(rows_of(whole))
    assert len(marked) - marked["known_as"].null_count == counts_of(whole)["known"] > 0


def test_folder_may_have_any_name(whole, table, tmp_path):
    """Neither a pattern, nor a partition whose key replaces a column."""
    output = tmp_path / "[x]" / "formula_pretty=NaCl" / "out"
    substitute(config_of(), table, output)
    assert rows_of(output).equals(rows_of(whole))


def test_table_without_an_ionic_compound_gives_an_empty_table(materials, tmp_path):
    silicon = materials.filter(pc.field("formula_pretty") == "Si").slice(0, 3)
    pq.write_table(silicon, tmp_path / "silicon.parquet")
    substitute(config_of(limit=5), tmp_path / "silicon.parquet", tmp_path / "out")
    assert (len(rows_of(tmp_path / "out")), len(rows_of(tmp_path / "out", "rejects"))) == (0, len(silicon))


def test_structure_files_are_refused_with_the_command_that_ingests_them(tmp_path):
    (tmp_path / "a.cif").write_text("data_a\n")
    with pytest.raises(TableError, match=rf"{tmp_path}/a\.cif: .*mat2spec ingest files"):
        substitute(config_of(), tmp_path / "a.cif", tmp_path / "out")


def test_refused_settings_write_nothing(table, tmp_path):
    with pytest.raises(ConfigError, match="no ion of He"):
        substitute(config_of(element="He"), table, tmp_path / "out")
    assert not (tmp_path / "out").exists()
