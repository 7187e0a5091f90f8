"""A tour of a posterior: sample a few stars, look at chains, field, mass model and null test.

Run from the checkout: python examples/posterior_tour.py [--stars 400] [--output posterior-tour]. Two to four minutes;
every figure goes to the folder. In a notebook the same calls show themselves.
"""

import argparse
from pathlib import Path

import arviz as az
import matplotlib

import otibayes as oti

PARAMETERS = ["m_disk", "h_z", "z_sun", "vz_sun"]


def diagnose(post, output: Path) -> None:
    """ArviZ, as on any posterior: are the chains to be believed?"""
    matplotlib.use("Agg")
    print(az.summary(post, var_names=PARAMETERS, ci_prob=0.95))
    for name, given in {
        "plot_trace": {"var_names": PARAMETERS},
        "plot_rank": {"var_names": PARAMETERS},
        "plot_pair": {"var_names": PARAMETERS},
        "plot_forest": {"var_names": ["scatter", "amplitude"]},
        "plot_energy": {},
        "plot_prior_posterior": {"var_names": PARAMETERS},
        "plot_ppc_dist": {},
    }.items():
        getattr(az, name)(post, **given).savefig(output / f"{name}.png")


def show(post, output: Path) -> None:
    """What only this model has."""
    oti.plot_field(post).savefig(output / "field.png", dpi=130)
    oti.plot_profiles(post).savefig(output / "profiles.png", dpi=130)
    test = oti.null_test(post)
    print("null test, mean over sd; b2 is the one that no parameter can change")
    print(test.pull.to_pandas().round(2))
    oti.plot_null_test(post, test).savefig(output / "null_test.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("posterior-tour"))
    given = parser.parse_args()
    given.output.mkdir(exist_ok=True)
    post = oti.sample(oti.embedded_stars()[: given.stars], seed=0)
    oti.save(post, given.output / "posterior.nc")
    diagnose(post, given.output)
    show(post, given.output)
    print(f"written: {given.output}/")


if __name__ == "__main__":
    main()
