"""The door to the action layer: methods, blocks, statuses, and accuracy against O2GF and along orbits."""

import warnings
from pathlib import Path

import astropy.units as u
import gala.dynamics as gd
import numpy as np
import pytest
from astropy.table import Table
from gala.integrate import DOPRI853Integrator

from otibayes.base.errors import InputError
from otibayes.base.parameters import Parameters
from otibayes.base.settings import METHODS
from otibayes.dynamics import (
    ActionAngle,
    PhaseSpace,
    SampleActions,
    Status,
    action_angle,
    focal_length,
    phase_space,
)
from otibayes.dynamics.reference import gala_potential
from otibayes.stars import embedded_stars

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    import galpy.actionAngle  # noqa: F401

STAR = PhaseSpace(R=8.0, phi=0.3, z=0.4, vR=20.0, vT=210.0, vz=15.0)


def gap(a, b):
    return np.abs((np.asarray(a) - np.asarray(b) + np.pi) % (2 * np.pi) - np.pi)


@pytest.fixture(scope="module")
def by_method():
    return {method: action_angle(STAR, Parameters(), method=method) for method in METHODS}


def test_every_method_gives_the_same_star(by_method):
    ours = by_method["staeckel"]
    for result in by_method.values():
        assert isinstance(result, ActionAngle) and all(column.shape == (1,) for column in result)
        assert result.status[0] == Status.OK
        for name in ("J_R", "L_z", "J_z", "Omega_R", "Omega_phi", "Omega_z"):
            np.testing.assert_allclose(getattr(result, name), getattr(ours, name), rtol=0.02, err_msg=name)
        for name in ("theta_R", "theta_phi", "theta_z"):
            assert gap(getattr(result, name), getattr(ours, name)) < 0.02, name


