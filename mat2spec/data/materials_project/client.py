"""Client of the Materials Project: mp-api with retries, a rate limit and errors of one line."""

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
from mat2spec.data.materials_project.retry import RetryPolicy
from mat2spec.errors import ConfigError, ServiceError

Document = dict[str, Any]

KEY_LENGTH = 32
"""Characters of an API key; those of the API that was shut down in 2024 have 16."""

PAGE = 1000
"""Documents per page of a listing, the maximum of the API."""

_BUCKET = "materialsproject-parsed"
_ELECTRONIC = "core/electronic-structure/total-dos/"
_PHONON = "phonon/electronic-structure/dos/"

_WAY_OUT = "get one at https://materialsproject.org/api and set MP_API_KEY, or PMG_MAPI_KEY in ~/.config/.pmgrc.yaml"


@dataclass(frozen=True)
class MaterialsProject:
    """The API and its tables of spectra, with one key. It can be used by several threads.

    Args:
        key: API key; it appears in no message.
        config: Size, rate and retries of requests.

    Raises:
        ConfigError: If the key or the request is refused.
        ServiceError: If requests still fail after the retry timeout.
    """

    key: str = field(repr=False)
    config: DownloadConfig
    _clients: threading.local = field(default_factory=threading.local, repr=False)
    _client_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def _retries(self) -> RetryPolicy:
        """Retries beyond those of mp-api, which repeats 429, 502 and 504 three times, at once or after Retry-After."""
        rate = self.config.requests_per_second
        return RetryPolicy("Materials Project", self.config.retry_timeout, rate, self._describe)

    @cached_property
    def database_version(self) -> str:
        """Release of the database; "unknown" where the server's heartbeat cannot be reached, as on some networks."""
        return self._retries.run(lambda: self._client("summary").db_version) or "unknown"

    def stop(self) -> None:
        """End the retries of all threads."""
        self._retries.stop()

    @property
    def endpoint(self) -> str:
        """Address of the API."""
        return self._client("summary").base_endpoint

    def list_materials(self, conditions: Document, include_gnome: bool) -> Iterator[list[Document]]:
        """List materials that meet the conditions, page by page: documents with material_id and has_props.

        Args:
            conditions: As `QueryConfig.conditions` returns them.
            include_gnome: Whether materials of GNoME are included.
        """
        query = {"deprecated": False, "include_gnome": include_gnome, **_as_parameters(conditions)}
        fixed = {"fields": ["material_id", "has_props"], "chunk_size": PAGE, "_sort_fields": "material_id"}
        previous: list[Document] = []
        for page in count(1):
            documents = self._retries.run(partial(self._search, **query, **fixed, _page=page))
            if not documents:  # a short page is no end: a server may return less than requested
                return
            if documents == previous:
                rule = "returned the same page of its listing twice; is there a newer mp-api?"
                raise ServiceError(f"the Materials Project {rule}")
            previous = documents
            yield documents

    def summaries(self, material_ids: Sequence[str], fields: Sequence[str]) -> list[Document]:
        """Fetch the summaries of materials, in any order; those that do not exist are missing."""
        options = {
            "material_ids": list(material_ids),
            "fields": list(fields),
            "deprecated": False,
            "chunk_size": len(material_ids),
        }
        return self._retries.run(partial(self._search, **options))

    def electronic_dos(self, task_ids: Sequence[str]) -> Iterator[tuple[str, Curve | str]]:
        """Fetch electronic densities of states that exist: task id, and curve or the reason why it cannot be read."""
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
        """Fetch phonon densities of states that exist: phonon id, and curve or the reason why it cannot be read."""
        of_method = f"AND phonon_method = '{method}'"
        for identifier, document in self._spectra("phonon", _PHONON, phonon_ids, ("identifier", "dos"), of_method):
            yield identifier, phonon_curve(document)

    def _spectra(
        self, client: str, prefix: str, ids: Sequence[str], columns: Sequence[str], condition: str = ""
    ) -> Iterator[tuple[str, Document]]:
        """Look up ids in a table on S3, all at once: one by one, each would read the index of the table again."""
        names = dict(zip(stored_ids(ids), ids, strict=True))
        if not names:
            return
        rows = self._retries.run(lambda: self._query(self._client(client), prefix, list(names), columns, condition))
        for position in range(len(rows)):  # row by row: Python's numbers take eight times the memory of Arrow's
            document = rows.slice(position, 1).to_pylist(maps_as_pydicts="strict")[0]
            if name := names.pop(document["identifier"], ""):  # of several rows the first, as in mp-api
                yield name, document

    def _search(self, **options: Any) -> list[Document]:
        documents = self._client("summary").search(**options)
        if not (isinstance(documents, list) and all(isinstance(document, dict) for document in documents)):
            raise ValueError("the answer is not a list of documents")
        return documents

    def _query(self, client: Any, prefix: str, ids: Sequence[str], columns: Sequence[str], condition: str) -> pa.Table:
        name, table = client._get_delta_table(_BUCKET, prefix)
        existing = [column.name for column in table.schema().fields]
        if missing := {columns[0], columns[-1]} - set(existing):
            path = f"s3://{_BUCKET}/{prefix}"
            raise ServiceError(f"the table of spectra at {path} lacks {', '.join(missing)}; is there a newer mp-api?")
        identifiers = ", ".join(f"'{identifier}'" for identifier in ids)  # letters only
        selected = ", ".join(column for column in columns if column in existing)
        where = f"WHERE identifier IN ({identifiers}) {condition}"
        return client._query_delta_single(f"SELECT {selected} FROM {name} {where}")

    def _client(self, name: str) -> Any:
        """Client of a part of the API for this thread; sessions and query builders cannot be shared."""
        if not hasattr(self._clients, name):
            kind = _client_kinds()[name]
            with self._client_lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a heartbeat that cannot be reached
                client = kind(
                    api_key=self.key,
                    endpoint=self.config.endpoint,
                    use_document_model=False,
                    mute_progress_bars=True,
                    timeout=self.config.timeout,
                )
            setattr(self._clients, name, client)
        return getattr(self._clients, name)

    def _describe(self, error: Exception) -> str:
        """Describe a failure in a line, without the key.

        Raises:
            ConfigError: If a retry would fail too, and the user can change it.
            ServiceError: If a retry would fail too.
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
    """Read the key where mp-api and pymatgen do: MP_API_KEY, else PMG_MAPI_KEY in pymatgen's settings.

    Raises:
        ConfigError: If there is none, or it is not a key of this API.
    """
    key = (os.environ.get("MP_API_KEY") or SETTINGS.get("PMG_MAPI_KEY") or "").strip()
    if not key:
        raise ConfigError(f"Materials Project: no API key; {_WAY_OUT}")
    if len(key) != KEY_LENGTH or not key.isascii() or not key.isalnum():
        rule = f"the API key has {len(key)} characters, must be {KEY_LENGTH} letters and digits"
        raise ConfigError(f"Materials Project: {rule}; {_WAY_OUT}")
    return key


def _client_kinds() -> dict[str, Any]:
    from mp_api.client.routes.materials.electronic_structure import DosRester
    from mp_api.client.routes.materials.phonon import PhononRester
    from mp_api.client.routes.materials.summary import SummaryRester

    return {"summary": SummaryRester, "dos": DosRester, "phonon": PhononRester}


def _as_parameters(conditions: Document) -> Document:
    """Parameters of `SummaryRester.search` for conditions."""
    from pymatgen.analysis.magnetism.analyzer import Ordering

    parameters = {
        name: list(value) if isinstance(value, tuple) and name in _LISTS else value
        for name, value in conditions.items()
    }
    parameters.pop("lacks", None)  # not a parameter of the API
    if "has" in parameters:
        parameters["has_props"] = parameters.pop("has")
    if "magnetic_ordering" in parameters:
        parameters["magnetic_ordering"] = Ordering(parameters["magnetic_ordering"])
    return parameters


_LISTS = ("chemsys", "elements", "exclude_elements", "has")
