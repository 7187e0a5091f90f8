"""Both answers side by side, in one table, with what the reader must know before believing either."""

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import InputError
from ..base.surface import Region, reader

if TYPE_CHECKING:  # pandas and ArviZ are slow to import, and this module is imported with the package
    import pandas as pd
    import xarray as xr

__all__ = ["check_pair", "chi2_rise", "compare", "describe", "summary"]

_ILL = 0.3  # a component of the flat direction (a unit vector) from which a parameter is called ill-determined
_UNSURE = 0.05  # of fits that failed in one way, from which it is worth a word


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
    """One row for each parameter and derived quantity, both answers in it.

    Columns: `unit`; `classical_mean`, `classical_sd` (the joint constraint over elements: generalised least squares
    where there are bootstraps enough, else the product of Gaussians; derived quantities to first order about it);
    `posterior_mean`, `posterior_sd`, `low_95`, `high_95` (2.5% and 97.5%); `difference_sigma` (classical - posterior
    over the root of the summed variances; both saw the same stars, so that it is no test of significance); `r_hat`,
    `ess_bulk`, `ess_tail`; `truth`, NaN where unknown; `product_mean`, `product_sd`; `ELEMENT_mean`, `ELEMENT_sd` of
    the bootstraps; `note`, where the classical answer is ill-determined. `table.attrs` says which joint it is.

    Raises `InputError` where an argument is not such a result, or the mass models differ.
    """
    import pandas as pd

    check_pair(classical, posterior)
    combination, joint = _joint(classical)
    draws = posterior["posterior"].dataset
    truth = json.loads(posterior.attrs["truth"])
    parameters = posterior.attrs["parameters"].split(",")
    derived = [n for n in classical["posterior"].data_vars if n not in parameters and n in draws]
    notes = _notes(classical, combination)
    rows = {}
    for name in [*parameters, *derived]:
        values = draws[name].values
        mean, sd = joint.get(combination, {}).get(name, (np.nan, np.nan))
        row: dict[str, Any] = {"unit": draws[name].attrs.get("units", ""), "classical_mean": mean, "classical_sd": sd}
        row |= {"posterior_mean": values.mean(), "posterior_sd": values.std(ddof=1)}
        row["low_95"], row["high_95"] = np.quantile(values, [0.025, 0.975])
        row["difference_sigma"] = (mean - values.mean()) / np.hypot(sd, values.std(ddof=1))
        row |= _diagnostics(draws[name])
        row["truth"] = truth.get(name, np.nan)
        row["product_mean"], row["product_sd"] = joint.get("product", {}).get(name, (np.nan, np.nan))
        for element, replicates in classical["posterior"].dataset[name].groupby("element"):
            row[f"{element}_mean"], row[f"{element}_sd"] = float(replicates.mean()), float(replicates.std(ddof=1))
        row["note"] = notes.get(name, "")
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")
    table.attrs = {"classical": combination}
    return table


def _joint(classical: "xr.DataTree") -> tuple[str, dict[str, dict[str, tuple[float, float]]]]:
    """The joint constraint to show, and (mean, sd) by constraint and name."""
    if "joint" not in classical.children:
        return "none", {}
    joint = classical["joint"].dataset
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name in joint.combination.values.tolist():
        one = joint.sel(combination=name)
        sd = np.sqrt(np.diagonal(one.covariance.values))
        pairs = zip(one.parameter.values.tolist(), one["mean"].values.tolist(), sd.tolist(), strict=True)
        found[name] = {parameter: (mean, width) for parameter, mean, width in pairs}
        derived = zip(
            one.derived.values.tolist(), one.derived_mean.values.tolist(), one.derived_sd.values.tolist(), strict=True
        )
        found[name] |= {quantity: (mean, width) for quantity, mean, width in derived}
    return ("gls" if "gls" in found else "product"), found


def _diagnostics(draws: Any) -> dict[str, float]:
    import arviz as az

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what does not vary has no R-hat; it is NaN
        one = draws.to_dataset(name="x")
        found = {"r_hat": az.rhat(one), "ess_bulk": az.ess(one, method="bulk"), "ess_tail": az.ess(one, method="tail")}
        return {name: float(table["x"]) for name, table in found.items()}


def _notes(classical: "xr.DataTree", combination: str) -> dict[str, str]:
    """What must be said of the classical answer for a parameter."""
    valley, notes = classical["valley"].dataset, {}
    steep = np.abs(valley.flat).max("element")
    for name in valley.parameter.values.tolist():
        if float(steep.sel(parameter=name)) > _ILL:
            spread = float(valley.spread.sel(parameter=name).max())
            notes[name] = f"ill-determined: along the classical valley; other starts end {spread:.2g} (sd) apart"
    if combination in ("gls", "product"):
        joint = classical["joint"].dataset.sel(combination=combination)
        if not bool(joint.possible):
            for name in joint.derived.values.tolist():
                notes[name] = "the classical joint mean is outside the bounds; nothing derives from it"
    return notes


