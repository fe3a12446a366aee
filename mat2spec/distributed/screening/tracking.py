"""A screening's record in MLflow: opened beside the work, for that takes seconds, and closed with what came of it."""

import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

from mat2spec.errors import Mat2SpecError
from mat2spec.storage.location import Location
from mat2spec.storage.run_directory import RunDirectory

RUN_ID = "mlflow_run_id"
"""In run.json: the record of the screening."""


class Tracking(AbstractContextManager["Tracking"]):
    """Keeps the record for as long as the block lasts; a store that fails costs the record, not the screening.

    Args:
        checkpoint: Directory of the checkpoint.
        run: The run's directory, which has its run.json.
    """

    def __init__(self, checkpoint: Location, run: RunDirectory) -> None:
        self._checkpoint, self._run = checkpoint, run
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Tracking":
        self._opened = self._thread.submit(self._open)
        return self

    def wait(self) -> None:
        """Await that it is open and run.json says so, before anything else is written there."""
        wait([self._opened])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Mat2SpecError):
                self._close(finished=kind is None)
        except Exception as error:
            print(f"not in MLflow: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> Any:
        from mat2spec.distributed.mlflow import RUN_ID_FILE, open_screening  # MLflow takes seconds to import

        beside = self._checkpoint.parent / RUN_ID_FILE
        opened = open_screening(
            self._run.path, self._run.read_record(), beside.read_text().strip() if beside.exists() else None
        )
        if opened:
            self._run.note(**{RUN_ID: opened.run_id})
        return opened

    def _close(self, *, finished: bool) -> None:
        from mat2spec.distributed.mlflow import close_screening

        if opened := self._opened.result():
            if finished:
                close_screening(opened, self._run.read_record())
            else:
                opened.finish("FAILED")
