"""Longer help texts, which follow the summary of a command in its `--help`."""

EVALUATION = """\
Prints the scores on each scale, and writes beside FILE.json:
  FILE.json             the scores, the checkpoint, its training and the labels
  FILE.parquet          one row per material: errors, derived quantities, both spectra, and how many training
                        materials contain all of its elements
  FILE-spectra.png      predicted and computed spectra, one material from each fifth of the error
  FILE-errors.png       errors by number of elements, of sites, and of training materials with all of its elements
  FILE-heat.png         phonons: relative errors of heat capacity and mean frequency
  FILE-thresholds.png   electrons: precision and recall of VB gaps by the density that counts as low
  FILE-gaps.png         checkpoints that predict band gaps: predicted against known ones

Scales, all in the unit of the labels, with negative densities set to zero:
  self                  the prediction as users get it (checkpoints that predict the number of states)
  true-sum              the prediction scaled to the sum of its label (the paper's rows SumNorm)
  unit-max              the prediction scaled to the maximum of its label (the paper's rows MaxNorm)

Scores: r2 (variance-weighted over bins), mae, mse; wd, Wasserstein distance [cm^-1, eV]; and
  phonons               MAE and MSE of mean_frequency [cm^-1], of heat_capacity (C_V at 300 K, J/K per mole of atoms)
                        and of cv_paper (as published: per mole of cells, pure elements per mole of atoms)
  electrons             vb_gap: f1, precision, recall and counts of a gap below the valence band maximum
  band gaps             roc_auc and accuracy of metals; mae [eV] of the most likely gap, of all and of gapped ones"""
"""What `mat2spec evaluate` prints and writes."""


def ready_queries() -> str:
    """Names and titles of the ready queries, with the kind of run that answers each."""
    from mat2spec.query.catalog import cookbook

    lines = [f"  @{name} [{query.grid or 'any'}]: {query.title}" for name, query in cookbook().items()]
    return "\n".join(["Ready queries, and the kind of run that answers each:", *lines])
