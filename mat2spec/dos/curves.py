"""Raw curves of electrons or phonons: conversion to arrays of numbers, and the checks that both kinds share."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from mat2spec.errors import SpectrumError


def as_numbers(material_id: str, name: str, values: Any) -> Float64[np.ndarray, "..."]:
    """Convert an array, or lists of numbers, to float64.

    Args:
        material_id: Name of the material in errors.
        name: What the numbers are, in errors.
        values: As a user or a file gave them.

    Raises:
        SpectrumError: If they are missing, no real numbers, or lists of unequal length.
    """
    if values is None:
        raise SpectrumError(material_id, f"the {name} are missing (None); give a number for each point")
    try:
        numbers = np.asarray(values)
    except ValueError:  # lists of unequal length
        raise SpectrumError(material_id, f"the {name} are lists of unequal length; give one for each point") from None
    if np.iscomplexobj(numbers):
        raise SpectrumError(
            material_id, f"the {name} are complex numbers; give real ones, imaginary frequencies as negative numbers"
        )
    if numbers.dtype.kind not in "iuf":
        raise SpectrumError(material_id, f"the {name} are no numbers (type {numbers.dtype}); give a number each")
    return numbers.astype(np.float64)


def check_points(
    material_id: str, name: str, unit: str, points: Float64[np.ndarray, "..."], densities: Float64[np.ndarray, "..."]
) -> None:
    """Check that there is one density for each point, and that the points are finite and ascend.

    Args:
        material_id: Name of the material in errors.
        name: "energies" or "frequencies".
        unit: Unit of the points.
        points: Axis of the curve.
        densities: One for each point along the last axis.

    Raises:
        SpectrumError: With the first point at fault.
    """
    if points.ndim != 1 or densities.ndim == 0 or len(points) < 2 or densities.shape[-1] != len(points):
        count = densities.shape[-1] if densities.ndim else 1
        rule = f"{count} densities at {points.size} {name}; give one for each, and at least two"
        raise SpectrumError(material_id, rule)
    if not np.isfinite(points).all():
        index = np.flatnonzero(~np.isfinite(points))[0]
        raise SpectrumError(material_id, f"point {index} of the {name} is not finite; remove the point")
    if (falls := np.flatnonzero(np.diff(points) <= 0)).size:
        i = int(falls[0])
        rule = f"{name} must ascend, got {points[i]:g} ≥ {points[i + 1]:g} {unit}"
        raise SpectrumError(material_id, f"{rule}; sort the curve")
    if not np.isfinite(densities).all():
        i = int(np.argwhere(~np.isfinite(densities))[0][-1])
        raise SpectrumError(material_id, f"the density at {points[i]:g} {unit} is not finite; compute it again")


def check_noise(material_id: str, unit: str, densities: Float64[np.ndarray, "..."], max_negative: float) -> None:
    """Check that negative densities are no more than noise.

    Args:
        material_id: Name of the material in errors.
        unit: Unit of the densities, with a leading space, or nothing.
        densities: Of a curve.
        max_negative: Largest negative density, as a fraction of the maximum.

    Raises:
        SpectrumError: With the lowest density.
    """
    lowest, highest = densities.min(), densities.max()
    if lowest < -max_negative * max(highest, 0.0):
        limit = f"noise may reach −{max_negative:g} of the maximum, which is {highest:g}"
        rule = f"a density is {lowest:g}{unit}; {limit}"
        raise SpectrumError(material_id, f"{rule}; use tetrahedra or Gaussians")
