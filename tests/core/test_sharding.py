"""Eight fake devices in a process of their own: an estimate over sharded states equals the unsharded one."""

import os
import pathlib
import subprocess
import sys

import egmjax

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from egmjax.estimators import psi_from_energy, snis
from egmjax.paths import CondOT, GaussianPath, MaskedPath
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.proposals import reference_posterior
from egmjax.simulators import grid_sampler, time_grid

assert jax.device_count() == 8
process = ProductProcess((FlowProcess(GaussianPath(CondOT(), shape=(2,))), MaskedProcess(MaskedPath(sites=3))))
path = process.path
psi_fn = psi_from_energy(lambda x: 0.5 * jnp.sum((x[0] - x[1].mean()) ** 2) + 0.3 * x[1].sum(), path)

def estimate(key, xt, t):
    return snis(key, xt, t, process=process, proposal=reference_posterior(path), psi_fn=psi_fn,
                num_proposals=50, chunk_size=16)

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
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("states",)), PartitionSpec("states"))
sharded = jax.jit(both)(*jax.device_put((keys, xt, t), sharding))
for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(sharded)):
    assert len(b.sharding.device_set) == 8, b.sharding
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
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
