"""A download from the Materials Project, piece by piece: which materials there are, and what becomes of each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mat2spec.config import GraphConfig
from mat2spec.config.materials_project import MaterialsProjectConfig
from mat2spec.data.ingest.batches import Outcome
from mat2spec.data.materials.schema import materials_table
from mat2spec.data.materials_project.client import Document, MaterialsProject
from mat2spec.data.materials_project.curves import Curve
from mat2spec.data.materials_project.ids import usual_id
from mat2spec.data.materials_project.labels import EDOS_COLUMNS, PHDOS_COLUMNS, Label, electronic_label, phonon_label
from mat2spec.data.materials_project.summaries import (
    FIELDS,
    Summary,
    properties,
    read_crystal,
    read_summary,
    summary_columns,
)
from mat2spec.errors import (
    ConfigError,
    Mat2SpecError,
    MissingError,
    ServiceError,
    SpectrumError,
    StructureError,
    TableError,
)
from mat2spec.storage.rejects import Reject, reject, reject_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph

Found = tuple[Summary, Crystal]


def list_materials(project: MaterialsProject, config: MaterialsProjectConfig) -> list[str]:
    """List the materials that meet the conditions, in an order of their own.

    Raises:
        ConfigError: If there are none, or the key or a condition is refused.
        ServiceError: If the Materials Project does not answer.
    """
    found: set[str] = set()
    unwanted = set(config.query.lacks)
    for page in project.list_materials(config.conditions, config.query.include_gnome):
        found |= {_name(document) for document in page if not unwanted & {*properties(document.get("has_props"))}}
    if not found:
        raise ConfigError("Materials Project: no material meets the conditions; loosen them")
    return sorted(found, key=lambda name: (len(name), name))


def read_ids(path: Path) -> list[str]:
    """Read a list of materials: lines of a text file, or column material_id of a CSV or Parquet file; the same twice counts once.

    Raises:
        TableError: If it cannot be read.
        ConfigError: If it holds something that is no id.
    """
    try:
        if path.suffix == ".parquet":
            listed = pq.read_table(path, columns=["material_id"])["material_id"].to_pylist()
        elif path.suffix == ".csv":
            listed = pa.csv.read_csv(path)["material_id"].to_pylist()
        else:
            listed = [
                line for line in map(str.strip, path.read_text().splitlines()) if line and not line.startswith("#")
            ]
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise TableError(f"{path}: the list of ids cannot be read ({str(error).strip().splitlines()[0]})") from None
    if not listed:
        raise TableError(f"{path}: lists no material")
    return list(dict.fromkeys(usual_id(str(name)) for name in listed))


def _name(document: Document) -> str:
    """Id of a document as tables have it.

    Raises:
        ServiceError: If it has none.
    """
    try:
        return usual_id(str(document.get("material_id")))
    except ConfigError as error:
        raise ServiceError(
            f"the Materials Project sent a document without an id ({error}); is there a newer mp-api?"
        ) from None


@dataclass(frozen=True)
class Fetching:
    """How the materials of a shard are fetched.

    Args:
        project: The Materials Project.
        config: What is wanted of it.
        source: What rows and rejects say of their origin.
    """

    project: MaterialsProject
    config: MaterialsProjectConfig
    source: str

    def fetch(self, material_ids: Sequence[str]) -> Outcome:
        """Fetch a shard: each material is a row or a reject.

        Raises:
            ServiceError: If the Materials Project does not answer; then nothing is known of any.
        """
        shard = _Shard(self.source)
        self._summaries(material_ids, shard)
        match self.config.what:
            case "edos":
                return self._electronic(shard)
            case "phdos":
                return self._phonons(shard)
        return shard.outcome([(summary, Label(crystal, {})) for summary, crystal in shard.found.values()], {})

    def _summaries(self, material_ids: Sequence[str], shard: "_Shard") -> None:
        size = self.config.download.ids_per_request
        for start in range(0, len(material_ids), size):
            wanted = material_ids[start : start + size]
            documents = {_name(document): document for document in self.project.summaries(wanted, FIELDS)}
            for name in wanted:
                if name in documents:
                    shard.keep(name, "summary", partial(self._read, documents[name]))
                else:
                    shard.refuse(
                        name,
                        "summary",
                        "the Materials Project has no such material, or has withdrawn it; look for its successor",
                    )

    def _read(self, document: Document) -> Found:
        summary = read_summary(document)
        crystal = read_crystal(summary)
        wanted = self.config.conditions.get("magnetic_ordering")
        if wanted and summary.ordering not in (
            wanted,
            None,
        ):  # the API does not ask where materials are named by their ids
            rule = f"its magnetic ordering is {summary.ordering}, not {wanted}"
            raise StructureError(crystal.material_id, f"{rule}; --magnetic-ordering any takes it")
        return summary, crystal

    def _electronic(self, shard: "_Shard") -> Outcome:
        nonmagnetic = self.config.conditions.get("magnetic_ordering") == "NM"
        tasks = {name: summary.dos.task_id for name, (summary, _) in shard.found.items()}
        make = partial(electronic_label, nonmagnetic=nonmagnetic)
        return shard.outcome(shard.labels("density of states", tasks, self.project.electronic_dos, make), EDOS_COLUMNS)

    def _phonons(self, shard: "_Shard") -> Outcome:
        method = self.config.phonon_method
        calculations = {
            name: next(iter(summary.phonon_ids.get(method, ())), None) for name, (summary, _) in shard.found.items()
        }
        fetch, make = partial(self.project.phonon_dos, method=method), partial(phonon_label, method=method)
        return shard.outcome(
            shard.labels(f"phonon density of states by {method}", calculations, fetch, make), PHDOS_COLUMNS
        )


@dataclass(frozen=True)
class _Shard:
    """Some materials on their way: what was found of them, and what was refused."""

    source: str
    found: dict[str, Found] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)

    def refuse(self, name: str, stage: str, rule: str) -> None:
        """Reject a material that is not there."""
        self.rejects.append(reject(name, self.source, stage, MissingError(name, rule)))

    def keep(self, name: str, stage: str, read: Callable[[], Found]) -> None:
        """Keep a material, or reject it."""
        try:
            self.found[name] = read()
        except Mat2SpecError as error:
            self.rejects.append(reject(name, self.source, stage, error))

    def labels(
        self,
        what: str,
        calculations: dict[str, str | None],
        fetch: Callable[[Sequence[str]], Iterable[tuple[str, Curve | str]]],
        make: Callable[[Summary, Crystal, Curve], Label],
    ) -> list[tuple[Summary, Label]]:
        """Fetch the curves of calculations, by material, and make labels of them; the others are rejects."""
        made: dict[str, tuple[Summary, Label]] = {}
        names: dict[str, list[str]] = {}
        for name, calculation in calculations.items():
            names.setdefault(calculation or "", []).append(name)
        for name in names.pop("", []):
            self.refuse(name, "dos", f"the Materials Project has no {what} of it; leave it out")
        for calculation, curve in fetch(list(names)):
            for name in names.pop(calculation):
                summary, crystal = self.found[name]
                try:
                    if isinstance(curve, str):
                        raise SpectrumError(name, f"the {what} of calculation {calculation} cannot be read: {curve}")
                    label = make(summary, crystal, curve)
                    build_graph(label.crystal, GraphConfig())  # a training takes no crystal that has no graph
                    made[name] = summary, label
                except Mat2SpecError as error:
                    self.rejects.append(reject(name, self.source, "label", error))
        for calculation, left in names.items():
            for name in left:
                self.refuse(
                    name, "dos", f"its {what}, calculation {calculation}, is not among the open data; leave it out"
                )
        return [made[name] for name in self.found if name in made]

    def outcome(self, labels: Sequence[tuple[Summary, Label]], columns: Mapping[str, pa.DataType]) -> Outcome:
        """Give the shard's rows, with some columns of labels, and its rejects."""
        further = summary_columns([summary.with_(label.columns) for summary, label in labels])
        further |= {
            name: pa.array([label.columns[name] for _, label in labels], kind) for name, kind in columns.items()
        }
        further |= {"source": pa.array([self.source] * len(labels), pa.string())}
        return Outcome(materials_table([label.crystal for _, label in labels], further), reject_table(self.rejects))
