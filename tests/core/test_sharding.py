"""Eight fake devices in a process of their own: estimates over sharded states and proposals equal the plain ones."""

import os
import pathlib
import subprocess
import sys

import egmjax

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from egmjax.estimators import multispin_snis, psi_from_energy, snis
from egmjax.paths import CondOT, GaussianPath, MaskedPath
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.proposals import reference_posterior
from egmjax.sharding import state_mesh
from egmjax.simulators import grid_sampler, time_grid
from egmjax.targets import Ising

assert jax.device_count() == 8
process = ProductProcess((FlowProcess(GaussianPath(CondOT(), shape=(2,))), MaskedProcess(MaskedPath(sites=3))))
path = process.path
psi_fn = psi_from_energy(lambda x: 0.5 * jnp.sum((x[0] - x[1].mean()) ** 2) + 0.3 * x[1].sum(), path)

def estimate(key, xt, t, mesh=None, chunk_size=16):
    return snis(key, xt, t, process=process, proposal=reference_posterior(path), psi_fn=psi_fn,
                num_proposals=50, chunk_size=chunk_size, mesh=mesh)

def predict(xt, t):
    return 0.3 * jnp.sin(xt[0] + t), jnp.zeros((3, 2))

def both(keys, xt, t):
    rollouts = jax.vmap(lambda k: grid_sampler(process, time_grid(3)).sample(k, predict))(keys)
    return jax.vmap(estimate)(keys, xt, t), rollouts

keys = jax.random.split(jax.random.key(0), 16)
t = jnp.linspace(0.1, 0.9, 16)
x1 = (jnp.zeros((16, 2)), jnp.ones((16, 3), jnp.int32))
xt = jax.vmap(path.sample)(keys, x1, t)
plain = jax.jit(both)(keys, xt, t)
sharding = NamedSharding(state_mesh(), PartitionSpec("states"))
sharded = jax.jit(both)(*jax.device_put((keys, xt, t), sharding))
for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(sharded)):
    assert len(b.sharding.device_set) == 8, b.sharding
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

# 50 proposals are 4 chunks, the last one padded; of eight devices four have none
for proposals, size in ((2, 16), (8, 16)):
    mesh = state_mesh(proposals=proposals)
    sharding = NamedSharding(mesh, PartitionSpec("states"))
    wanted = jax.jit(jax.vmap(lambda *a: estimate(*a, None, size)))(keys, xt, t)
    given = jax.device_put((keys, xt, t), sharding)
    compiled = jax.jit(jax.vmap(lambda *a: estimate(*a, mesh, size))).lower(*given).compile()
    assert "all-reduce" in compiled.as_text(), "nothing was added up over devices"
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(compiled(*given))):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

target = Ising(3, 0.3)
masks = MaskedPath(sites=9)
y = jax.vmap(masks.sample)(keys, jnp.ones((16, 9), jnp.int32), t)
words = lambda key, xt, t, mesh=None: multispin_snis(
    key, xt, t, path=masks, energy_fn=target.multispin_energy, num_proposals=500, chunk_size=64, mesh=mesh)
mesh = state_mesh(proposals=4)
wanted = jax.jit(jax.vmap(words))(keys, y, t)
for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(jax.jit(jax.vmap(lambda *a: words(*a, mesh)))(keys, y, t))):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
print("fine")
"""


def test_sharded_states_give_the_same_estimates_and_rollouts():
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(pathlib.Path(egmjax.__file__).parents[1]),
    }
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("fine")
