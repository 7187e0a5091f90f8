"""Three answers side by side, equation 8, chi^2 and the posterior, with what to know before believing any of them."""

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import InputError
from ..classical.joint import MARK, weighted_statistics

if TYPE_CHECKING:  # pandas and ArviZ are slow to import, and this module is imported with the package
    import pandas as pd
    import xarray as xr

__all__ = ["check_pair", "chi2_rise", "compare", "describe", "summary"]

_ILL = 0.3  # a component of the flat direction (a unit vector) from which a parameter is called ill-determined
_UNSURE = 0.05  # share of fits that failed in one way, from which it is told
_PULL = 0.5  # posterior sigma, from which the posterior's own pull is told
_APART = 2.0  # sigma between chi^2 and the posterior, from which it is told; rare, as both have the same stars
_SHIFT = 0.3  # bootstrap sd: what other weights move, from which it is told


def check_pair(classical: "xr.DataTree", posterior: "xr.DataTree") -> None:
    """Raise `InputError` unless these are a classical result and a posterior of one mass model."""
    for name, tree in (("classical", classical), ("posterior", posterior)):
        kind = getattr(tree, "attrs", {}).get("otibayes_kind", "something else")
        if kind != name:
            raise InputError(f"compare needs a classical result and a posterior, in that order; the {name} is {kind}")
    ours, theirs = classical.attrs["parameters"], posterior.attrs["parameters"]
    if ours != theirs:
        raise InputError(f"the results are of different mass models: parameters {ours} and {theirs}")


def compare(classical: "xr.DataTree", posterior: "xr.DataTree") -> "pd.DataFrame":
    """One row for each parameter and derived quantity, three answers in it.

    Columns: `unit`. Equation 8, whose errors are across its valley only: `eq8_mean`, `eq8_sd` (joint constraint of the
    elements: generalised least squares with enough bootstraps, else the product of Gaussians). chi^2: `chi2_mean`,
    `chi2_sd` (joint, to first order) and the 68% profile interval `chi2_low_68`, `chi2_high_68`; of each element
    `chi2_ELEMENT`, `chi2_ELEMENT_low`, `chi2_ELEMENT_high`; NaN where there is none. `posterior_mean`, `posterior_sd`,
    `low_95`, `high_95` (2.5% and 97.5%). `difference_sigma`: joint chi^2 less posterior over the root of the summed
    variances, of chi^2 that of its interval on the side of the posterior; most stars are common to both, so that it is
    no test of significance. `pull`: how far the posterior is off on average, in sigma, were its own answer the truth
    (docs/generative.md). `r_hat`, `ess_bulk`, `ess_tail`; `truth`, NaN where unknown; `eq8_product_mean`,
    `eq8_product_sd`; `eq8_ELEMENT_mean`, `eq8_ELEMENT_sd` of the bootstraps; `note`, where chi^2 and the posterior are
    far apart, equation 8 is ill-determined, or the pull is large. Joint derived quantities are to first order.
    `table.attrs["eq8"]` names the joint constraint.

    Raises `InputError` where an argument is not such a result, or the mass models differ.
    """
    import pandas as pd

    check_pair(classical, posterior)
    combination, joint = _joint(classical)
    draws = posterior["posterior"].dataset
    truth = json.loads(posterior.attrs["truth"])
    parameters = posterior.attrs["parameters"].split(",")
    derived = [n for n in classical["posterior"].data_vars if n not in parameters and n in draws]
    notes, pulls = _notes(classical, combination), _pulls(posterior)
    unknown = (np.nan,) * 4
    rows = {}
    for name in [*parameters, *derived]:
        values = draws[name].values
        row: dict[str, Any] = {"unit": draws[name].attrs.get("units", "")}
        row["eq8_mean"], row["eq8_sd"], *_ = joint.get(combination, {}).get(name, unknown)
        mean, sd, low, high = joint.get("chi2", {}).get(name, unknown)
        row |= {"chi2_mean": mean, "chi2_sd": sd, "chi2_low_68": low, "chi2_high_68": high}
        row |= _chi2_of_elements(classical, name)
        row |= {"posterior_mean": values.mean(), "posterior_sd": values.std(ddof=1)}
        row["low_95"], row["high_95"] = np.quantile(values, [0.025, 0.975])
        side = mean - low if values.mean() < mean else high - mean
        width = side if np.isfinite(side) else sd
        row["difference_sigma"] = (mean - values.mean()) / np.hypot(width, values.std(ddof=1))
        row["pull"] = pulls.get(name, np.nan)
        row |= _diagnostics(draws[name])
        row["truth"] = truth.get(name, np.nan)
        row["eq8_product_mean"], row["eq8_product_sd"], *_ = joint.get("product", {}).get(name, unknown)
        for element, one in classical["posterior"].dataset[name].groupby("element"):
            row[f"eq8_{element}_mean"], row[f"eq8_{element}_sd"] = float(one.mean()), float(one.std(ddof=1))
        pulled = f"the posterior's own pull is {row['pull']:+.2g} sigma" if abs(row["pull"]) > _PULL else ""
        far = ""
        if name in parameters and (sigma := abs(row["difference_sigma"])) > _APART:
            far = (
                f"chi^2 and the posterior are {sigma:.1f} sigma apart: look for an abundance zero point that follows"
                " distance"
            )
        row["note"] = "; ".join(filter(None, (far, notes.get(name), pulled)))
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")
    table.attrs = {"eq8": combination}
    return table


