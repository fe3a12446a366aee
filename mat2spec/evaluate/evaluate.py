"""A checkpoint against what is known of materials."""

import torch

from mat2spec.data.labels.dataset import LabelledCrystals
from mat2spec.dos.metrics import SHAPE_SCALINGS
from mat2spec.errors import TableError
from mat2spec.evaluate.band_gaps import GapEvaluation
from mat2spec.evaluate.spectra import Evaluation
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import predict_outputs

AnyEvaluation = Evaluation | GapEvaluation


def evaluate(
    checkpoint: Checkpoint, crystals: LabelledCrystals, device: torch.device, *, held_out: bool = True
) -> AnyEvaluation:
    """Predict labelled crystals.

    Args:
        checkpoint: What to judge.
        crystals: Materials with labels of the kind that it predicts.
        device: Where to compute.
        held_out: Refuse materials that the checkpoint was fitted to or chosen on.

    Raises:
        TableError: If they must be held out and some are not.
    """
    if held_out and (overlap := checkpoint.training_ids.intersection(crystals.material_ids)):
        example = min(overlap)
        raise TableError(
            f"{len(overlap)} of {len(crystals)} materials ({example}, …) were seen in training; evaluate on held-out rows"
        )
    network = checkpoint.network
    outputs = predict_outputs(network.to(device), crystals.graphs, device)
    if not isinstance(network, SpectrumNetwork):
        return GapEvaluation(crystals, outputs)
    scalings = ("self", *SHAPE_SCALINGS) if network.normalization.keeps_unit else SHAPE_SCALINGS
    return Evaluation(crystals, network.to_densities(outputs), checkpoint.grid, scalings)