def test_blocks_and_order_do_not_matter():
    rng = np.random.default_rng(0)
    n = 5000  # more than one block
    w = PhaseSpace(*(rng.normal(x, s, n) for x, s in zip(STAR, (0.5, 1.0, 0.3, 20.0, 10.0, 10.0), strict=True)))
    all_stars = action_angle(w, Parameters(), delta=4.0)
    backwards = action_angle(PhaseSpace(*(column[::-1] for column in w)), Parameters(), delta=4.0)
    one = action_angle(PhaseSpace(*(column[4321] for column in w)), Parameters(), delta=4.0)
    for name in ActionAngle._fields:
        np.testing.assert_allclose(getattr(backwards, name)[::-1], getattr(all_stars, name), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(getattr(one, name)[0], getattr(all_stars, name)[4321], rtol=1e-12, atol=1e-12)


def test_unknown_method():
    with pytest.raises(InputError, match="unknown action method 'torus'; choose one of staeckel, galpy, o2gf"):
        action_angle(STAR, Parameters(), method="torus")


@pytest.fixture(scope="module")
def reference(request):
    path = request.path.parents[2] / "shared" / "data" / "reference_actions.ecsv"
    if not path.is_file():
        pytest.skip("needs ../shared/data/reference_actions.ecsv, which is not part of the project")
    table = Table.read(path)
    return table[table["o2gf_ok"]]


def errors(J_R, J_z, theta_z, table):
    return {
        "J_R": np.abs(J_R / np.array(table["J_R_o2gf"]) - 1),
        "J_z": np.abs(J_z / np.array(table["J_z_o2gf"]) - 1),
        "theta_z": gap(theta_z, table["theta_z_o2gf"]),
    }


def ours_and_galpys(table, delta):
    theta = Parameters(m_disk=float(table["m_disk"][0]))
    w = PhaseSpace(*(np.array(table[name]) for name in PhaseSpace._fields))
    aa = action_angle(w, theta, delta=delta)
    galpys = [np.array(table[f"{name}_galpy"]) for name in ("J_R", "J_z", "theta_z")]
    return errors(aa.J_R, aa.J_z, aa.theta_z, table), errors(*galpys, table)


@pytest.mark.parametrize(
    ("m_disk", "J_R", "J_z", "theta_z"),
    [(0.5, 0.024, 0.006, 0.012), (1.0, 0.035, 0.005, 0.012), (1.5, 0.034, 0.005, 0.026)],
)
def test_no_worse_than_galpy_against_o2gf(reference, m_disk, J_R, J_z, theta_z):
    table = reference[reference["m_disk"] == m_disk]
    ours, galpys = ours_and_galpys(table, "orbit")
    for name, limit in {"J_R": J_R, "J_z": J_z, "theta_z": theta_z}.items():
        p95 = np.percentile(ours[name], 95)
        assert p95 < limit, name
        assert p95 < 1.15 * np.percentile(galpys[name], 95), name  # 150 stars: the 95th percentile is their eighth
        assert np.median(ours[name]) < 1.05 * np.median(galpys[name]), name


def test_against_o2gf_stars_of_our_own():
    """100 disk stars x three disks, made by `benchmarks/fudge_accuracy.py --stars 100 --seed 1 --write FILE`."""
    table = Table.read(Path(__file__).parent / "data" / "o2gf_actions.ecsv")
    shells, ours, galpys = [], [], []
    for m_disk in (0.5, 1.0, 1.5):
        rows, theta = table[table["m_disk"] == m_disk], Parameters(m_disk=m_disk)
        w = PhaseSpace(*(np.array(rows[name]) for name in PhaseSpace._fields))
        delta = focal_length(w, theta, "orbit")
        for found, method, at in ((shells, "staeckel", "shell"), (ours, "staeckel", delta), (galpys, "galpy", delta)):
            aa = action_angle(w, theta, method=method, delta=at)
            found.append(errors(aa.J_R, aa.J_z, aa.theta_z, rows))
    limits = {"J_R": (0.008, 0.027), "J_z": (0.004, 0.005), "theta_z": (0.012, 0.016)}
    for name, (of_shells, limit) in limits.items():
        best, p95, peer = (
            np.percentile(np.concatenate([e[name] for e in found]), 95) for found in (shells, ours, galpys)
        )
        assert best < of_shells, name
        assert p95 < limit, name
        assert p95 < 1.001 * peer, name


def test_equal_to_galpy_at_its_own_delta(reference):
    for m_disk in (0.5, 1.0, 1.5):
        table = reference[reference["m_disk"] == m_disk]
        ours, galpys = ours_and_galpys(table, np.array(table["delta_median"]))
        for name in ours:
            np.testing.assert_allclose(ours[name], galpys[name], atol=1e-6, err_msg=name)


def test_shell_delta_beats_orbit_delta_and_that_local_delta(reference):
    pooled = {}
    for delta in ("shell", "orbit", "local"):
        parts = [ours_and_galpys(reference[reference["m_disk"] == m], delta)[0] for m in (0.5, 1.0, 1.5)]
        pooled[delta] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, limit in {"J_R": 0.008, "J_z": 0.005, "theta_z": 0.012}.items():
        assert np.percentile(pooled["shell"][name], 95) < limit
    assert np.percentile(pooled["orbit"]["theta_z"], 95) < 0.5 * np.percentile(pooled["local"]["theta_z"], 95)
    assert np.mean(pooled["orbit"]["J_z"] < 0.005) > 0.94 > np.mean(pooled["local"]["J_z"] < 0.005)


def test_actions_along_an_orbit_scatter_as_the_fudge_does():
    theta = Parameters()
    c, s = np.cos(STAR.phi), np.sin(STAR.phi)
    position, velocity = (
        [STAR.R * c, STAR.R * s, STAR.z],
        [STAR.vR * c - STAR.vT * s, STAR.vR * s + STAR.vT * c, STAR.vz],
    )
    orbit = gala_potential(theta).integrate_orbit(
        gd.PhaseSpacePosition(position * u.kpc, velocity * u.km / u.s),
        dt=2 * u.Myr,
        n_steps=500,
        Integrator=DOPRI853Integrator,
    )
    cylindrical = orbit.cylindrical
    R, phi, z = (x.value for x in (cylindrical.rho.to(u.kpc), cylindrical.phi.to(u.rad), cylindrical.z.to(u.kpc)))
    vT = (cylindrical.rho * cylindrical.pm_phi).to_value(u.km / u.s, u.dimensionless_angles())
    vR, vz = cylindrical.v_rho.to_value(u.km / u.s), cylindrical.v_z.to_value(u.km / u.s)
    aa = action_angle(PhaseSpace(R, phi, z, vR, vT, vz), theta, delta=4.0)
    np.testing.assert_allclose(aa.L_z, aa.L_z[0], rtol=1e-9)
    assert np.std(aa.J_R) / np.mean(aa.J_R) < 0.02 and np.std(aa.J_z) / np.mean(aa.J_z) < 0.01
    times = orbit.t.to_value(u.kpc / (u.km / u.s))
    for angle, Omega in ((aa.theta_z, aa.Omega_z), (aa.theta_R, aa.Omega_R)):
        turned = np.unwrap(angle)
        slope, start = np.polyfit(times, turned, 1)
        assert slope == pytest.approx(np.mean(Omega), rel=5e-3)
        assert np.std(turned - start - slope * times) < 0.03


def test_the_actions_of_a_sample_are_those_of_its_stars():
    w = phase_space(embedded_stars()[:40], Parameters())
    actions = SampleActions(np.linspace(2, 6, 40))
    expected = action_angle(w, Parameters(), delta=np.linspace(2, 6, 40))
    np.testing.assert_array_equal(actions(w, Parameters()).J_z, expected.J_z)
    with pytest.raises(InputError, match=r"does not solve 40 stars at m_disk=1.1, .*; leave them out"):
        actions(w._replace(vz=w.vz + 900), Parameters(m_disk=1.1))
