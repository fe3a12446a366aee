"""A fake Materials Project on this machine: its API, its tables of spectra on a local S3, and faults."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from emmet.core.mpid import AlphaID

KEY = "0123456789abcdefghijklmnopqrstuv"

BUCKET = "materialsproject-parsed"

RELEASE = "2025.09.25"


@dataclass
class Server:
    """State of the API: its documents, the faults to simulate, and the requests received.

    Args:
        documents: Summaries, as emmet's SummaryDoc.
        faults: Next failures of /materials/summary/: a status, or a name that `_Handler._fail` handles.
        requests: Queries of /materials/summary/ received, including failed ones.
        gate: Until it is set, requests for structures wait.
        before_gate: The first so many requests for structures do not wait.
    """

    documents: list[dict[str, Any]]
    faults: list[int | str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    before_gate: int = 0
    heartbeat: int = 200
    release: str = RELEASE
    url: str = ""

    def answer(self, query: dict[str, str]) -> dict[str, Any]:
        """Find, sort, page and project documents."""
        matches = [document for document in self.documents if _meets(document, query)]
        matches.sort(key=lambda document: document["material_id"])
        per_page = int(query.get("_per_page", query["_limit"]))
        skip = (int(query["_page"]) - 1) * per_page if "_page" in query else int(query.get("_skip", 0))
        fields = query["_fields"].split(",")
        return {
            "data": [_projected(document, fields) for document in matches[skip : skip + per_page]],
            "meta": {"total_doc": len(matches)},
        }

    def for_structures(self) -> list[dict[str, str]]:
        """Those of the requests that ask for structures."""
        return [query for query in self.requests if "structure" in query["_fields"]]

    def fetched(self) -> list[str]:
        """Ids of requested structures, in order and with repetitions."""
        return [name for query in self.for_structures() for name in query["material_ids"].split(",")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, server_state: Server) -> None:
        self.state = server_state
        super().__init__(*arguments)

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        if split.path == "/heartbeat":
            self._send(
                self.state.heartbeat,
                {"db_version": self.state.release, "access_controlled_batch_ids": [], "version": "0.87.3"},
            )
        elif self.headers.get("x-api-key") != KEY:
            self._send(403, {"message": f"Invalid authentication credentials: {self.headers.get('x-api-key')}"})
        elif split.path != "/materials/summary/":
            self._send(404, {"message": "no Route matched with those values"})
        else:
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            self.state.requests.append(query)
            if len(self.state.for_structures()) > self.state.before_gate:
                self.state.gate.wait(60)
            if self.state.faults:
                self._fail(self.state.faults.pop(0), query)
            else:
                self._send(200, self.state.answer(query))

    def _fail(self, fault: int | str, query: dict[str, str]) -> None:
        body = json.dumps(self.state.answer(query)).encode()
        if fault == "cut":  # the connection ends before the body does
            self._head(200, len(body))
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "half":  # half of the body, with a matching length, as from a faulty proxy
            self._head(200, len(body) // 2)
            self.wfile.write(body[: len(body) // 2])
        elif fault == "other":
            self._send(200, {"data": {"material_id": "mp-1"}, "meta": {"total_doc": 1}})
        elif fault == "expired":
            self._send(401, {"message": "Your API key has expired"})
        else:
            self._send(int(fault), {"detail": f"simulated failure {fault}"})

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self._head(status, len(body))
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be silent."""


def _meets(document: dict[str, Any], query: dict[str, str]) -> bool:
    """Whether a document meets a query, as the query operators of the API define it."""
    for name, value in query.items():
        if name.startswith("_"):
            continue
        if name.endswith(("_min", "_max")):
            number = document[name[:-4]]
            if not isinstance(number, float | int) or (
                number < float(value) if name.endswith("_min") else number > float(value)
            ):
                return False
        elif name == "material_ids":
            if AlphaID(document["material_id"]).string not in value.split(","):
                return False
        elif name == "has_props":
            if not all(document["has_props"][wanted] for wanted in value.split(",")):
                return False
        elif name == "chemsys":
            if document["chemsys"] not in value.split(","):
                return False
        elif name == "elements":
            if not set(value.split(",")) <= set(document["elements"]):
                return False
        elif name == "exclude_elements":
            if set(value.split(",")) & set(document["elements"]):
                return False
        elif name == "batch_id_not_eq":
            if document["builder_meta"]["batch_id"] == value:
                return False
        elif str(document[name]).lower() != value.lower():
            return False
    return True


def _projected(document: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    projection: dict[str, Any] = {}
    for name in fields:
        first, _, rest = name.partition(".")
        value = document.get(first)
        projection[first] = {rest: value.get(rest)} if rest and value is not None else value
    return projection


@contextmanager
def serve(documents: list[dict[str, Any]]) -> Iterator[Server]:
    """Run the API."""
    state = Server(documents)
    state.gate.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, server_state=state))
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.gate.set()
        server.shutdown()
        server.server_close()


@contextmanager
def object_store(port: int) -> Iterator[str]:
    """Run an S3 in its own process: deltalake holds the interpreter while it reads, so a thread could not answer."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < end, "moto did not start"
                time.sleep(0.05)
        try:
            yield url
        finally:
            process.kill()


def open_bucket(url: str) -> None:
    """Create the public bucket of the Materials Project."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket=BUCKET)
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": resources}],
    }
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


def write_table(url: str, prefix: str, rows: list[dict[str, Any]], schema: pa.Schema, partition: str) -> None:
    """Write one of the tables of spectra in the Delta format."""
    from deltalake import write_deltalake

    options = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
    }
    table = pa.Table.from_pylist(rows, schema=schema)
    write_deltalake(f"s3a://{BUCKET}/{prefix}", table, partition_by=[partition], storage_options=options)