def _chi2_of_elements(classical: "xr.DataTree", name: str) -> dict[str, float]:
    """Each element's chi^2 optimum of a quantity, and its interval where the quantity is a parameter."""
    if "chi2" not in classical.children:
        return {}
    chi2 = classical["chi2"].dataset
    row = {}
    for element in chi2.element.values.tolist():
        one = chi2.sel(element=element)
        interval = one.interval.sel(parameter=name).values if name in one.parameter.values else (np.nan, np.nan)
        row[f"chi2_{element}"] = float(one[name])
        row[f"chi2_{element}_low"], row[f"chi2_{element}_high"] = map(float, interval)
    return row


def _joint(classical: "xr.DataTree") -> tuple[str, dict[str, dict[str, tuple[float, ...]]]]:
    """The joint constraint of equation 8 to show, and (mean, sd, low, high) by constraint and name."""
    if "joint" not in classical.children:
        return "none", {}
    joint = classical["joint"].dataset
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in joint.combination.values.tolist():
        one = joint.sel(combination=name)
        sd = np.sqrt(np.diagonal(one.covariance.values))
        parameters = np.column_stack([one["mean"], sd, one.interval])
        derived = np.column_stack([one.derived_mean, one.derived_sd, one.derived_interval])
        names = [*one.parameter.values.tolist(), *one.derived.values.tolist()]
        found[name] = dict(zip(names, map(tuple, np.vstack([parameters, derived]).tolist()), strict=True))
    return next((name for name in ("gls", "product") if name in found), "none"), found


def _diagnostics(draws: Any) -> dict[str, float]:
    import arviz as az

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what does not vary has no R-hat; it is NaN
        one = draws.to_dataset(name="x")
        found = {"r_hat": az.rhat(one), "ess_bulk": az.ess(one, method="bulk"), "ess_tail": az.ess(one, method="tail")}
        return {name: float(table["x"]) for name, table in found.items()}


def _pulls(posterior: "xr.DataTree") -> dict[str, float]:
    """Of every parameter and derived quantity; none for an interrupted run."""
    if "pull" not in posterior.children:
        return {}
    pull = posterior["pull"].dataset
    return {str(name): float(value) for name, value in pull.data_vars.items() if not value.dims}


def _notes(classical: "xr.DataTree", combination: str) -> dict[str, str]:
    """What must be told of a parameter's answer from equation 8."""
    valley, notes = classical["valley"].dataset, {}
    steep = np.abs(valley.flat).max("element")
    for name in valley.parameter.values.tolist():
        if float(steep.sel(parameter=name)) > _ILL:
            spread = float(valley.spread.sel(parameter=name).max())
            notes[name] = f"eq. 8 is ill-determined: along its valley other starts end {spread:.2g} (sd) apart"
    if combination in ("gls", "product"):
        joint = classical["joint"].dataset.sel(combination=combination)
        if not bool(joint.possible):
            for name in joint.derived.values.tolist():
                notes[name] = "the joint mean of eq. 8 is outside the bounds; nothing derives from it"
    return notes


