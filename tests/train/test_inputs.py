"""Labels of the kind that a network learns, or one line."""

import pytest

from mat2spec.config import TrainConfig
from mat2spec.errors import TableError
from mat2spec.train.inputs import Sources

GAP = {"architecture": "gap"}


@pytest.mark.parametrize(
    ("label", "model", "reason"),
    [
        ("edos", GAP, r"column edos has a spectrum of 128 bins per row, architecture gap learns one number"),
        (
            "band_gap",
            {},
            r"column band_gap has one number per row, architecture mat2spec learns a spectrum of 128 bins",
        ),
        (
            "band_gap",
            {"architecture": "mean"},
            r"architecture mean learns a spectrum of 128 bins; choose another data\.label",
        ),
    ],
)
def test_label_of_another_kind_than_the_network_learns_is_refused(bundled, label, model, reason):
    data = {"table": str(bundled.with_name("edos_gpaw.parquet")), "label": label, "fold": 1}
    config = TrainConfig.model_validate({"grid": "edos", "data": data, "model": model})
    with pytest.raises(TableError, match=reason) as caught:
        Sources.of(config).splits(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("label", "model", "size"), [("edos", {}, 128), ("band_gap", GAP, 1)])
def test_label_of_its_kind_is_read(bundled, label, model, size):
    data = {"table": str(bundled.with_name("edos_gpaw.parquet")), "label": label, "fold": 1}
    config = TrainConfig.model_validate({"grid": "edos", "data": data, "model": model})
    assert Sources.of(config).splits(config).train.spectra.shape[1] == size
