"""The Materials Project: the door to mp-api, with patience for a server that is busy, and one line for whatever is wrong."""

import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from typing import Any

import pyarrow as pa
from pymatgen.core import SETTINGS

from mat2spec.config.materials_project import DownloadConfig
from mat2spec.data.materials_project.curves import Curve, electronic_curve, phonon_curve
from mat2spec.data.materials_project.ids import stored_ids
from mat2spec.data.materials_project.retry import Patience
from mat2spec.errors import ConfigError, ServiceError

Document = dict[str, Any]

KEY_LENGTH = 32
"""Characters of an API key; those of the API that was shut down in 2024 have 16."""

PAGE = 1000
"""Documents of a listing in one answer: what the API gives at most."""

_BUCKET = "materialsproject-parsed"
_ELECTRONIC, _PHONON = "core/electronic-structure/total-dos/", "phonon/electronic-structure/dos/"

_WAY_OUT = "get one at https://materialsproject.org/api and set MP_API_KEY, or PMG_MAPI_KEY in ~/.config/.pmgrc.yaml"


@dataclass(frozen=True)
class MaterialsProject:
    """The API and its tables of spectra, asked with one key; safe to be used by several threads.

    Args:
        key: API key; it appears in no message.
        config: How it is asked.

    Raises:
        ConfigError: If the key is refused, or the request.
        ServiceError: If there is no answer for as long as patience lasts.
    """

    key: str = field(repr=False)
    config: DownloadConfig
    _clients: threading.local = field(default_factory=threading.local, repr=False)
    _making: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def _patience(self) -> Patience:
        """mp-api itself repeats 429, 502 and 504 three times, at once or when Retry-After says so; it leaves the rest to us."""
        return Patience("Materials Project", self.config.patience, self.config.requests_per_second, self._problem)

    @cached_property
    def database_version(self) -> str:
        """Release of the database, "unknown" where the server's heartbeat is kept from us (some networks are)."""
        return self._patience.ask(lambda: self._client("summary").db_version) or "unknown"

    def stop(self) -> None:
        """Let other threads be patient no longer."""
        self._patience.stop()

    @property
    def endpoint(self) -> str:
        """Address of the API."""
        return self._client("summary").base_endpoint

    def list_materials(self, conditions: Document, include_gnome: bool) -> Iterator[list[Document]]:
        """List what meets conditions, page by page: documents with material_id and has_props.

        Args:
            conditions: As `QueryConfig.conditions` has them.
            include_gnome: Whether those of GNoME count.
        """
        asked = {"deprecated": False, "include_gnome": include_gnome, **_as_parameters(conditions)}
        fixed = {"fields": ["material_id", "has_props"], "chunk_size": PAGE, "_sort_fields": "material_id"}
        before: list[Document] = []
        for page in count(1):
            documents = self._patience.ask(partial(self._search, **asked, **fixed, _page=page))
            if not documents:  # not where a page is short: a server may give less than it is asked for
                return
            if documents == before:
                raise ServiceError(
                    "the Materials Project gives one page of its listing again and again; is there a newer mp-api?"
                )
            before = documents
            yield documents

    def summaries(self, material_ids: Sequence[str], fields: Sequence[str]) -> list[Document]:
        """Fetch the summaries of materials, those that there are, in any order."""
        options = {
            "material_ids": list(material_ids),
            "fields": list(fields),
            "deprecated": False,
            "chunk_size": len(material_ids),
        }
        return self._patience.ask(partial(self._search, **options))

    def electronic_dos(self, task_ids: Sequence[str]) -> Iterator[tuple[str, Curve | str]]:
        """Fetch total electronic densities of states: task id and curve, or what is wrong with it, for those that there are."""
        columns = (
            "identifier",
            "run_type",
            "structure",
            "efermi",
            "energies",
            "spin_up_densities",
            "spin_down_densities",
        )
        for identifier, document in self._spectra("dos", _ELECTRONIC, task_ids, columns):
            yield identifier, electronic_curve(document)

    def phonon_dos(self, phonon_ids: Sequence[str], method: str) -> Iterator[tuple[str, Curve | str]]:
        """Fetch phonon densities of states: phonon id and curve, or what is wrong with it, for those that there are."""
        columns, further = ("identifier", "dos"), f"AND phonon_method = '{method}'"
        for identifier, document in self._spectra("phonon", _PHONON, phonon_ids, columns, further):
            yield identifier, phonon_curve(document)

    def _spectra(
        self, client: str, prefix: str, ids: Sequence[str], columns: Sequence[str], further: str = ""
    ) -> Iterator[tuple[str, Document]]:
        """Look ids up in a table of S3, all at once: one by one, as the client's own methods do, each would read the table's index anew."""
        names = dict(zip(stored_ids(ids), ids, strict=True))
        if not names:
            return
        found = self._patience.ask(lambda: self._query(self._client(client), prefix, list(names), columns, further))
        for row in range(len(found)):  # row by row, as Python's numbers take eight times the space of Arrow's
            document = found.slice(row, 1).to_pylist(maps_as_pydicts="strict")[0]
            if name := names.pop(document["identifier"], ""):  # of several, mp-api too takes the first
                yield name, document

    def _search(self, **options: Any) -> list[Document]:
        found = self._client("summary").search(**options)
        if not (isinstance(found, list) and all(isinstance(document, dict) for document in found)):
            raise ValueError("the answer holds no list of documents")
        return found

    def _query(self, client: Any, prefix: str, stored: Sequence[str], columns: Sequence[str], further: str) -> pa.Table:
        name, table = client._get_delta_table(_BUCKET, prefix)
        there = [column.name for column in table.schema().fields]
        if missing := {columns[0], columns[-1]} - set(there):
            raise ServiceError(
                f"the table of spectra at s3://{_BUCKET}/{prefix} lacks {', '.join(missing)}; is there a newer mp-api?"
            )
        wanted = ", ".join(f"'{identifier}'" for identifier in stored)  # letters only
        chosen = ", ".join(column for column in columns if column in there)
        return client._query_delta_single(f"SELECT {chosen} FROM {name} WHERE identifier IN ({wanted}) {further}")

    def _client(self, name: str) -> Any:
        """This thread's client of a part of the API; sessions and query builders are not made to be shared."""
        if not hasattr(self._clients, name):
            kind = _client_kinds()[name]
            with self._making, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a heartbeat that is kept from us
                made = kind(
                    api_key=self.key,
                    endpoint=self.config.endpoint,
                    use_document_model=False,
                    mute_progress_bars=True,
                    timeout=self.config.timeout,
                )
            setattr(self._clients, name, made)
        return getattr(self._clients, name)

    def _problem(self, error: Exception) -> str:
        """Say in a line what happened, without the key.

        Raises:
            ConfigError: If it will happen again, and the user can change it.
            ServiceError: If it will happen again.
        """
        if type(error).__name__ == "TableNotFoundError":
            raise ServiceError(f"the table of spectra is no longer in s3://{_BUCKET}; is there a newer mp-api?")
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).replace(self.key, "(the key)")
        text = " ".join(text.split()) or type(error).__name__
        if status := re.search(r"error status code (\d{3}) on URL \S+ with message: (?:Response )?(.*)", text):
            text = f"{status[1]}: {status[2][:200]}"
        if status and status[1] in ("401", "403"):
            raise ConfigError(f"Materials Project: the API key is refused ({text}); {_WAY_OUT}")
        if (status and status[1] in ("404", "413", "414", "422")) or text.startswith(
            "The server does not support the request"
        ):
            raise ConfigError(f"Materials Project: the query is refused ({text[:300]}); correct it, or update mp-api")
        cause = re.search(r"\(Caused by (.*)\)", text)  # what matters comes after a long address
        return text if status else f"{type(error).__name__}: {(cause[1] if cause else text)[:200]}"


