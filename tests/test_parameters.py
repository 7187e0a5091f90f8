"""The parameter table is consistent with itself, and its values are a pytree."""

import jax
import jax.numpy as jnp
import pytest

from otibayes.base.parameters import TABLE, Parameter, Parameters, parameters_type
from otibayes.dynamics.potential import MILKY_WAY, MassModel


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_fiducial_lies_within_bounds(row):
    assert row.low < row.fiducial < row.high
    assert row.prior_sd is None or row.prior_sd > 0
    assert row.symbol


def test_table_is_the_documented_one():
    assert [(p.name, p.unit, p.fiducial, p.low, p.high, p.prior_sd) for p in TABLE] == [
        ("m_disk", "", 1.0, 0.4, 1.8, None),
        ("h_z", "kpc", 0.28, 0.05, 1.0, None),
        ("z_sun", "pc", 20.8, -100.0, 100.0, 30.0),
        ("vz_sun", "km/s", 7.78, 0.0, 15.0, 3.0),
    ]


def test_defaults_are_fiducial():
    assert Parameters() == tuple(p.fiducial for p in TABLE)
    assert Parameters(m_disk=1.3) == (1.3, 0.28, 20.8, 7.78)


def test_pytree_round_trip():
    theta = Parameters(m_disk=1.3, vz_sun=7.0)
    leaves, structure = jax.tree.flatten(theta)
    assert leaves == [1.3, 0.28, 20.8, 7.0]
    back = jax.tree.unflatten(structure, leaves)
    assert isinstance(back, Parameters) and back == theta


def test_parameters_pass_through_grad_and_vmap():
    gradient = jax.grad(lambda theta: theta.m_disk * theta.h_z)(Parameters())
    assert isinstance(gradient, Parameters)
    assert gradient == (0.28, 1.0, 0.0, 0.0)
    many = Parameters(*(jnp.full(3, value) for value in Parameters()))
    assert jax.vmap(lambda theta: theta.m_disk + theta.z_sun)(many).shape == (3,)


def test_unknown_parameter_is_refused():
    with pytest.raises(TypeError, match="m_disc"):
        Parameters(m_disc=1.0)


def test_custom_table():
    table = (*TABLE, Parameter("a_disk", r"a", "kpc", 3.0, 1.0, 6.0))
    model = MassModel(MILKY_WAY.components, table)
    theta = model.Parameters(m_disk=1.2)
    assert theta._fields == ("m_disk", "h_z", "z_sun", "vz_sun", "a_disk")
    assert (theta.m_disk, theta.a_disk) == (1.2, 3.0)
    assert parameters_type(table)() == model.Parameters()
    assert model.allowed(theta)
    point = (jnp.asarray(8.0), jnp.asarray(0.3))
    assert model.potential(*point, theta) == MILKY_WAY.potential(*point, Parameters(m_disk=1.2))


def test_mass_model_needs_the_suns_parameters():
    with pytest.raises(ValueError, match=r"must include z_sun and vz_sun; \['vz_sun'\] not among"):
        MassModel(MILKY_WAY.components, TABLE[:3])