def chi2_rise(classical: "xr.DataTree", theta: Any) -> np.ndarray:
    """By how much chi^2 of each element (..., E) is above its minimum at theta (..., d), in the parameters' units.

    At the truth it is distributed as chi^2 with d degrees of freedom, however the valley bends (Wilks 1938); theta may
    be a posterior's draws. NaN outside the region of an element's surface. Raises `InputError` for a result without
    chi^2.
    """
    if "chi2" not in classical.children:
        raise InputError("the result has no chi^2: fit with the surface, bins of J_z and more bootstraps")
    found = classical["chi2"].dataset
    theta = np.asarray(theta, float)
    anywhere = np.full(theta.shape[-1], np.inf)
    rises = []
    for e in range(found.sizes["element"]):
        one = found.isel(element=e)
        region = Region(one.centre.values, one.whitening.values, float(one["size"]), -anywhere, anywhere)
        read = reader(region, int(found.attrs["degree"]), one.terms.values)
        statistics = np.array([read(point) for point in theta.reshape(-1, theta.shape[-1])])
        lowest, root = one.statistics.values, one.root.values
        rises.append(((statistics @ root.T) ** 2).sum(1) - ((root @ lowest) ** 2).sum())
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
            f" basis would move a mean by {s['basis_shift']:.2g} +- {s['basis_noise']:.2g} sigma at most"
        )
    for name, tree in (("classical", classical), ("posterior", posterior)):
        dropped = json.loads(tree.attrs["dropped"])
        if dropped:
            reasons = ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
            lines.append(f"stars ({name}): {tree.attrs['stars']} used; left out: {reasons}")
        else:
            lines.append(f"stars ({name}): {tree.attrs['stars']} used, none left out")
    different = [n for n in ("catalogue_sha256", "elements") if classical.attrs[n] != posterior.attrs[n]]
    ours, theirs = (tree["constant_data"].dataset["row"].values for tree in (classical, posterior))
    if different or not np.array_equal(ours, theirs):
        lines.append(f"note: the results are not of the same {' and '.join(different) or 'stars'}")
    return lines


def _about_classical(classical: "xr.DataTree") -> list[str]:
    valley, lines = classical["valley"].dataset, []
    for element in valley.element.values.tolist():
        one = valley.sel(element=element)
        flat = ", ".join(f"{n} {v:+.2f}" for n, v in zip(one.parameter.values, one.flat.values, strict=True))
        spread = ", ".join(f"{n} {v:.2g}" for n, v in zip(one.parameter.values, one.spread.values, strict=True))
        eigenvalues = ", ".join(f"{value:.1e}" for value in one.eigenvalues.values)
        lines.append(
            f"valley ({element}): the objective is flat along ({flat}) in tenths of the bounds; eigenvalues"
            f" {eigenvalues}; {one.sizes['start']} other starts end apart by (sd) {spread}"
        )
    statistics = classical["sample_stats"].dataset
    stopped, bound = 1 - float(statistics.converged.mean()), float(statistics.at_bound.mean())
    fits = statistics.converged.size
    lines.append(f"classical: of {fits} bootstrap fits {stopped:.0%} did not converge, {bound:.0%} are at a bound")
    if "joint" not in classical.children:
        lines.append("classical: no joint constraint; it needs more bootstraps than parameters")
    elif "gls" not in classical["joint"].combination.values:
        lines.append("classical: the joint constraint is the product over elements, which claims too much; GLS needs"
                     " more bootstraps")  # fmt: skip
    if bound > _UNSURE:
        lines.append("classical: fits at a bound make its sd a lower limit")
    if "surface" in classical.children:
        s = classical["surface"].attrs
        before = f" ({s['surface_worst']:.2g} before they were polished)" if s["polished"] else ""
        lines.append(
            f"surface (classical): coefficients off by {s['worst']:.2g} bootstrap sd at the worst of the optima checked"
            f"{before}; {s['nodes']} passes over the stars; {s['edge']} elements with an optimum on the edge"
        )
    if "chi2" in classical.children:
        c = classical["chi2"].dataset
        first = str(c.parameter.values[0])
        each = zip(c.element.values, c.value.values, c.p_value.values, c[first].values, c.interval.values, strict=True)
        told = ", ".join(
            f"{e} {v:.1f} (p {p:.2f}; {first} {m:.3g}, {i[0, 0]:.3g} to {i[0, 1]:.3g})" for e, v, p, m, i in each
        )
        lines.append(f"chi^2 in bins of J_z (ours, without the valley): {told}; {c.attrs['dof']} degrees of freedom")
    return lines


def summary(table: "pd.DataFrame") -> str:
    """The table for a terminal: what most readers want of it."""
    columns = ["classical_mean", "classical_sd", "posterior_mean", "posterior_sd", "low_95", "high_95"]
    columns += ["difference_sigma", "r_hat", "ess_bulk"]
    if table.truth.notna().any():
        columns.append("truth")
    shown = table[columns].rename(columns={"difference_sigma": "diff/sigma", "ess_bulk": "ess"})
    shown = shown.rename(columns=lambda name: name.replace("classical", "class.").replace("posterior", "post."))
    shown.index = [f"{name} [{unit}]" if unit else name for name, unit in zip(table.index, table.unit, strict=True)]
    shown["ess"] = shown["ess"].round()
    shown["r_hat"] = shown["r_hat"].round(3)
    text = shown.to_string(float_format=lambda x: f"{x:.4g}", na_rep="-")
    notes = [f"{name}: {note}" for name, note in table.note.items() if note]
    title = {
        "gls": "generalised least squares over elements",
        "product": "product over elements",
        "none": "no joint fit",
    }
    return "\n".join([text, f"class. = {title[table.attrs['classical']]}", *notes])
