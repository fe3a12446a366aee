"""MLflow's runs of screenings, linked to the training of their checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelInput

from mat2spec.distributed.mlflow.runs import TrackedRun, create, dataset_input, resume
from mat2spec.distributed.mlflow.store import check_server, client_of, runs_folder, store_uri
from mat2spec.storage.location import Location

SCREENING = "screening/"
"""Prefix of its metrics."""


def open_screening(output: Location, record: Mapping[str, Any], training_run: str | None) -> TrackedRun | None:
    """Open the MLflow run of a screening: the one in run.json, or else a new one linked to its checkpoint's training.

    Args:
        output: The run directory.
        record: Content of run.json so far.
        training_run: MLflow's id of the training, if it is known.

    Returns:
        The run; None if the store would have to be in an object store, because SQLite needs a disk.

    Raises:
        ServiceError: If the server of MLFLOW_TRACKING_URI does not answer.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ and not isinstance(runs_folder(output), Path):
        return None
    uri = store_uri(output)
    if run := resume(uri, record.get("mlflow_run_id")):
        return run
    tags = {"kind": "screening"}
    models = []
    if training_run:
        tags["training_run_id"] = training_run
        if TrackedRun(uri, training_run).exists():
            tags["mlflow.parentRunId"] = training_run
            outputs = client_of(uri).get_run(training_run).outputs
            models = [LoggedModelInput(model.model_id) for model in (outputs.model_outputs if outputs else [])]
    identity, source = record["identity"], record["input"]["path"]
    params = {
        "output": output,
        "input": source,
        "input_fingerprint": identity["input"],
        **{f"checkpoint_{key}": value for key, value in record["checkpoint"].items()},
        "checkpoint_fingerprint": identity["checkpoint"],
        **{key: value for key, value in identity.items() if key not in ("input", "checkpoint")},
    }
    run = create(uri, output.name, tags, params)
    screened = dataset_input(Path(source).stem, identity["input"], source, "screening")
    run.log_inputs([screened], models)
    return run


def close_screening(run: TrackedRun, record: Mapping[str, Any]) -> None:
    """Log the counts, the stage times and run.json of a finished screening, and close its MLflow run.

    Raises:
        ServiceError: If the server of MLFLOW_TRACKING_URI does not answer any more.
    """
    check_server(run.uri)
    counts, stages = record["counts"], record["stages"]
    numbers = {key: value for key, value in {**counts, **stages}.items() if not isinstance(value, str)}
    run.log(SCREENING, {key: float(value) for key, value in numbers.items()})
    run.client.set_tag(run.run_id, "bottleneck", stages.get("bottleneck", ""))
    run.client.log_dict(run.run_id, dict(record), "run.json")
    run.describe(
        f"{counts['predictions']} predictions and {counts['rejects']} rejects of {counts['input']} rows of "
        f"`{record['input']['path']}` by checkpoint {record['checkpoint']['name']}."
    )
    run.finish()
