"""The SQL macros of a run: functions of a spectrum that know its grid.

The low bins of an electronic spectrum are stored as the bits of one 128-bit integer: bit i is set if bin i is low.
Shifts and logic then find runs of at least n low bins, for all spectra of a vector at once: in `runs`, bit i is set
if bins i … i + n − 1 are low.

DuckDB pastes the argument of a macro wherever the macro's text names it, so a value that is used twice is bound to a
name, as the only element of a list. Subqueries are not allowed inside a lambda, so no macro passes a spectrum into
one.
"""

from mat2spec.dos.edge_gaps import TOLERANCE, ConductionBandRule, ValenceBandRule
from mat2spec.dos.grid import EDOS_GRID, SpectrumGrid

_BINS = len(EDOS_GRID)
_WORD = _BINS // 2
"""Bins in each of the two masks that a prediction holds."""

_ALL = f"{2**_BINS - 1}::UHUGEINT"


def macros(grid: SpectrumGrid) -> list[str]:
    """Return the statements that create the macros of a run; mat2spec.query.glossary.MACROS describes them."""
    return [*_axis_macros(grid), *_similarity_macros(grid), *(_gap_macros() if grid == EDOS_GRID else [])]


def _axis_macros(grid: SpectrumGrid) -> list[str]:
    edges = f"{list(grid.edges)}::DOUBLE[]"
    return [
        f"CREATE MACRO axis() AS {list(grid.centers)}::DOUBLE[]",
        f"""CREATE MACRO dos_at(spectrum, energy) AS
            CASE WHEN energy BETWEEN {grid.edges[0]} AND {grid.edges[-1]}
            THEN spectrum[least(len(list_filter({edges}, lambda edge: edge <= energy)), {len(grid)})] END""",
        f"""CREATE MACRO dos_integral(spectrum, low, high) AS list_dot_product(spectrum::DOUBLE[],
            [greatest(0, least(high, ({edges})[i + 1]) - greatest(low, ({edges})[i]))
             for i in range(1, {len(grid) + 1})]::DOUBLE[])""",
    ]


def _similarity_macros(grid: SpectrumGrid) -> list[str]:
    """Distances between the shapes of two spectra.

    The Wasserstein distance is a fold over bins. It starts with the areas of both spectra, and carries by how much
    the cumulative distribution of the first is ahead of that of the second; each step to the next center adds that
    much.
    """
    (step,) = {high - low for low, high in zip(grid.centers, grid.centers[1:], strict=False)}
    return [
        """CREATE MACRO _density(number) AS CASE WHEN number > 0 THEN number ELSE 0 END::DOUBLE""",
        """CREATE MACRO _area(spectrum) AS list_sum(list_transform(spectrum, lambda number: _density(number)))""",
        f"""CREATE MACRO _share(density, area) AS CASE WHEN area > 0 THEN density / area ELSE {1 / len(grid)} END""",
        f"""CREATE MACRO _wasserstein(a, b) AS {step} * list_reduce(
            list_transform(list_zip(a, b), lambda pair:
                {{'a': _density(pair[1]), 'b': _density(pair[2]), 'ahead': 0::DOUBLE, 'moved': 0::DOUBLE}}),
            lambda sofar, bin: {{'a': sofar.a, 'b': sofar.b,
                                 'ahead': sofar.ahead + _share(bin.a, sofar.a) - _share(bin.b, sofar.b),
                                 'moved': sofar.moved + abs(sofar.ahead)}},
            {{'a': _area(a), 'b': _area(b), 'ahead': 0::DOUBLE, 'moved': 0::DOUBLE}}).moved""",
        """CREATE MACRO "similar"(a, b) AS CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN
           {'cosine_distance': 1 - list_cosine_similarity(a::DOUBLE[], b::DOUBLE[]),
            'wasserstein': _wasserstein(a, b)} END""",
    ]


