"""Listing and fetching of materials of the Materials Project: each becomes a row or a reject."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa

from mat2spec.config import GraphConfig
from mat2spec.config.materials_project import MaterialsProjectConfig
from mat2spec.data.materials.schema import PRIMITIVE_SITES, materials_table, primitive_sites
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
from mat2spec.data.shards.step import ShardTables
from mat2spec.errors import (
    ConfigError,
    Mat2SpecError,
    MissingError,
    ServiceError,
    SpectrumError,
    StructureError,
    TableError,
)
from mat2spec.storage.location import error_reason
from mat2spec.storage.rejects import Reject, reject, reject_table
from mat2spec.storage.tables import read_csv, read_parquet_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.structure.readers.names import is_parquet, is_table

Material = tuple[Summary, Crystal]


def list_materials(project: MaterialsProject, config: MaterialsProjectConfig) -> list[str]:
    """List the ids of materials that meet the conditions, sorted by length and then alphabetically.

    Raises:
        ConfigError: If there are none, or the key or a condition is refused.
        ServiceError: If the Materials Project does not answer.
    """
    ids: set[str] = set()
    unwanted = set(config.query.lacks)
    for page in project.list_materials(config.conditions, config.query.include_gnome):
        ids |= {_material_id(document) for document in page if not unwanted & {*properties(document.get("has_props"))}}
    if not ids:
        raise ConfigError("Materials Project: no material meets the conditions; loosen them")
    return sorted(ids, key=lambda material_id: (len(material_id), material_id))


def read_ids(path: Path) -> list[str]:
    """Read a list of ids without repetitions: lines of a text file, or column material_id of a CSV or Parquet file.

    Raises:
        TableError: If it cannot be read.
        ConfigError: If an entry is not an id.
    """
    try:
        if is_table(path.name):
            table = read_parquet_table(str(path)) if is_parquet(path.name) else read_csv(str(path), ("material_id",))
            ids = table["material_id"].to_pylist()
        else:
            lines = map(str.strip, path.read_text().splitlines())
            ids = [line for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise TableError(f"{path}: the list of ids cannot be read ({error_reason(error)})") from None
    if not ids:
        raise TableError(f"{path}: lists no material")
    return list(dict.fromkeys(usual_id(str(material_id)) for material_id in ids))


def _material_id(document: Document) -> str:
    """Id of a document in the form of our tables.

    Raises:
        ServiceError: If it has none.
    """
    try:
        return usual_id(str(document.get("material_id")))
    except ConfigError as error:
        rule = f"sent a document without an id ({error}); is there a newer mp-api?"
        raise ServiceError(f"the Materials Project {rule}") from None


@dataclass(frozen=True)
class ShardFetcher:
    """Fetches the materials of a shard.

    Args:
        project: The Materials Project.
        config: Kind of rows, conditions and sizes of requests.
        source: Origin, as rows and rejects name it.
    """

    project: MaterialsProject
    config: MaterialsProjectConfig
    source: str

    def fetch(self, material_ids: Sequence[str]) -> ShardTables:
        """Fetch a shard: each material becomes a row or a reject.

        Raises:
            ServiceError: If the Materials Project does not answer; then the whole shard is undecided.
        """
        shard = _Shard(self.source)
        self._fetch_summaries(material_ids, shard)
        match self.config.what:
            case "edos":
                return self._electronic(shard)
            case "phdos":
                return self._phonons(shard)
        return shard.tables([(summary, Label(crystal, {})) for summary, crystal in shard.materials.values()], {})

    def _fetch_summaries(self, material_ids: Sequence[str], shard: "_Shard") -> None:
        size = self.config.download.ids_per_request
        for start in range(0, len(material_ids), size):
            requested = material_ids[start : start + size]
            summaries = self.project.summaries(requested, FIELDS)
            documents = {_material_id(document): document for document in summaries}
            for material_id in requested:
                if material_id in documents:
                    shard.add(material_id, partial(self._read, documents[material_id]))
                else:
                    rule = "the Materials Project does not have this material, or has withdrawn it"
                    shard.reject_missing(material_id, "summary", f"{rule}; look for its successor")

    def _read(self, document: Document) -> Material:
        summary = read_summary(document)
        crystal = read_crystal(summary)
        ordering = self.config.conditions.get("magnetic_ordering")
        # the API ignores this condition where materials are requested by id
        if ordering and summary.ordering not in (ordering, None):
            rule = f"its magnetic ordering is {summary.ordering}, not {ordering}"
            raise StructureError(crystal.material_id, f"{rule}; --query.magnetic-ordering any accepts it")
        return summary, crystal

    def _electronic(self, shard: "_Shard") -> ShardTables:
        nonmagnetic = self.config.conditions.get("magnetic_ordering") == "NM"
        tasks = {material_id: summary.dos.task_id for material_id, (summary, _) in shard.materials.items()}
        make_label = partial(electronic_label, nonmagnetic=nonmagnetic)
        labels = shard.make_labels("density of states", tasks, self.project.electronic_dos, make_label)
        return shard.tables(labels, EDOS_COLUMNS)

    def _phonons(self, shard: "_Shard") -> ShardTables:
        method = self.config.phonon_method
        calculations = {
            material_id: next(iter(summary.phonon_ids.get(method, ())), None)
            for material_id, (summary, _) in shard.materials.items()
        }
        fetch = partial(self.project.phonon_dos, method=method)
        make_label = partial(phonon_label, method=method)
        labels = shard.make_labels(f"phonon density of states by {method}", calculations, fetch, make_label)
        return shard.tables(labels, PHDOS_COLUMNS)


@dataclass(frozen=True)
class _Shard:
    """Materials of a shard that could be read so far, and rejects."""

    source: str
    materials: dict[str, Material] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)

    def add(self, material_id: str, read: Callable[[], Material]) -> None:
        """Read a material and add it, or reject it."""
        try:
            self.materials[material_id] = read()
        except Mat2SpecError as error:
            self.rejects.append(reject(material_id, self.source, "summary", error))

    def reject_missing(self, material_id: str, stage: str, rule: str) -> None:
        """Reject a material of which something does not exist."""
        self.rejects.append(reject(material_id, self.source, stage, MissingError(material_id, rule)))

    def make_labels(
        self,
        kind: str,
        calculations: dict[str, str | None],
        fetch: Callable[[Sequence[str]], Iterable[tuple[str, Curve | str]]],
        make_label: Callable[[Summary, Crystal, Curve], Label],
    ) -> list[tuple[Summary, Label]]:
        """Fetch curves and make labels of them; materials without a label become rejects.

        Args:
            kind: Kind of the curves, for errors.
            calculations: Id of the calculation of each material, or None.
            fetch: Fetches the curves of calculations.
            make_label: Makes a label of a curve.
        """
        labels: dict[str, tuple[Summary, Label]] = {}
        materials_of: dict[str, list[str]] = {}
        for material_id, calculation in calculations.items():
            materials_of.setdefault(calculation or "", []).append(material_id)
        for material_id in materials_of.pop("", []):
            self.reject_missing(material_id, "dos", f"the Materials Project has no {kind} of it; leave it out")
        for calculation, curve in fetch(list(materials_of)):
            for material_id in materials_of.pop(calculation):
                summary, crystal = self.materials[material_id]
                try:
                    if isinstance(curve, str):
                        raise SpectrumError(material_id, f"the {kind} of calculation {calculation}: {curve}")
                    label = make_label(summary, crystal, curve)
                    build_graph(label.crystal, GraphConfig())  # training refuses a crystal without a graph
                    labels[material_id] = summary, label
                except Mat2SpecError as error:
                    self.rejects.append(reject(material_id, self.source, "label", error))
        for calculation, material_ids in materials_of.items():
            rule = f"its {kind}, calculation {calculation}, is not in the open data; leave it out"
            for material_id in material_ids:
                self.reject_missing(material_id, "dos", rule)
        return [labels[material_id] for material_id in self.materials if material_id in labels]

    def tables(self, labels: Sequence[tuple[Summary, Label]], label_columns: Mapping[str, pa.DataType]) -> ShardTables:
        """Tables of the shard's rows, with columns of their labels, and of its rejects."""
        extra_columns = summary_columns([summary.with_(label.columns) for summary, label in labels])
        for name, kind in label_columns.items():
            extra_columns[name] = pa.array([label.columns[name] for _, label in labels], kind)
        extra_columns["source"] = pa.array([self.source] * len(labels), pa.string())
        crystals = [label.crystal for _, label in labels]
        extra_columns[PRIMITIVE_SITES] = primitive_sites(crystals)
        materials = materials_table(crystals, extra_columns)
        return ShardTables(materials, reject_table(self.rejects))
