"""Normalizations and losses in training: every pair that a configuration allows reduces the loss."""

import dataclasses

import numpy as np
import pytest
import torch

from mat2spec.config import TrainConfig
from mat2spec.model.losses import LOSSES
from mat2spec.predict.forward import predict_outputs
from mat2spec.train.loop import Training

CPU = torch.device("cpu")
SETTINGS = [("max", "mse"), ("sum", "wasserstein"), ("sum", "kl"), ("standard", "mae"), ("sum", "mae"), ("none", "mae")]

ROUNDING = 1e-2
"""Relative: the gradient of the absolute error consists of signs, which rounding flips: 0.3 % after three steps."""


@pytest.fixture(params=SETTINGS, ids=["-".join(pair) for pair in SETTINGS])
def setting(request) -> dict[str, str]:
    return {"normalization": request.param[0], "loss": request.param[1]}


def quick(config: TrainConfig, setting: dict[str, str]) -> TrainConfig:
    training = config.training.model_copy(update={"learning_rate": 3e-3, "halving_epochs": 100})
    return config.model_copy(update={**setting, "training": training})


@pytest.mark.parametrize("architecture", ["mat2spec", "gatgnn", "additive", "projected"])
def test_loss_falls(small_configs, splits, setting, architecture):
    if architecture == "additive" and setting["normalization"] in ("standard", "none"):
        pytest.skip("spectra of atoms are distributions; these scales are none")
    training = Training(quick(small_configs[architecture], setting), splits, CPU)
    metrics = [training.run_epoch() for _ in range(8)]
    assert all(np.isfinite(list(epoch.values())).all() for epoch in metrics)
    assert metrics[-1]["train_prediction"] < 0.95 * metrics[0]["train_prediction"]


def test_validation_loss_is_that_of_the_setting_and_scores_are_on_the_scale_of_the_labels(
    train_config, splits, setting
):
    training = Training(quick(train_config, setting), splits, CPU)
    metrics = training.run_epoch()
    network, true = training.network.eval(), splits.valid.spectra
    shapes = predict_outputs(network, splits.valid.graphs, CPU)
    loss = LOSSES[setting["loss"]](torch.from_numpy(shapes), network.normalization.normalize(true))
    assert metrics["valid_loss"] == pytest.approx(loss.item(), rel=1e-5)
    densities = network.normalization.densities(shapes)
    if setting["normalization"] not in ("standard", "none"):  # which alone know the unit of the labels
        densities *= true.sum(dim=1).numpy()[:, None] / densities.sum(axis=1, keepdims=True)
    assert metrics["valid_mae"] == pytest.approx(np.abs(densities - true.numpy()).mean(), rel=1e-4)
    assert training.best["scores"]["mae"] == metrics["valid_mae"]


def test_unit_of_the_labels_does_not_matter(train_config, splits, setting):
    """Nor with normalization standard, which is fitted to the labels; only without any."""
    if setting["normalization"] == "none":
        pytest.skip("the scale is that of the labels")
    scaled = [
        dataclasses.replace(part, spectra=100 * part.spectra) for part in (splits.train, splits.valid, splits.test)
    ]
    rescaled = dataclasses.replace(splits, train=scaled[0], valid=scaled[1], test=scaled[2])
    one, other = (Training(quick(train_config, setting), labels, CPU).run_epoch() for labels in (splits, rescaled))
    assert other["train_loss"] == pytest.approx(one["train_loss"], rel=ROUNDING)
    assert other["valid_mae"] == pytest.approx(100 * one["valid_mae"], rel=ROUNDING)
