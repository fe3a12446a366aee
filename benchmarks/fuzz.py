"""Fuzzing of all that is read: damaged files, generated crystals and generated curves, compared with the truth.

    python benchmarks/fuzz.py [--cases 20000] [--seed 0] [--first 0] [--output chunk.json]
    python benchmarks/fuzz.py --table chunk-0.json chunk-1.json

Three of ten inputs are damaged slices of real files: each must give crystals or a one-line error. Five are random
crystals in the dialects of five formats, right, incomplete and contradictory; two are band structures and phonons with
known edges and units. The generator knows the truth, so that each answer is the same, refused, or wrong. pymatgen, ASE
and gemmi get the same files.

A case depends on the seed and its number alone, so that parts of a run may run at the same time. If an input raises,
or is read wrong, the exit code is 1; the text of such a file is written into the current directory.
"""

import argparse
import json
import random
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fuzz_cif import Case, cif_case
from fuzz_crystals import random_crystal, same_crystal
from fuzz_damage import damage, make_seeds
from fuzz_formats import extxyz_case, json_case, optimade_case, poscar_case
from fuzz_peers import PEERS, at_most
from fuzz_spectra import SpectrumCase, dos_case, phonon_case, vasp_case
from pymatgen.core import Structure

from mat2spec.config import ReadingConfig
from mat2spec.errors import Mat2SpecError, StructureError
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.formats import read_structures

WRITERS = (cif_case, cif_case, cif_case, poscar_case, extxyz_case, json_case, optimade_case)

SPECTRA = (vasp_case, vasp_case, dos_case, phonon_case)

PEER_SECONDS = 20

SAVED_EVERY = 100
"""Cases after which the counts are written: those of a run that is stopped are there."""

OURS = "mat2spec"

OUTCOMES = ("same", "refused", "wrong", "raised")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--output", type=Path, help="JSON file for the counts")
    parser.add_argument("--table", type=Path, nargs="+", help="print such files as one table instead")
    arguments = parser.parse_args()
    if arguments.table:
        return print_table([json.loads(file.read_text()) for file in arguments.table])
    warnings.simplefilter("ignore")  # raised by the other parsers
    seeds = make_seeds(random.Random(arguments.seed))
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    start, slowest, hardware = time.perf_counter(), (0.0, ""), environment()["hardware"]
    for number in range(arguments.first, arguments.first + arguments.cases):
        before = time.perf_counter()
        kind, outcomes = run_case(random.Random(f"{arguments.seed}-{number}"), seeds, number)
        slowest = max(slowest, (time.perf_counter() - before, f"case {number}, {kind}"))
        counts[kind].update(f"{reader} {outcome}" for reader, outcome in outcomes.items())
        cases = number + 1 - arguments.first
        record = {"seed": arguments.seed, "first": arguments.first, "cases": cases, "counts": counts}
        record |= {"seconds": time.perf_counter() - start, "slowest": slowest, "hardware": hardware}
        if arguments.output and (cases == arguments.cases or cases % SAVED_EVERY == 0):
            arguments.output.write_text(json.dumps(record, indent=1, ensure_ascii=False))
    return print_table([record])


def run_case(rng: random.Random, seeds: Sequence[tuple[str, bytes]], number: int) -> tuple[str, dict[str, str]]:
    """Make one input; return its kind, and the outcome of each reader."""
    draw = rng.random()
    if draw < 0.3:
        name, content = rng.choice(seeds)
        content = damage(content, rng)
        outcome = read_damaged(name, content)
        keep(outcome == "raised", number, name, content)
        return f"damaged {name}", {OURS: outcome}
    if draw < 0.8:
        case = rng.choice(WRITERS)(random_crystal(rng), rng)
        ours = read_ours(case)
        keep(ours in ("raised", "wrong"), number, case.name, case.text.encode())
        peers = PEERS[case.kind.split()[0]]
        return case.kind, {OURS: ours} | {name: read_by(reader, case) for name, reader in peers.items()}
    spectrum = rng.choice(SPECTRA)(rng)
    return spectrum.kind, judge_spectrum(spectrum)


def keep(at_fault: bool, number: int, name: str, content: bytes) -> None:
    if at_fault:
        Path(f"fuzz-{number}-{name}").write_bytes(content)


def read_damaged(name: str, content: bytes) -> str:
    """Read a file whose truth is unknown; crystals count as the same."""
    try:
        results = [parsed.crystal for parsed in read_structures(name, content, ReadingConfig())]
    except Exception:
        traceback.print_exc()
        return "raised"
    if not results or any(isinstance(crystal, StructureError) and "\n" in str(crystal) for crystal in results):
        return "raised"
    return "same" if all(isinstance(crystal, Crystal) for crystal in results) else "refused"


def read_ours(case: Case) -> str:
    try:
        [parsed] = read_structures(case.name, case.text.encode(), ReadingConfig())
    except Exception:
        traceback.print_exc()
        return "raised"
    if isinstance(parsed.crystal, StructureError):
        return "raised" if "\n" in str(parsed.crystal) else "refused"
    return judge(parsed.crystal.to_structure(), case)


def read_by(reader: Callable[[str], Structure], case: Case) -> str:
    """Read by another package: any exception, or a structure with partial occupancies, tells its user enough."""
    try:
        with at_most(PEER_SECONDS):
            structure = reader(case.text)
    except Exception:
        return "refused"
    return judge(structure, case) if structure.is_ordered else "refused"


def judge(structure: Structure, case: Case) -> str:
    return "same" if case.truth is not None and same_crystal(structure, case.truth) else "wrong"


def judge_spectrum(case: SpectrumCase) -> dict[str, str]:
    outcomes = {OURS: "raised"}
    try:
        outcomes[OURS] = "same" if case.is_true(case.read()) else "wrong"
    except Mat2SpecError:
        outcomes[OURS] = "refused"
    except Exception:
        traceback.print_exc()
    if case.by_pymatgen:
        try:
            outcomes["pymatgen"] = "same" if case.by_pymatgen() else "wrong"
        except Exception:
            outcomes["pymatgen"] = "refused"
    return outcomes


def print_table(records: list[dict[str, Any]]) -> int:
    """Print a Markdown table, one line for each kind; "same/refused/wrong" of each reader."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for kind, outcomes in record["counts"].items():
            counts[kind].update(outcomes)
    readers = (OURS, "pymatgen", "ASE", "gemmi")
    total = sum(record["cases"] for record in records)
    seconds = max(record["seconds"] for record in records)
    print(f"{total} inputs, seed {records[0]['seed']}; {seconds:.0f} s; {records[0]['hardware']}\n")
    print(f"| kind | cases | {' | '.join(readers)} |\n|{'---|' * (2 + len(readers))}")
    for kind, outcomes in sorted(counts.items()):
        cells = [cell(outcomes, reader) for reader in readers]
        print(f"| {kind} | {sum(outcomes[f'{OURS} {outcome}'] for outcome in OUTCOMES)} | {' | '.join(cells)} |")
    faults = {outcome: sum(each[f"{OURS} {outcome}"] for each in counts.values()) for outcome in ("wrong", "raised")}
    print(f"\n{faults['wrong']} wrong, {faults['raised']} raised; slowest {max(r['slowest'] for r in records)}")
    return int(any(faults.values()))


def cell(outcomes: Counter[str], reader: str) -> str:
    numbers = [outcomes[f"{reader} {outcome}"] for outcome in OUTCOMES]
    raised = f" ({numbers[3]} raised)" if numbers[3] else ""
    return "/".join(map(str, numbers[:3])) + raised if any(numbers) else ""


if __name__ == "__main__":
    sys.exit(main())
