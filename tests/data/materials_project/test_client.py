"""Documents of the Materials Project as rows and labels: ids, band edges, invalid documents, and retries."""

import json
import threading
import time
from dataclasses import replace
from functools import cache
from itertools import count
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mat2spec.config import DownloadConfig, MaterialsProjectConfig
from mat2spec.data.materials_project.client import MaterialsProject
from mat2spec.data.materials_project.curves import Curve, electronic_curve, phonon_curve
from mat2spec.data.materials_project.fetch import ShardFetcher
from mat2spec.data.materials_project.ids import stored_ids, usual_id
from mat2spec.data.materials_project.labels import electronic_label, phonon_label
from mat2spec.data.materials_project.retry import RetryPolicy
from mat2spec.data.materials_project.summaries import FIELDS, Summary
from mat2spec.errors import ConfigError, ServiceError, SpectrumError
from mat2spec.structure.crystal import Crystal

LAST_NUMBER = 3_347_529
"""Later materials have letters only."""


def letters(number: int) -> str:
    word = ""
    for _ in range(8):
        number, remainder = divmod(number, 26)
        word = chr(ord("a") + remainder) + word
    return word


@given(st.integers(1, LAST_NUMBER))
def test_an_old_material_has_its_number_for_every_form_of_its_id(number):
    assert usual_id(f"mp-{number}") == usual_id(f"mp-{letters(number)}") == f"mp-{number}"
    assert stored_ids([f"mp-{number}", f"mp-{letters(number)}", letters(number)]) == [letters(number)] * 3


@given(st.integers(LAST_NUMBER + 1, 26**8 - 1))
def test_a_new_material_has_eight_letters(number):
    assert usual_id(f"mp-{number}") == usual_id(f"mp-{letters(number)}") == f"mp-{letters(number)}"


@pytest.mark.parametrize("name", ["", "149", "mp-", "MP-149", "mp 149", "mp-14.9", "None", "silicon"])
def test_an_invalid_id_is_refused_with_examples(name):
    with pytest.raises(ConfigError, match="mp-149 or mp-aaaaaaft"):
        usual_id(name)


@cache
def insulator() -> tuple[dict, Crystal]:
    """A crystal with its curve, in which its wide gap can be recognized."""
    path = "mat2spec/data/bundled/edos_gpaw.parquet"
    row = next(row for row in pq.read_table(path).to_pylist() if row["band_gap"] > 1.0)
    return row, Crystal.from_row(row)


def curve_of(row: dict, **changes: object) -> Curve:
    known = {"points": np.array(row["energies"]), "densities": np.array([row["densities"]]), "efermi": row["efermi"]}
    return Curve(**known | changes)  # type: ignore[arg-type]


def summary_of(row: dict, **changes: object) -> Summary:
    known = {name: row[name] for name in ("material_id", "band_gap", "vbm", "cbm", "efermi", "is_metal")}
    return Summary.model_validate({"structure": {}, "dos": {"task_id": "mp-1"}, **known, **changes})


def test_a_label_is_that_of_the_bundled_table():
    row, crystal = insulator()
    label = electronic_label(summary_of(row), crystal, curve_of(row), nonmagnetic=True).columns
    np.testing.assert_allclose(label["edos"], row["edos"], rtol=1e-5, atol=1e-6)
    assert (label["vbm"], label["cbm"], label["edos_edges"]) == (row["vbm"], row["cbm"], "bands")


def test_edges_are_taken_from_the_curve_where_the_bands_have_none():
    row, crystal = insulator()
    label = electronic_label(summary_of(row, vbm=None, cbm=None), crystal, curve_of(row), nonmagnetic=True).columns
    assert label["edos_edges"] == "curve"
    assert abs(label["vbm"] - row["vbm"]) < 0.1
    assert abs(label["cbm"] - row["cbm"]) < 0.1


def test_states_are_per_primitive_cell_for_any_calculated_cell():
    row, crystal = insulator()
    structure = crystal.to_structure().make_supercell([2, 1, 1])
    twice = curve_of(row, densities=2 * np.array([row["densities"]]), structure=structure)
    label = electronic_label(summary_of(row), crystal, twice, nonmagnetic=True).columns
    np.testing.assert_allclose(label["edos"], row["edos"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"band_gap": 0.0, "is_metal": True, "vbm": None, "cbm": None}, ["no gap", "a gap of"]),
        ({"vbm": -1.0, "cbm": 0.3, "band_gap": 1.3}, ["1.30 eV (-1.00 … 0.30)"]),
        ({"vbm": None, "cbm": None, "band_gap": 9.0}, ["9.00 eV"]),
    ],
)
def test_bands_and_curve_that_disagree_are_refused_with_both_gaps(changes, facts):
    row, crystal = insulator()
    with pytest.raises(SpectrumError, match="disagree") as caught:
        electronic_label(summary_of(row, **changes), crystal, curve_of(row), nonmagnetic=True)
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_spin_channels_that_differ_are_refused_for_nonmagnetic_labels():
    row, crystal = insulator()
    total = np.array(row["densities"])
    polarized = curve_of(row, densities=np.array([0.6 * total, 0.4 * total]))
    with pytest.raises(SpectrumError, match="spin channels differ by 20"):
        electronic_label(summary_of(row), crystal, polarized, nonmagnetic=True)
    label = electronic_label(summary_of(row), crystal, polarized, nonmagnetic=False).columns
    np.testing.assert_allclose(label["edos"], row["edos"], rtol=1e-5, atol=1e-6)


