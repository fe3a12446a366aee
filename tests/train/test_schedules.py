"""Learning-rate schedules, gradient clipping, weight averaging, and training from given weights."""

import copy
import io
from math import cos, pi

import numpy as np
import pytest
import torch

from mat2spec.config import TrainConfig
from mat2spec.train.loop import Training

CPU = torch.device("cpu")
STEPS = 3
"""Steps per epoch: 24 rows in batches of 8."""


def with_settings(config: TrainConfig, **changes: object) -> TrainConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def rates(config: TrainConfig, splits) -> list[float]:
    """The learning rate at the end of each epoch."""
    training = Training(config, splits, CPU)
    return [training.run_epoch()["learning_rate"] for _ in range(config.training.epochs)]


def test_rate_halves_smoothly(train_config, splits):
    """With the middle of the last of three steps: 5/6, 11/6, … epochs."""
    actual = rates(with_settings(train_config, schedule="exponential", epochs=5), splits)
    assert actual == pytest.approx([1e-3 * 0.5 ** ((epoch + 5 / 6) / 2) for epoch in range(5)])


def test_rate_rises_for_a_tenth_of_the_steps_and_falls_to_zero_by_a_cosine(train_config, splits):
    actual = rates(with_settings(train_config, schedule="one-cycle", epochs=10), splits)
    done = [(epoch + 5 / 6) / 10 for epoch in range(10)]
    assert actual[0] == pytest.approx(1e-3 * 5 / 6), "still rising"
    assert actual[1:] == pytest.approx([1e-3 * (1 + cos(pi * (share - 0.1) / 0.9)) / 2 for share in done[1:]])
    assert max(actual) == actual[1]
    assert actual[1:] == sorted(actual[1:], reverse=True)
    assert actual[-1] < 1e-5


def test_rate_changes_within_an_epoch(train_config, splits, monkeypatch):
    training = Training(with_settings(train_config, schedule="one-cycle", epochs=10), splits, CPU)
    used, step = [], training.optimizer.step
    monkeypatch.setattr(
        training.optimizer, "step", lambda: (used.append(training.optimizer.param_groups[0]["lr"]), step())
    )
    training.run_epoch()
    assert used == pytest.approx([1e-3 * share for share in (1 / 6, 3 / 6, 5 / 6)])


@pytest.mark.parametrize("schedule", ["exponential", "one-cycle"])
def test_schedule_continues_after_an_interruption(train_config, splits, schedule):
    config = with_settings(train_config, schedule=schedule, epochs=4)
    before = Training(config, splits, CPU)
    before.run_epoch()
    after = Training(config, splits, CPU)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert after.run_epoch() == before.run_epoch()


def test_gradient_is_clipped_to_the_given_norm(train_config, splits, monkeypatch):
    def lengths(clip: float | None) -> list[float]:
        training = Training(with_settings(train_config, clip_gradient=clip), splits, CPU)
        seen, step = [], training.optimizer.step

        def watched() -> None:
            seen.append(torch.cat([p.grad.flatten() for p in training.network.parameters()]).norm().item())
            step()

        monkeypatch.setattr(training.optimizer, "step", watched)
        training.run_epoch()
        return seen

    free = lengths(None)
    assert lengths(min(free) / 2) == pytest.approx([min(free) / 2] * STEPS, rel=1e-4)
    assert lengths(1e6) == free, "a gradient that is short enough stays as it is"


def test_averaged_weights_are_validated_and_saved(train_config, splits):
    """Compared with a mean computed here from the weights after each step, starting from those of the first."""
    decay = 0.5
    training = Training(with_settings(train_config, averaging=decay), splits, CPU)
    plain = Training(train_config, splits, CPU)
    seen, step = [], training.optimizer.step

    def watched() -> None:
        step()
        seen.append({name: p.detach().clone() for name, p in training.network.named_parameters()})

    training.optimizer.step = watched
    averaged, without = training.run_epoch(), plain.run_epoch()
    assert averaged["train_loss"] == without["train_loss"], "the training itself is the same"
    assert averaged["valid_mae"] != without["valid_mae"]
    assert len(seen) == STEPS
    mean = seen[0]
    for weights in seen[1:]:
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
    for name, expected in mean.items():
        torch.testing.assert_close(training.best["weights"][name], expected, rtol=1e-4, atol=1e-6)
        assert not expected.equal(seen[-1][name])


def test_interrupted_training_with_averaging_continues_to_the_same_bits(train_config, splits):
    config = with_settings(train_config, averaging=0.9, clip_gradient=1.0, schedule="one-cycle", epochs=4)
    whole = Training(config, splits, CPU)
    metrics = [whole.run_epoch() for _ in range(4)]
    before = Training(config, splits, CPU)
    assert [before.run_epoch() for _ in range(2)] == metrics[:2]
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = Training(config, splits, CPU)
    after.load_state_dict(torch.load(file, weights_only=True))
    assert [after.run_epoch() for _ in range(2)] == metrics[2:]
    for name, tensor in whole.best["weights"].items():
        assert after.best["weights"][name].equal(tensor), name


@pytest.mark.parametrize("normalization", ["sum", "standard"])
def test_fine_tuning_starts_from_the_given_weights(train_config, splits, normalization):
    """With a tiny learning rate, weights other than BatchNorm statistics stay, and so do scale and predictions."""
    config = train_config.model_copy(update={"normalization": normalization, "loss": "mae"})
    first = Training(with_settings(config, learning_rate=3e-3), splits, CPU)
    for _ in range(3):
        start = first.run_epoch()
    weights = copy.deepcopy(first.network.state_dict())
    tuned = Training(with_settings(config, seed=7, learning_rate=1e-12, weight_decay=0.0), splits, CPU, weights=weights)
    for name, tensor in tuned.network.state_dict().items():
        assert tensor.equal(weights[name]), name
    metrics = tuned.run_epoch()
    assert metrics["valid_mae"] == pytest.approx(start["valid_mae"], rel=0.02)
    for name, parameter in tuned.network.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], rtol=0, atol=1e-9)
    fresh = Training(with_settings(config, seed=7, learning_rate=1e-12, weight_decay=0.0), splits, CPU).run_epoch()
    assert np.abs(fresh["valid_mae"] - start["valid_mae"]) > 2 * np.abs(metrics["valid_mae"] - start["valid_mae"])