def _gap_macros() -> list[str]:
    """Gaps on EDOS_GRID, from a spectrum or from the stored masks."""
    valence, conduction = ValenceBandRule(), ConductionBandRule()
    low, masks = "_low_bits(spectrum, threshold)", "_joined(vb_mask, cb_mask)"
    below = f"min_width := {valence.min_width}, upper_min := {valence.upper_min}, upper_max := {valence.upper_max}"
    above = (
        f"min_width := {conduction.min_width}, lower_min := {conduction.lower_min}, lower_max := {conduction.lower_max}"
    )
    origin, last = EDOS_GRID.edges[0], EDOS_GRID.edges[-1]
    return [
        *_bit_macros(),
        *_edge_macros(),
        *_run_macros(),
        f"""CREATE MACRO vb_gap(spectrum, threshold := {valence.threshold}, {below}) AS
            _vb_gap({low}, min_width, upper_min, upper_max)""",
        f"""CREATE MACRO cb_gap(spectrum, threshold := {conduction.threshold}, {above}) AS
            _cb_gap({low}, min_width, lower_min, lower_max)""",
        f"CREATE MACRO vb_gap_of_mask(vb_mask, cb_mask, {below}) AS _vb_gap({masks}, min_width, upper_min, upper_max)",
        f"CREATE MACRO cb_gap_of_mask(vb_mask, cb_mask, {above}) AS _cb_gap({masks}, min_width, lower_min, lower_max)",
        f"""CREATE MACRO _has_window(is_known, low, high, is_low) AS CASE
            WHEN low > high
            THEN error('has_gap: the window must ascend, got ' || low || ' … ' || high || ' eV; swap the two numbers')
            WHEN low < {origin} OR high > {last} THEN CASE WHEN is_known THEN false END
            ELSE is_low END""",
        f"""CREATE MACRO has_gap(spectrum, low, high, threshold := {valence.threshold}) AS
            _has_window(spectrum IS NOT NULL, low, high,
                        list_max(spectrum[_bin_of(low):_last_bin(low, high)]) <= threshold::DOUBLE::FLOAT)""",
        f"""CREATE MACRO has_gap_of_mask(vb_mask, cb_mask, low, high) AS
            _has_window(vb_mask IS NOT NULL, low, high,
                        {masks} & _from_to(_bin_of(low) - 1, _last_bin(low, high) - 1)
                        = _from_to(_bin_of(low) - 1, _last_bin(low, high) - 1))""",
    ]


def _bit_macros() -> list[str]:
    """128 bits, from a spectrum or from two signed masks, and the positions of their highest and lowest bits."""
    powers = f"{[2**i for i in range(_BINS)]}::UHUGEINT[]"
    word = f"{2**_WORD - 1}::HUGEINT"
    return [
        # NaN is greater than every number, so it is not low.
        """CREATE MACRO _are_low(spectrum, threshold) AS
           list_transform(spectrum, lambda d: coalesce(d <= threshold::DOUBLE::FLOAT, false))""",
        f"""CREATE MACRO _low_bits(spectrum, threshold) AS
            coalesce(list_bit_or(list_where({powers}, _are_low(spectrum, threshold))), 0)""",
        f"""CREATE MACRO _joined(vb_mask, cb_mask) AS
            (vb_mask::HUGEINT & {word})::UHUGEINT | ((cb_mask::HUGEINT & {word})::UHUGEINT << {_WORD}::UHUGEINT)""",
        f"""CREATE MACRO _from_to(a, b) AS
            ({_ALL} >> ({_BINS - 1} - b)::UHUGEINT) & (({_ALL} >> a::UHUGEINT) << a::UHUGEINT)""",
        # Rounding to a double keeps the highest bit of a number if the next bit is not set. 0 has no bit: NULL.
        "CREATE MACRO _highest(bits) AS floor(log2(nullif(bits & ~(bits >> 1::UHUGEINT), 0)::DOUBLE))::INTEGER",
        "CREATE MACRO _lowest(bits) AS floor(log2((bits & ~(nullif(bits, 0) - 1::UHUGEINT))::DOUBLE))::INTEGER",
    ]


