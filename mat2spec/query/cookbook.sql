-- Named queries on a run: `mat2spec query RUN @name`. In brackets the kind of spectra that a query needs; without brackets, any run will do.
-- [phdos]: spectra in states per cm⁻¹ per atom. [edos]: spectra in states/eV per primitive cell. 0 eV is the Fermi level of a metal; for
-- other crystals it is both band edges, as the gap is cut out. is_metal comes from the input's band gap if it has one, else from the
-- predicted gap. Rankings leave out rows with elements that no training row has; where one shows them, it says so.

-- @stiff_oxides [phdos]: Which ternary oxides of at most 12 sites are the stiffest and lightest (highest mean frequencies)? The first ten whose spectra end within the grid.
SELECT material_id, formula_pretty, nsites, round(mean_frequency, 1) AS mean_frequency, round(max_frequency, 1) AS max_frequency, seen_in_training
FROM predictions
WHERE len(elements) = 3 AND list_contains(elements, 'O') AND nsites <= 12 AND NOT exceeds_grid AND len(unseen_elements) = 0
ORDER BY predictions.mean_frequency DESC
LIMIT 10;

-- @cold_lattices [phdos]: Which crystals are the heaviest and softest (lowest mean frequencies)? The first ten not in the training set, of elements that are in it.
SELECT material_id, formula_pretty, nsites, round(mean_frequency, 1) AS mean_frequency, round(heat_capacity_300K, 2) AS heat_capacity_300K
FROM predictions
WHERE NOT seen_in_training AND len(unseen_elements) = 0
ORDER BY predictions.mean_frequency
LIMIT 10;

-- @phononic_gaps [phdos]: Which crystals have no vibrations from 400 to 500 cm⁻¹ but some above, so that one phonon cannot decay into two?
SELECT material_id, formula_pretty, round(dos_integral(spectrum, 400, 500), 4) AS states_in_window,
       round(dos_integral(spectrum, 500, 1000), 2) AS states_above, seen_in_training
FROM predictions
WHERE dos_integral(spectrum, 400, 500) < 0.03 AND dos_integral(spectrum, 500, 1000) > 0.5 AND len(unseen_elements) = 0
ORDER BY states_above DESC, material_id
LIMIT 10;