def read_key() -> str:
    """Find the user's key as mp-api and pymatgen do: MP_API_KEY, else PMG_MAPI_KEY in pymatgen's settings.

    Raises:
        ConfigError: If there is none, or it is none of this API.
    """
    key = (os.environ.get("MP_API_KEY") or SETTINGS.get("PMG_MAPI_KEY") or "").strip()
    if not key:
        raise ConfigError(f"Materials Project: no API key; {_WAY_OUT}")
    if len(key) != KEY_LENGTH or not key.isascii() or not key.isalnum():
        raise ConfigError(
            f"Materials Project: the API key has {len(key)} characters, must be {KEY_LENGTH} letters and digits; {_WAY_OUT}"
        )
    return key


def _client_kinds() -> dict[str, Any]:
    from mp_api.client.routes.materials.electronic_structure import DosRester
    from mp_api.client.routes.materials.phonon import PhononRester
    from mp_api.client.routes.materials.summary import SummaryRester

    return {"summary": SummaryRester, "dos": DosRester, "phonon": PhononRester}


def _as_parameters(conditions: Document) -> Document:
    """Conditions as `SummaryRester.search` takes them."""
    from pymatgen.analysis.magnetism.analyzer import Ordering

    found = {
        name: list(value) if isinstance(value, tuple) and name in _LISTS else value
        for name, value in conditions.items()
    }
    found.pop("lacks", None)  # the API does not know it
    if "has" in found:
        found["has_props"] = found.pop("has")
    if "magnetic_ordering" in found:
        found["magnetic_ordering"] = Ordering(found["magnetic_ordering"])
    return found


_LISTS = ("chemsys", "elements", "exclude_elements", "has")