@cache
def metal() -> tuple[dict, Crystal]:
    path = "mat2spec/data/bundled/edos_gpaw.parquet"
    row = next(row for row in pq.read_table(path).to_pylist() if row["is_metal"] and abs(row["efermi"]) > 2.0)
    return row, Crystal.from_row(row)


@pytest.mark.parametrize("chosen", [insulator, metal])
def test_densities_per_volume_are_refused_by_the_electrons_of_the_atoms(chosen):
    row, crystal = chosen()
    per_volume = curve_of(row, densities=np.array([row["densities"]]) / crystal.volume)
    with pytest.raises(SpectrumError, match=r"states below the Fermi level, .* outer and .*; give states/eV per cell"):
        electronic_label(summary_of(row), crystal, per_volume, nonmagnetic=True)


def test_a_curve_whose_fermi_level_has_another_zero_is_refused():
    row, crystal = metal()
    with pytest.raises(SpectrumError, match=r"Fermi level of its bands is .*, that of its curve .* disagree"):
        electronic_label(summary_of(row), crystal, curve_of(row, efermi=row["efermi"] + 1.5), nonmagnetic=True)
    with pytest.raises(SpectrumError, match=r"the Fermi level, 0\.00 eV, has no states on one side"):
        electronic_label(summary_of(row), crystal, curve_of(row, efermi=0.0), nonmagnetic=True)


def test_phonons_in_wavenumbers_given_as_terahertz_are_refused():
    _, crystal = insulator()
    wavenumbers = np.arange(1.0, 400.0)
    curve = Curve(wavenumbers, wavenumbers[None] ** 2)
    summary = summary_of(insulator()[0], phonon_IDs={"dfpt": ["mp-1"]})
    phonon_label(summary, crystal, replace(curve, points=wavenumbers / 33.356), "dfpt")
    with pytest.raises(SpectrumError, match="convert the frequencies to cm⁻¹"):
        phonon_label(summary, crystal, curve, "dfpt")


KEYS = st.sampled_from(["a", "sites", "total", "task_id", "dfpt"])

PLAIN = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-3, 300)
    | st.text(max_size=8)
    | st.sampled_from(["mp-1", "mp-149", "NM"])
)

LISTS = st.lists(PLAIN, max_size=3) | st.dictionaries(KEYS, PLAIN, max_size=3)

JSON = PLAIN | LISTS | st.lists(LISTS, max_size=2) | st.dictionaries(KEYS, LISTS, max_size=2)


class FakeMaterialsProject(MaterialsProject):
    """Returns the same documents for every request."""

    def __init__(self, document: dict, electronic: dict, phonon: dict) -> None:
        super().__init__("key", DownloadConfig())
        self.__dict__.update(document=document, electronic=electronic, phonon=phonon)

    def summaries(self, material_ids, fields):
        return [self.document]

    def electronic_dos(self, task_ids):
        return ((name, electronic_curve(self.electronic)) for name in task_ids)

    def phonon_dos(self, phonon_ids, method):
        return ((name, phonon_curve({"dos": self.phonon})) for name in phonon_ids)


def changes(*fields: str) -> st.SearchStrategy[dict]:
    """Arbitrary values for some fields."""
    return st.dictionaries(st.sampled_from(sorted(fields)), JSON, max_size=2)