def chi2_rise(classical: "xr.DataTree", theta: Any) -> np.ndarray:
    """By how much chi^2 of each element (..., E) is above its minimum at theta (..., d), in the parameters' units.

    At the truth it is distributed as chi^2 with d degrees of freedom (Wilks 1938); theta may be a posterior's draws.
    NaN outside the region of an element's surface. Raises `InputError` for a result without chi^2.
    """
    if "chi2" not in classical.children:
        raise InputError("the result has no chi^2: fit with the surface, bins of J_z and more bootstraps")
    found = classical["chi2"].dataset
    theta = np.asarray(theta, float)
    rises = []
    for e, function in enumerate(weighted_statistics(found)):
        lowest = (found.root.values[e] @ found.statistics.values[e]) ** 2
        values = np.array([function(point) for point in theta.reshape(-1, theta.shape[-1])])
        rises.append((values**2).sum(1) - lowest.sum())
    return np.stack(rises, 1).reshape(*theta.shape[:-1], len(rises))


def describe(classical: "xr.DataTree", posterior: "xr.DataTree") -> list[str]:
    """Lines to read with the table: valley, failures, convergence, surface errors, stars left out."""
    check_pair(classical, posterior)
    lines = _about_classical(classical)
    a = posterior.attrs
    lines.append(
        f"posterior: R-hat <= {a['max_r_hat']:.3f}, ESS >= {a['min_ess_bulk']:.0f} (bulk), {a['min_ess_tail']:.0f}"
        f" (tail), {a['divergences']} divergences, over all that was sampled"
        + ("" if a["converged"] else ": NOT CONVERGED, sample longer")
    )
    if not a.get("complete", 1):
        lines.append("posterior: INCOMPLETE: interrupted, and its surface not checked; go on with --resume")
    if "surface" in posterior.children:
        s = posterior["surface"].attrs
        lines.append(
            f"surface (posterior): error in ln L at draws {s['posterior_rms']:.2g} rms, {s['posterior_worst']:.2g} at"
            f" worst; Pareto k {s['khat']:.2f}; it moves a mean by {s['shift']:.2g} sigma at most"
        )
        lines.append(
            f"basis: {s['basis_size']} cosines, {s['combinations']} combinations of which the stars can tell; a finer"
            f" basis would move a mean by {s['basis_shift']:.2g} sigma at most"
        )
    if pulls := _pulls(posterior):
        told = ", ".join(f"{name} {pulls[name]:+.2g}" for name in a["parameters"].split(","))
        lines.append(f"pull (posterior): for stars that follow its own answer, it is off on average by {told} sigma")
    for name, tree in (("classical", classical), ("posterior", posterior)):
        dropped = json.loads(tree.attrs["dropped"])
        if dropped:
            reasons = ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
            lines.append(f"stars ({name}): {tree.attrs['stars']} used; left out: {reasons}")
        else:
            lines.append(f"stars ({name}): {tree.attrs['stars']} used, none left out")
    different = [n for n in ("catalogue_sha256", "elements") if classical.attrs[n] != posterior.attrs[n]]
    ours, theirs = (tree["constant_data"].dataset["row"].values for tree in (classical, posterior))
    numbers = {tree.attrs["stars"] for tree in (classical, posterior)}
    if different or len(numbers) > 1 or not np.isin(theirs, ours).all():
        lines.append(f"note: the results are not of the same {' and '.join(different) or 'stars'}")
    return lines


def _about_classical(classical: "xr.DataTree") -> list[str]:
    valley = classical["valley"].dataset
    lines = [f"eq. 8: {MARK}; chi^2 and the posterior have no such valley"]
    for element in valley.element.values.tolist():
        one = valley.sel(element=element)
        flat = ", ".join(f"{n} {v:+.2f}" for n, v in zip(one.parameter.values, one.flat.values, strict=True))
        spread = ", ".join(f"{n} {v:.2g}" for n, v in zip(one.parameter.values, one.spread.values, strict=True))
        eigenvalues = ", ".join(f"{value:.1e}" for value in one.eigenvalues.values)
        lines.append(
            f"valley ({element}): eq. 8 is flat along ({flat}) in tenths of the bounds; eigenvalues {eigenvalues};"
            f" {one.sizes['start']} other starts end apart by (sd) {spread}"
        )
    fits = classical["sample_stats"].dataset
    stopped, bound = 1 - float(fits.converged.mean()), float(fits.at_bound.mean())
    lines.append(
        f"eq. 8: of {fits.converged.size} bootstrap fits {stopped:.0%} did not converge, {bound:.0%} are at a bound"
        + ("; fits at a bound make its sd a lower limit" if bound > _UNSURE else "")
    )
    if "joint" not in classical.children:
        lines.append("eq. 8: no joint constraint; it needs more bootstraps than parameters")
    elif "gls" not in classical["joint"].combination.values:
        lines.append("eq. 8: the joint constraint is the product over elements, whose errors are too small; generalised"
                     " least squares need more bootstraps")  # fmt: skip
    return [*lines, *_about_weights(classical["weights"].dataset), *_about_surfaces(classical), _about_chi2(classical)]


