"""Judge a checkpoint by the paper's metrics.

Prints them with the predictions on each scale, and writes beside FILE.json:
  FILE.json             the metrics, what was judged, on what, and what trained it
  FILE.parquet          one row per material: errors, what the spectra say, both spectra, how many training materials hold all its elements
  FILE-spectra.png      predicted and computed spectra, one material from each fifth of the error
  FILE-errors.png       errors by number of elements, of sites, of training materials with all of its elements
  FILE-heat.png         phonons: relative errors of heat capacity and mean frequency
  FILE-thresholds.png   electrons: precision and recall of VB gaps as the density that counts as low varies
  FILE-gaps.png         a checkpoint that predicts band gaps: predicted over known ones

Scales, all in the unit of the labels, negative densities cut off:
  self               the prediction as it is: what a user gets (checkpoints that know the number of states)
  true-sum           the prediction has the sum of its label (the paper's rows SumNorm)
  unit-max           the prediction has the maximum of its label (the paper's rows MaxNorm)

Metrics: r2 (variance-weighted over bins), mae, mse; wd, Wasserstein distance [cm^-1, eV]; then
  phonons            MAE and MSE of mean_frequency [cm^-1], of heat_capacity (C_V at 300 K, J/K per mole of atoms) and of
                     cv_paper (the convention of published numbers: per mole of cells, pure elements per mole of atoms)
  electrons          vb_gap: f1, precision, recall and counts of a gap below the valence band maximum (mat2spec/dos/edge_gaps.py)
  band gaps          roc_auc and accuracy of metals, mae [eV] of the most likely gap, over all and over gapped materials
"""

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mat2spec.cli.command import print_table
from mat2spec.errors import ConfigError
from mat2spec.evaluate.evaluate import evaluate
from mat2spec.evaluate.plots import FIGURES, figures_of
from mat2spec.evaluate.spectra import Evaluation
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.storage.paths import resolve, resolve_output
from mat2spec.train.inputs import Sources


def main() -> None:
    """Print the scores and write them, the errors of each material and their pictures."""
    arguments = _read_command_line()
    checkpoint = Checkpoint.load(resolve(arguments.checkpoint))
    config, training = checkpoint.card.config, checkpoint.card.training
    changes = {"strain": arguments.strain, "displacement": arguments.displacement}
    if arguments.labels:
        changes |= {"table": arguments.labels, "further": None, "apart_from": None}
    config = config.model_copy(update={"data": config.data.model_copy(update=changes)})
    files = _outputs(arguments.output or f"evaluation-{arguments.split}.json", resolve(config.data.table))
    splits = Sources.of(config).splits(config)
    crystals = getattr(splits, arguments.split)
    evaluation = evaluate(checkpoint, crystals, torch.device("cpu"), held_out=arguments.split == "test")
    seen = checkpoint.training_ids.intersection(crystals.material_ids)
    fitted = [crystal for crystal in splits.train.crystals if crystal.material_id in checkpoint.training_ids]
    scores, materials = evaluation.scores_by_scaling(), evaluation.material_table(fitted)
    record = {
        "checkpoint": checkpoint.card.name,
        "fingerprint": checkpoint.fingerprint,
        "commit": training.environment.get("commit", "unknown"),
        "hardware": training.environment.get("hardware", "unknown"),
        "labels": config.data.table,
        "labels_fingerprint": splits.fingerprint,
        "split": arguments.split,
        "perturbed": {"strain": arguments.strain, "displacement": arguments.displacement},
        "materials": len(crystals),
        "seen_in_training": len(seen),
        "training_rows": len(fitted),
        "scores": scores,
    }
    if isinstance(evaluation, Evaluation) and evaluation.grid.per_cell:
        record["vb_gap_by_threshold"] = evaluation.threshold_curve()
    files[".json"].parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(materials, files[".parquet"])
    written = [files[".json"], files[".parquet"]]
    for ending, draw in figures_of(evaluation, materials).items():
        draw(files[ending])
        written.append(files[ending])
    files[".json"].write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(
        f"{record['checkpoint']} (commit {record['commit']}): {arguments.split}, {len(crystals)} materials, {len(seen)} seen in training"
    )
    rounded = [
        {"scaling": name} | {key: float(f"{value:.4g}") for key, value in row.items()} for name, row in scores.items()
    ]
    print_table(pa.Table.from_pylist(rounded))
    print(*written, sep="\n")


def _read_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="directory of a checkpoint")
    parser.add_argument(
        "--split", choices=("train", "valid", "test"), default="test", help="part of the labels (default: test)"
    )
    parser.add_argument(
        "--labels",
        metavar="TABLE",
        help="materials table with labels and splits, none of its test rows seen in training; default: the one of the training",
    )
    parser.add_argument(
        "--strain",
        type=_size,
        default=0.0,
        metavar="SIZE",
        help="judge valid or test rows on cells strained at random: standard deviation of each component",
    )
    parser.add_argument(
        "--displacement",
        type=_size,
        default=0.0,
        metavar="ANGSTROM",
        help="and with atoms displaced at random: standard deviation along each axis",
    )
    parser.add_argument(
        "--output", metavar="FILE.json", help="default: evaluation-SPLIT.json in MAT2SPEC_HOME, else here"
    )
    return parser.parse_args()


def _size(text: str) -> float:
    """A size that a perturbation can have."""
    size = float(text)
    if not 0 <= size < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0 and less than 1")
    return size


def _outputs(path: str, labels: Path) -> dict[str, Path]:
    """Name all files that are written, by their endings.

    Raises:
        ConfigError: If the first is not JSON by its name, or the table would take the place of the labels.
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