-- @like_magnesia [phdos]: Which ten crystals without oxygen have spectra closest in shape to that of MgO (mp-1265)?
SELECT material_id, formula_pretty, round(list_cosine_similarity(spectrum, magnesia.shape), 4) AS similarity
FROM predictions, (SELECT coalesce(any_value(spectrum), error('this run has no MgO named mp-1265; ask with the id of another material:
                                   SELECT … list_cosine_similarity(spectrum, (SELECT spectrum FROM predictions WHERE material_id = …)) …')) AS shape
                   FROM predictions WHERE material_id = 'mp-1265') AS magnesia
WHERE NOT list_contains(elements, 'O') AND len(unseen_elements) = 0
ORDER BY list_cosine_similarity(spectrum, magnesia.shape) DESC, material_id
LIMIT 10;

-- @stiff_systems [phdos]: Which chemical systems of at least five crystals have the highest mean frequency, and how many of these crystals were in the training set?
SELECT array_to_string(elements, '-') AS chemical_system, count(*) AS crystals, count(*) FILTER (seen_in_training) AS seen,
       round(avg(mean_frequency), 1) AS mean_frequency
FROM predictions
WHERE len(unseen_elements) = 0
GROUP BY elements
HAVING count(*) >= 5
ORDER BY avg(predictions.mean_frequency) DESC
LIMIT 10;

-- @gapped_metals [edos]: Which metals of at most four elements without rare earths have the emptiest gaps just below the Fermi level?
SELECT material_id, formula_pretty, nsites_primitive, vb_gap_lower, vb_gap_upper, vb_gap_width,
       round(vb_gap_density, 3) AS vb_gap_density, round(vb_gap_density / (dos_sum / 128), 3) AS relative_density,
       round(dos_integral(spectrum, vb_gap_upper, 0), 2) AS states_above_gap, gap_source, seen_in_training
FROM predictions
WHERE is_metal AND vb_gap_width IS NOT NULL AND len(elements) < 5
  AND NOT list_has_any(elements, ['Sc', 'Y', 'La', 'Ce', 'Pr', 'Nd', 'Pm', 'Sm', 'Eu', 'Gd', 'Tb', 'Dy', 'Ho', 'Er', 'Tm', 'Yb', 'Lu'])
  AND volume_per_atom < 150 AND len(unseen_elements) = 0
ORDER BY vb_gap_density / dos_sum, material_id
LIMIT 50;

-- @gapped_metals_known [edos]: The same as @gapped_metals, but only crystals that the input's own band gap says are metals.
SELECT material_id, formula_pretty, nsites_primitive, vb_gap_lower, vb_gap_upper, vb_gap_width,
       round(vb_gap_density, 3) AS vb_gap_density, round(vb_gap_density / (dos_sum / 128), 3) AS relative_density,
       round(dos_integral(spectrum, vb_gap_upper, 0), 2) AS states_above_gap, seen_in_training
FROM predictions
WHERE is_metal AND gap_source = 'input' AND vb_gap_width IS NOT NULL AND len(elements) < 5
  AND NOT list_has_any(elements, ['Sc', 'Y', 'La', 'Ce', 'Pr', 'Nd', 'Pm', 'Sm', 'Eu', 'Gd', 'Tb', 'Dy', 'Ho', 'Er', 'Tm', 'Yb', 'Lu'])
  AND volume_per_atom < 150 AND len(unseen_elements) = 0
ORDER BY vb_gap_density / dos_sum, material_id
LIMIT 50;

-- @transparent_conductors [edos]: Which metals have a gap both below and above the Fermi level, so that they conduct but absorb little light?
SELECT material_id, formula_pretty, vb_gap_width, cb_gap_width,
       round(dos_integral(spectrum, vb_gap_upper, cb_gap_lower), 2) AS states_between, gap_source
FROM predictions
WHERE is_metal AND vb_gap_width IS NOT NULL AND cb_gap_width IS NOT NULL AND len(unseen_elements) = 0
ORDER BY least(vb_gap_width, cb_gap_width) DESC, material_id
LIMIT 20;

-- @almost_gapped [edos]: Which metals miss the rule of @gapped_metals but pass with 1.5 states/eV, 0.75 eV and an upper edge from -1.25 to -0.125 eV?
SELECT material_id, formula_pretty, gap.lower AS gap_lower, gap.upper AS gap_upper, gap.width AS gap_width
FROM (SELECT *, vb_gap(spectrum, threshold := 1.5, min_width := 0.75, upper_min := -1.25, upper_max := -0.125) AS gap
      FROM predictions WHERE is_metal AND vb_gap_width IS NULL AND len(unseen_elements) = 0)
WHERE gap IS NOT NULL
ORDER BY gap_width DESC, material_id
LIMIT 20;

-- @gapped_systems [edos]: In which chemical systems of at least three metals does the largest share have a gap below the Fermi level?
SELECT array_to_string(elements, '-') AS chemical_system, count(*) AS metals, count(vb_gap_width) AS gapped,
       round(count(vb_gap_width) / count(*), 3) AS hit_rate
FROM predictions
WHERE is_metal AND len(unseen_elements) = 0
GROUP BY elements
HAVING count(*) >= 3 AND count(vb_gap_width) > 0
ORDER BY hit_rate DESC, metals DESC, chemical_system
LIMIT 20;

-- @like_platinum [edos]: Which metals without platinum-group elements have a density of states closest in shape to that of platinum (mp-126)?
SELECT material_id, formula_pretty, round(distance.wasserstein, 4) AS wasserstein, round(distance.cosine_distance, 4) AS cosine_distance
FROM (SELECT *, similar(spectrum, (SELECT coalesce(any_value(spectrum), error('this run has no platinum named mp-126; ask with the id of
                                            another material: SELECT … similar(spectrum, (SELECT spectrum FROM predictions WHERE material_id = …)) …'))
                                   FROM predictions WHERE material_id = 'mp-126')) AS distance
      FROM predictions
      WHERE is_metal AND NOT list_has_any(elements, ['Ru', 'Rh', 'Pd', 'Os', 'Ir', 'Pt']) AND len(unseen_elements) = 0)
WHERE distance IS NOT NULL
ORDER BY distance.wasserstein, material_id
LIMIT 10;

-- @fermi_steps [edos]: In which metals does the density of states change most across the Fermi level (0.25 eV on either side; Mott: a large Seebeck coefficient)?
SELECT material_id, formula_pretty, round(below, 3) AS states_below, round(above, 3) AS states_above,
       round((above - below) / (above + below), 3) AS asymmetry
FROM (SELECT *, dos_integral(spectrum, -0.25, 0) AS below, dos_integral(spectrum, 0, 0.25) AS above
      FROM predictions WHERE is_metal AND len(unseen_elements) = 0)
WHERE above + below > 0.25
ORDER BY abs(above - below) / (above + below) DESC, material_id
LIMIT 10;

-- @dense_metals [edos]: Which metals have the most states/eV per atom within one bin of the Fermi level (candidates for superconductivity and magnetism)?
SELECT material_id, formula_pretty, round(dos_integral(spectrum, -0.0625, 0.0625) / 0.125 / nsites_primitive, 3) AS states_per_ev_atom
FROM predictions
WHERE is_metal AND len(unseen_elements) = 0
ORDER BY dos_integral(spectrum, -0.0625, 0.0625) / nsites_primitive DESC, material_id
LIMIT 10;

-- @solar_absorbers [edos]: Which semiconductors with a predicted gap of 1 to 2 eV have the most states per atom within 0.5 eV of the band edges?
SELECT material_id, formula_pretty, round(band_gap_pred, 2) AS band_gap_pred, gap_source,
       round(dos_integral(spectrum, -0.5, 0.5) / nsites_primitive, 3) AS states_per_atom
FROM predictions
WHERE NOT is_metal AND band_gap_pred BETWEEN 1 AND 2 AND len(unseen_elements) = 0
ORDER BY dos_integral(spectrum, -0.5, 0.5) / nsites_primitive DESC, material_id
LIMIT 10;

-- @disputed_metals [edos]: For which materials do the network and the input's band gap disagree on metal or not? The clearest contradictions first.
SELECT material_id, formula_pretty, is_metal, round(is_metal_prob, 3) AS is_metal_prob, round(band_gap_pred, 2) AS band_gap_pred, seen_in_training,
       unseen_elements
FROM predictions
WHERE gap_source = 'input' AND is_metal <> (is_metal_prob > 0.5)
ORDER BY abs(is_metal_prob - 0.5) DESC, material_id
LIMIT 20;

-- @reject_reasons: Why were rows rejected, and how many for each reason? Names and numbers are removed.
SELECT stage, error_type, regexp_replace(replace(error, coalesce(material_id || ': ', ''), ''), '[0-9.]+', 'N', 'g') AS rule, count(*) AS rows
FROM rejects
GROUP BY ALL
ORDER BY rows DESC, rule;

-- @verified: How do computed and predicted spectra compare? Shortlisted materials first; --plot shows both spectra.
SELECT material_id, formula_pretty, bool_or(predicted_hit) AS predicted_hit, bool_or(computed_hit) AS computed_hit, any_value(level) AS level,
       any_value(verified.engine) AS engine, round(any_value(cpu_seconds), 1) AS cpu_seconds, bool_or(verified.seen_in_training) AS seen_in_training
FROM verified JOIN verification USING (material_id, calculation)
GROUP BY material_id, formula_pretty
ORDER BY predicted_hit DESC, computed_hit DESC, material_id
LIMIT 50;

-- @verification: What are the precision, recall and F1 of each shortlist that mat2spec verify has checked? With 95 % intervals.
SELECT * FROM (
    -- Materials in the training set are left out. Each sampled material counts with its weight: the number of materials it represents. Two
    -- shares are uncertain, that of the hits that were confirmed and that of the others that should have been hits: their intervals are
    -- Wilson's, 10.1080/01621459.1927.10502953, which are not of zero width for one material or for none. Recall and F1 rise with the first
    -- share and fall with the second, so that the ends of both intervals bound them. Without a sample of the other materials there is no recall.
    WITH counted AS (
        SELECT campaign, any_value(condition) AS condition, any_value(engine) AS engine, count(computed_hit) AS computed,
               count(*) - count(computed_hit) AS rejected, count(computed_hit) FILTER (NOT seen_in_training) AS judged,
               count(computed_hit) FILTER (predicted_hit AND NOT seen_in_training) AS hits,
               count(*) FILTER (computed_hit AND predicted_hit AND NOT seen_in_training) AS confirmed,
               count(computed_hit) FILTER (NOT predicted_hit AND NOT seen_in_training) AS others,
               count(*) FILTER (computed_hit AND NOT predicted_hit AND NOT seen_in_training) AS missed,
               sum(weight) FILTER (predicted_hit AND computed_hit IS NOT NULL AND NOT seen_in_training) AS all_hits,
               sum(weight) FILTER (NOT predicted_hit AND computed_hit IS NOT NULL AND NOT seen_in_training) AS all_others
        FROM verification GROUP BY campaign),
    ends AS (
        SELECT *, unnest([-1.96, 0, 1.96]) AS z FROM counted),
    shares AS (
        SELECT *, (confirmed + z * z / 2 + z * sqrt(confirmed * (hits - confirmed) / hits + z * z / 4)) / (hits + z * z) AS true_hits,
               (missed + z * z / 2 - z * sqrt(missed * (others - missed) / others + z * z / 4)) / (others + z * z) AS false_others
        FROM ends),
    scores AS (
        SELECT *, true_hits AS precision, all_hits * true_hits / nullif(all_hits * true_hits + all_others * false_others, 0) AS recall,
               2 * all_hits * true_hits / (all_hits + all_hits * true_hits + all_others * false_others) AS f1
        FROM shares)
    SELECT campaign, any_value(engine) AS engine, any_value(hits) AS hits, any_value(confirmed) AS confirmed, any_value(others) AS others,
           any_value(missed) AS missed, round(max(precision) FILTER (z = 0), 4) AS precision, round(max(precision) FILTER (z < 0), 4) AS precision_low,
           round(max(precision) FILTER (z > 0), 4) AS precision_high, round(max(recall) FILTER (z = 0), 4) AS recall,
           round(max(recall) FILTER (z < 0), 4) AS recall_low, round(max(recall) FILTER (z > 0), 4) AS recall_high,
           round(max(f1) FILTER (z = 0), 4) AS f1, round(max(f1) FILTER (z < 0), 4) AS f1_low, round(max(f1) FILTER (z > 0), 4) AS f1_high,
           any_value(judged) AS judged, any_value(computed) AS computed, any_value(rejected) AS rejected, any_value(condition) AS condition
    FROM scores GROUP BY campaign)
ORDER BY campaign;
