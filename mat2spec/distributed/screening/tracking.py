"""MLflow record of a screening: opened in the background, because that takes seconds, and closed with the results."""

import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mat2spec.errors import Mat2SpecError
from mat2spec.storage.run_directory import RunDirectory

if TYPE_CHECKING:
    from mat2spec.distributed.mlflow.runs import TrackedRun

RUN_ID = "mlflow_run_id"
"""Key of the MLflow run in run.json."""


class Tracking(AbstractContextManager["Tracking"]):
    """Keeps an MLflow run open for as long as the block lasts. If MLflow fails, the screening goes on without a record.

    Args:
        training_run: MLflow's id of the checkpoint's training, if it is known.
        run: The run directory, with its run.json.
    """

    def __init__(self, training_run: str | None, run: RunDirectory) -> None:
        self._training_run = training_run
        self._run = run
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Tracking":
        self._opened: Future[TrackedRun | None] = self._thread.submit(self._open)
        return self

    def wait(self) -> None:
        """Wait until the MLflow run is open and noted in run.json, before anything else is written there."""
        wait([self._opened])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Mat2SpecError):
                self._close(finished=kind is None)
        except Exception as error:
            print(f"not recorded in MLflow: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> "TrackedRun | None":
        from mat2spec.distributed.mlflow.screenings import open_screening  # MLflow takes seconds to import

        opened = open_screening(self._run.path, self._run.record, self._training_run)
        if opened:
            self._run.note(**{RUN_ID: opened.run_id})
        return opened

    def _close(self, *, finished: bool) -> None:
        from mat2spec.distributed.mlflow.screenings import close_screening

        opened = self._opened.result()
        if opened and finished:
            close_screening(opened, self._run.record)
        elif opened:
            opened.finish("FAILED")
