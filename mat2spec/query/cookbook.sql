-- Questions to a screening, each answered by `python jobs/query.py RUN @name`. Spectra are in states per cm⁻¹ per atom.

-- @stiff_oxides: Stiff, light oxides: the ten highest mean frequencies among ternary oxides of at most 12 sites.
SELECT material_id, formula_pretty, nsites, round(mean_frequency, 1) AS mean_frequency, exceeds_grid, seen_in_training
FROM predictions
WHERE len(elements) = 3 AND list_contains(elements, 'O') AND nsites <= 12
ORDER BY predictions.mean_frequency DESC
LIMIT 10;

-- @cold_lattices: Heavy, soft crystals that no training row showed: the ten lowest mean frequencies among known elements.
SELECT material_id, formula_pretty, nsites, round(mean_frequency, 1) AS mean_frequency, round(heat_capacity_300K, 2) AS heat_capacity_300K
FROM predictions
WHERE NOT seen_in_training AND len(unseen_elements) = 0
ORDER BY predictions.mean_frequency
LIMIT 10;

-- @phononic_gaps: An empty window between 400 and 500 cm⁻¹ with vibrations above it: where one phonon cannot decay into two.
SELECT material_id, formula_pretty, round(dos_integral(spectrum, 400, 500), 4) AS states_in_window,
       round(dos_integral(spectrum, 500, 1000), 2) AS states_above, seen_in_training
FROM predictions
WHERE dos_integral(spectrum, 400, 500) < 0.03 AND dos_integral(spectrum, 500, 1000) > 0.5
ORDER BY states_above DESC, material_id
LIMIT 10;

-- @like_magnesia: The ten crystals whose spectra have most nearly the shape of MgO's (mp-1265), oxides left out.
SELECT material_id, formula_pretty, round(list_cosine_similarity(spectrum, magnesia.shape), 4) AS similarity
FROM predictions, (SELECT spectrum AS shape FROM predictions WHERE material_id = 'mp-1265') AS magnesia
WHERE NOT list_contains(elements, 'O')
ORDER BY list_cosine_similarity(spectrum, magnesia.shape) DESC, material_id
LIMIT 10;

-- @stiff_systems: Chemical systems with at least five crystals, by their mean frequency; how many of the crystals the network had seen.
SELECT array_to_string(elements, '-') AS chemical_system, count(*) AS crystals, count(*) FILTER (seen_in_training) AS seen,
       round(avg(mean_frequency), 1) AS mean_frequency
FROM predictions
GROUP BY elements
HAVING count(*) >= 5
ORDER BY avg(predictions.mean_frequency) DESC
LIMIT 10;

-- @reject_reasons: Why rows have no prediction, the names left out.
SELECT stage, error_type, regexp_replace(replace(error, coalesce(material_id || ': ', ''), ''), '[0-9.]+', 'N', 'g') AS rule, count(*) AS rows
FROM rejects
GROUP BY ALL
ORDER BY rows DESC, rule;
