"""`mat2spec evaluate`: score a checkpoint on labels; `mat2spec evaluate --help` describes what it writes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from mat2spec.cli.command import find_checkpoint, print_rows
from mat2spec.config import EvaluateConfig, TrainConfig
from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.errors import ConfigError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.evaluate.plots import FIGURES, evaluation_plots
from mat2spec.evaluate.spectra import SpectrumEvaluation
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.storage.atomic import write_json, write_parquet
from mat2spec.storage.paths import resolve, resolve_input, resolve_output
from mat2spec.train.inputs import TrainingInputs


def main(config: EvaluateConfig, _: str | None) -> None:
    """Print the scores, and write them with the errors of each material and the figures."""
    output = config.output or f"evaluation-{config.split}.json"
    checkpoint = Checkpoint.load(find_checkpoint(config.checkpoint, resolve(output)))
    training = _training_on(config, checkpoint.card.config)
    files = _outputs(output, resolve_input(training.data.table))
    splits = TrainingInputs.from_config(training).splits(training)
    crystals = getattr(splits, config.split)
    evaluation = evaluate(checkpoint, crystals, torch.device("cpu"), held_out=config.split == "test")
    fitted = [crystal for crystal in splits.train.crystals if checkpoint.has_seen(crystal)]
    materials = evaluation.material_table(fitted)
    scores = evaluation.scores_by_scaling()
    record = _record(config, checkpoint, training.data.table, splits.fingerprint, crystals)
    record |= {"training_rows": len(fitted), "scores": scores}
    if isinstance(evaluation, SpectrumEvaluation) and evaluation.grid.per_cell:
        record["vb_gap_by_threshold"] = evaluation.threshold_curve()
    files[".json"].parent.mkdir(parents=True, exist_ok=True)
    write_parquet(files[".parquet"], materials)
    written = [files[".json"], files[".parquet"]]
    for ending, draw in evaluation_plots(evaluation, materials).items():
        draw(files[ending])
        written.append(files[ending])
    write_json(files[".json"], record)
    print(
        f"{record['checkpoint']} (commit {record['commit']}): {config.split}, {record['materials']} materials, "
        f"{record['seen_in_training']} seen in training"
    )
    if checkpoint.note_on_names:
        print(checkpoint.note_on_names)
    elif record["seen_in_training"] and config.split == "test":
        print("note: scores on materials seen in training say nothing about new ones")
    rounded = [
        {"scaling": name} | {key: float(f"{value:.4g}") for key, value in row.items()} for name, row in scores.items()
    ]
    print_rows(pa.Table.from_pylist(rounded), "table")
    print(*written, sep="\n")


def _training_on(config: EvaluateConfig, training: TrainConfig) -> TrainConfig:
    """Settings of the checkpoint's training, with the labels and perturbations of the evaluation."""
    changes: dict[str, Any] = {"strain": config.strain, "displacement": config.displacement}
    if config.labels:
        changes |= {"table": config.labels, "extra_train": None, "exclude_systems_of": None}
    if config.label:
        changes |= {"label": config.label}
    return training.model_copy(update={"data": training.data.model_copy(update=changes)})


def _record(
    config: EvaluateConfig, checkpoint: Checkpoint, labels: str, fingerprint: str, crystals: LabeledCrystals
) -> dict[str, Any]:
    """What was evaluated, on what, and what trained it."""
    environment = checkpoint.card.training.environment
    return {
        "checkpoint": checkpoint.card.name,
        "fingerprint": checkpoint.fingerprint,
        "commit": environment.get("commit", "unknown"),
        "hardware": environment.get("hardware", "unknown"),
        "labels": labels,
        "labels_fingerprint": fingerprint,
        "split": config.split,
        "perturbed": {"strain": config.strain, "displacement": config.displacement},
        "materials": len(crystals),
        "seen_in_training": sum(checkpoint.has_seen(crystal) for crystal in crystals.crystals),
        "ids_in_training": len(checkpoint.training_ids.intersection(crystals.material_ids)),
    }


def _outputs(path: str, labels: Path) -> dict[str, Path]:
    """Paths of all files that are written, by their endings.

    Raises:
        ConfigError: If the path does not end in .json, or the table would overwrite the labels.
        RunError: If one of them cannot be written.
    """
    if not path.endswith(".json"):
        raise ConfigError(
            f"output {path}: must end in .json; the table and the figures are written beside it under the same name"
        )
    stem = path.removesuffix(".json")
    endings = (".json", ".parquet", *FIGURES)
    files = {ending: resolve_output(stem + ending, directory=False) for ending in endings}
    if files[".parquet"].resolve() == labels.resolve():
        raise ConfigError(f"output {path}: its table {stem}.parquet would overwrite the labels; choose another name")
    return files