def _edge_macros() -> list[str]:
    """Indices of bin edges, 0 … 128, at or next to an energy, and the number of bins that an energy spans."""
    width, origin = EDOS_GRID.widths[0], EDOS_GRID.edges[0]
    return [
        f"CREATE MACRO _bins(energy) AS ceil((energy::DOUBLE - {TOLERANCE}) / {width})::INTEGER",
        f"CREATE MACRO _edge_from(energy) AS ceil((energy::DOUBLE - {TOLERANCE} - {origin}) / {width})::INTEGER",
        f"CREATE MACRO _edge_to(energy) AS floor((energy::DOUBLE + {TOLERANCE} - {origin}) / {width})::INTEGER",
        f"CREATE MACRO _bin_of(energy) AS least(_edge_to(energy) + 1, {_BINS})",
        "CREATE MACRO _last_bin(low, high) AS greatest(_bin_of(low), _edge_from(high))",
        f"""CREATE MACRO _between_edges(a, b) AS
            {{'lower': {origin} + a * {width}::DOUBLE,
              'upper': {origin} + b * {width}::DOUBLE,
              'width': (b - a) * {width}::DOUBLE}}""",
        f"""CREATE MACRO _no_room(name, min_width, edge_min, edge_max) AS error(
            name || ': no run ≥ ' || min_width || ' eV wide has its edge in ' || edge_min || ' … ' || edge_max
            || ' eV on a grid of {origin:g} … {EDOS_GRID.edges[-1]:g} eV; '
            || 'take another min_width > 0 or another window of at least a bin')""",
    ]


def _run_macros() -> list[str]:
    """The gap that is reported: of the runs of n low bins with their edge in the window, the nearest to 0 eV.

    It is extended to the next bin that is not low.
    """
    shifts = ", ".join(f"greatest(0, least({1 << k}, n - {1 << k}))::UHUGEINT" for k in range(_BINS.bit_length() - 1))
    ends = "_runs(low, n) & ~((low >> (n - 1)::UHUGEINT) >> 1::UHUGEINT) & _from_to(a, b)"
    starts = f"_runs(low, n) & ~((low & ({_ALL} >> 1::UHUGEINT)) << 1::UHUGEINT) & _from_to(a, b)"
    down = "coalesce(_highest(~low & ((1::UHUGEINT << place::UHUGEINT) - 1::UHUGEINT)) + 1, 0)"
    up = f"place + coalesce(_lowest(~low >> place::UHUGEINT), {_BINS} - place)"
    highest = f"CASE WHEN fit > 0 THEN {_let('place', '_highest(fit)', f'_between_edges({down}, place + n)')} END"
    lowest = f"CASE WHEN fit > 0 THEN {_let('place', '_lowest(fit)', f'_between_edges(place, {up})')} END"
    return [
        f"CREATE MACRO _runs(bits, n) AS list_reduce([bits, {shifts}], lambda runs, shift: runs & (runs >> shift))",
        f"CREATE MACRO _highest_run(bits, n, a, b) AS {_let('low', 'bits', _let('fit', ends, highest))}",
        f"CREATE MACRO _lowest_run(bits, n, a, b) AS {_let('low', 'bits', _let('fit', starts, lowest))}",
        f"""CREATE MACRO _vb_gap(bits, min_width, upper_min, upper_max) AS CASE
            WHEN _bins(min_width) < 1
              OR greatest(_edge_from(upper_min), _bins(min_width)) > least(_edge_to(upper_max), {_BINS})
            THEN _no_room('VB gap', min_width, upper_min, upper_max)
            ELSE _highest_run(bits, _bins(min_width), greatest(_edge_from(upper_min) - _bins(min_width), 0),
                              least(_edge_to(upper_max), {_BINS}) - _bins(min_width)) END""",
        f"""CREATE MACRO _cb_gap(bits, min_width, lower_min, lower_max) AS CASE
            WHEN _bins(min_width) < 1
              OR greatest(_edge_from(lower_min), 0) > least(_edge_to(lower_max), {_BINS} - _bins(min_width))
            THEN _no_room('CB gap', min_width, lower_min, lower_max)
            ELSE _lowest_run(bits, _bins(min_width), greatest(_edge_from(lower_min), 0),
                             least(_edge_to(lower_max), {_BINS} - _bins(min_width))) END""",
    ]


def _let(name: str, value: str, expression: str) -> str:
    """Return an SQL expression in which a name stands for a value."""
    return f"list_transform([{value}], lambda {name}: {expression})[1]"