def _about_weights(weights: "xr.Dataset") -> list[str]:
    """Where other weights of the stars move equation 8, and errors that were missing."""
    lines = []
    chosen, other = weights.attrs["weights"], weights.attrs["other"]
    for element in weights.element.values.tolist():
        shift = weights["shift"].sel(element=element)
        far = [f"{n} by {v:+.2g}" for n, v in zip(shift.parameter.values, shift.values, strict=True) if abs(v) > _SHIFT]
        if far:
            lines.append(
                f"weights ({element}): {other} weights in place of {chosen} move eq. 8 in {', '.join(far)} bootstrap sd"
            )
        if missing := int(weights.missing_errors.sel(element=element)):
            lines.append(f"weights ({element}): {missing} stars without an error have the median error of the others")
    return lines


def _about_surfaces(classical: "xr.DataTree") -> list[str]:
    if "surface" not in classical.children:
        return []
    surface = classical["surface"].dataset
    errors = ", ".join(
        f"{e} {rms:.2g} (worst {worst:.2g})"
        for e, rms, worst in zip(surface.element.values, surface.rms.values, surface.worst.values, strict=True)
    )
    return [
        f"surface (eq. 8): plain less surface coefficients at {surface.sizes['pair']} random optima, rms in bootstrap"
        f" sd: {errors}; {surface.attrs['passes']} passes over the stars"
    ]


def _about_chi2(classical: "xr.DataTree") -> str:
    if "chi2" not in classical.children:
        return "chi^2: none; it needs the surface, bins of J_z with 100 stars each, and more bootstraps than statistics"
    c = classical["chi2"].dataset
    each = zip(c.element.values, c.value.values, c.p_value.values, strict=True)
    values = ", ".join(f"{e} {v:.1f} (p {p:.2f})" for e, v, p in each)
    return f"chi^2 in bins of J_z (ours): minimum {values}; {c.attrs['dof']} degrees of freedom"


def summary(table: "pd.DataFrame") -> str:
    """The table for a terminal: the three answers, then chi^2 of each element."""
    import pandas as pd

    names = {
        "eq8_mean": "eq. 8*",
        "eq8_sd": "sd*",
        "chi2_mean": "chi^2",
        "chi2_low_68": "low_68",
        "chi2_high_68": "high_68",
        "posterior_mean": "posterior",
    }
    names |= {"posterior_sd": "sd ", "low_95": "low_95", "high_95": "high_95", "difference_sigma": "diff/sigma"}
    names |= {"r_hat": "r_hat", "ess_bulk": "ess"} | ({"truth": "truth"} if table.truth.notna().any() else {})
    shown = table[list(names)].set_axis(list(names.values()), axis=1)
    shown.index = [f"{name} [{unit}]" if unit else name for name, unit in zip(table.index, table.unit, strict=True)]
    shown["ess"] = shown["ess"].round()
    shown["r_hat"] = shown["r_hat"].round(3)
    title = {
        "gls": "generalised least squares over elements",
        "product": "product over elements",
        "none": "no joint fit",
    }
    lines = [shown.to_string(float_format=lambda x: f"{x:.4g}", na_rep="-")]
    lines.append(f"* eq. 8 of Price-Whelan et al. (2021), {title[table.attrs['eq8']]}: {MARK}")
    elements = [column[len("chi2_") : -len("_low")] for column in table if column.endswith("_low")]
    if elements:
        rows = table[table[[f"chi2_{element}_low" for element in elements]].notna().any(axis=1)]
        cells = {
            element: [
                f"{row[f'chi2_{element}']:.4g} ({row[f'chi2_{element}_low']:.4g}, {row[f'chi2_{element}_high']:.4g})"
                for _, row in rows.iterrows()
            ]
            for element in elements
        }
        lines += ["chi^2 of each element, with 68% profile intervals (nan: open within the bounds)"]
        lines.append(pd.DataFrame(cells, index=rows.index.rename(None)).to_string())
    return "\n".join([*lines, *(f"{name}: {note}" for name, note in table.note.items() if note)])