@settings(max_examples=200, deadline=None)
@given(
    in_summary=changes(*(field for field in FIELDS if field != "material_id")),
    in_electronic=changes("efermi", "energies", "spin_up_densities", "spin_down_densities", "structure", "run_type"),
    in_phonon=changes("frequencies", "densities", "structure"),
)
def test_a_material_with_invalid_documents_is_a_row_or_a_reject(in_summary, in_electronic, in_phonon):
    """For arbitrary values in a summary or in its curves."""
    row, crystal = insulator()
    structure = crystal.to_structure().as_dict()
    document = {**summary_of(row).model_dump(), "structure": structure, "phonon_IDs": {"dfpt": ["mp-2"]}, **in_summary}
    electronic = {
        "efermi": row["efermi"],
        "energies": row["energies"],
        "spin_up_densities": row["densities"],
        **in_electronic,
    }
    phonon = {
        "frequencies": [0.0, 5.0, 9.0, 10.0],
        "densities": [0.0, 1.0, 1.0, 0.0],
        "structure": structure,
        **in_phonon,
    }
    project = FakeMaterialsProject(document, electronic, phonon)
    for what in ("edos", "phdos"):
        config = MaterialsProjectConfig(what=what, output="")
        tables = ShardFetcher(project, config, "fuzz").fetch([crystal.material_id])
        assert len(tables.results) + len(tables.rejects) == 1
        for reject in tables.rejects.to_pylist():
            assert reject["error"].startswith(f"{crystal.material_id}: ")
            assert "\n" not in reject["error"]


def test_waits_between_retries_grow_exponentially_up_to_a_minute(monkeypatch):
    waits: list[float] = []
    policy = RetryPolicy("The service", 1000.0, 1000.0, str)
    stopped = SimpleNamespace(wait=lambda timeout: waits.append(timeout), is_set=lambda: False)
    monkeypatch.setattr(policy, "_stopped", stopped)
    answers = iter([OSError("busy")] * 7 + ["answer"])

    def request() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert policy.run(request) == "answer"
    for wait, shortest in zip(waits, [2, 4, 8, 16, 32, 60, 60], strict=True):
        assert shortest <= wait <= min(shortest + 1, 60)


def test_retries_end_with_the_last_failure_before_a_wait_would_exceed_the_timeout(monkeypatch):
    failures = (OSError(f"busy {i}") for i in count(1))
    policy = RetryPolicy("The service", 50.0, 1000.0, str)
    monkeypatch.setattr(policy, "_stopped", SimpleNamespace(wait=lambda timeout: None, is_set=lambda: False))

    def request() -> None:
        raise next(failures)

    with pytest.raises(ServiceError, match=r"^The service: .* 50 s \(busy 6\)"):  # the sixth wait is a minute
        policy.run(request)


def test_an_error_that_a_retry_cannot_change_is_raised_at_once():
    attempts: list[int] = []

    def request() -> None:
        attempts.append(1)
        raise OSError("bad key")

    def describe(error: Exception) -> str:
        raise ConfigError(f"refused: {error}")

    with pytest.raises(ConfigError, match="refused: bad key"):
        RetryPolicy("The service", 60.0, 1e6, describe).run(request)
    assert len(attempts) == 1


def test_stop_ends_the_wait_of_another_thread():
    policy = RetryPolicy("The service", 600.0, 1e6, str)
    failed = threading.Event()
    errors: list[Exception] = []

    def request() -> None:
        failed.set()
        raise OSError("busy")

    def run() -> None:
        try:
            policy.run(request)
        except ServiceError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert failed.wait(10)
    policy.stop()
    thread.join(1.5)  # the first wait is at least 2 s
    assert not thread.is_alive()
    assert len(errors) == 1


def test_all_threads_together_keep_to_the_rate():
    policy = RetryPolicy("The service", 1.0, 100.0, str)
    times: list[float] = []

    def send_five_requests() -> None:
        for _ in range(5):
            policy.run(lambda: times.append(time.monotonic()))

    threads = [threading.Thread(target=send_five_requests) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(times) - min(times) >= 19 / 100 - 0.005


def test_conditions_are_the_preset_s_where_none_is_given():
    def conditions(what: str, **query: object) -> dict:
        return MaterialsProjectConfig.model_validate({"what": what, "output": "", "query": query}).conditions

    paper = {"num_elements": (1, 4), "energy_above_hull": (0.0, 0.5), "band_gap": (0.0, 0.0), "magnetic_ordering": "NM"}
    assert conditions("candidates") == {}
    assert conditions("candidates", preset="paper") == paper
    assert conditions("candidates", preset="paper", energy_above_hull=(0.0, 0.1)) == paper | {
        "energy_above_hull": (0.0, 0.1)
    }
    assert conditions("candidates", preset="paper", magnetic_ordering="any").keys() == paper.keys() - {
        "magnetic_ordering"
    }
    assert conditions("edos") == {"magnetic_ordering": "NM", "has": ("dos",)}
    assert conditions("edos", magnetic_ordering="any", has="phonon") == {"has": ("dos", "phonon")}
    assert conditions("phdos") == {"has": ("phonon",)}
    assert json.dumps(DownloadConfig().model_dump(mode="json"))
