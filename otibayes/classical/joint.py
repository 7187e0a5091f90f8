"""One constraint from several elements: the paper's product of Gaussians, and the one that knows they share stars."""

from typing import Any, NamedTuple

import numpy as np

from ..base.errors import InputError

__all__ = ["Joint", "joint_gls", "joint_product"]


class Joint(NamedTuple):
    """A Gaussian over theta: `mean` (d,) and `covariance` (d, d), in the parameters' units."""

    mean: np.ndarray
    covariance: np.ndarray


def joint_product(replicates: Any) -> Joint:
    """Product of the elements' Gaussians, with the means and covariances of `replicates` (E, B, d) (PW21, Table 1).

    It takes elements as independent, which they are not, so that its covariance is too small. Raises `InputError` where
    B does not exceed d, with which the covariance of an element has no inverse.
    """
    replicates = np.asarray(replicates)
    _, B, d = replicates.shape
    if d >= B:
        raise InputError(f"the covariance of {d} parameters needs more bootstraps, got {B}")
    inverses = np.stack([np.linalg.inv(np.cov(element.T)) for element in replicates])
    covariance = np.linalg.inv(inverses.sum(0))
    return Joint(covariance @ np.einsum("eij,ej->i", inverses, replicates.mean(1)), covariance)


def joint_gls(replicates: Any) -> Joint:
    """Generalised least squares over elements, with the cross-covariance of their `replicates` (E, B, d).

    The resamples are common to all. The inverse of a covariance estimated from B draws is too large; Hartlap et al.
    (2007) give the factor. Raises `InputError` where B does not exceed E d + 2.
    """
    E, B, d = np.shape(replicates)
    if E * d + 2 >= B:
        raise InputError(f"the joint constraint of {E} elements needs more than {E * d + 2} bootstraps, got {B}")
    stacked = np.moveaxis(np.asarray(replicates), 0, 1).reshape(B, E * d)
    inverse = np.linalg.inv(np.cov(stacked.T)) * (B - E * d - 2) / (B - 1)
    A = np.tile(np.eye(d), (E, 1))
    covariance = np.linalg.inv(A.T @ inverse @ A)
    return Joint(covariance @ A.T @ inverse @ stacked.mean(0), covariance)
