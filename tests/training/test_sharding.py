"""Training on several devices and processes: the losses of one device, gradients alone on the wire, exact checkpoints.

Devices are fake ones of the CPU, in processes of their own, since their number is fixed when jax starts.
"""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from egmjax.sharding import state_mesh
from egmjax.training import Checkpoints, replay_buffer, rollout_source
from tests.training.cases import as_data, make, make_cluster, make_likelihood, small

ROOT = Path(__file__).parents[2]
CONFIGURATION = {"case": "sharded"}
DISTRAX = "ignore:jax.core.pytype_aval_mappings is deprecated:DeprecationWarning"  # as in pyproject.toml


def start(script, *words, devices=1):
    """A process with so many fake devices, whose script is given `words`."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", DISTRAX, "-c", textwrap.dedent(script), *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-3000:]
    return out


def arrays(tree):
    return [as_data(a) for a in jax.tree.leaves(tree)]


def losses_of(step, state, num):
    losses = []
    for _ in range(num):
        state, metrics = step(state)
        losses.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return losses


def assert_same_losses(file, losses, name=""):
    """Losses to 1e-5; norms of gradients, sums of thousands of squares in another order, to 1e-4."""
    for there, here, rtol in zip(np.load(file).T, np.transpose(losses), (1e-5, 1e-4), strict=True):
        np.testing.assert_allclose(there, here, rtol=rtol, err_msg=name)


def assert_same_arrays(file, tree):
    with np.load(file) as saved:
        there = [saved[f"arr_{i}"] for i in range(len(saved.files))]
    here = arrays(tree)
    assert len(here) == len(there)
    for a, b in zip(here, there):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


TOOLS = """
import re, sys
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_numpy_rank_promotion", "raise")
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import PartitionSpec
from egmjax.sharding import constrain, is_writer, state_mesh
from egmjax.training import Checkpoints
from tests.training.cases import make, small

def save(file, tree):
    "Every process gathers, one writes."
    unwrap = lambda a: jax.random.key_data(a) if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) else a
    whole = [np.asarray(process_allgather(unwrap(a), tiled=True)) for a in jax.tree.leaves(tree)]
    if is_writer():
        np.savez(file, *whole)

def run(step, state, num):
    losses = []
    for _ in range(num):
        state, metrics = step(state)
        losses.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return state, losses

def collectives(text):
    "[(inside the loop of updates, kind, shapes)] of a compiled program"
    found, body = [], None
    for line in text.splitlines():
        if head := re.match(r"^(ENTRY )?%?[\\w.-]+ \\(.*\\) -> ", line):
            body = not head[1]
        if op := re.search(
            r" = (.*?) (all-reduce|all-gather|all-to-all|collective-\\w+|reduce-scatter)(-start)?\\(", line
        ):
            shapes = re.findall(r"[a-z]+\\d+\\[([\\d,]*)\\]", op[1])
            shapes = [tuple(int(d) for d in dims.split(",") if d) for dims in shapes]
            found.append((body, op[2], shapes))
    return found
"""


TWO_DEVICES = (
    TOOLS
    + """
folder = Path(sys.argv[1])
case = make("masked", build=small, mesh=state_mesh())
step = jax.jit(case.trainer.step).lower(case.init()).compile()
state, losses = run(step, case.init(), 5)
for tree, spec in ((state.buffer.x, ("states",)), (state.params, ()), (state.opt_state, ())):
    for a in jax.tree.leaves(tree):
        assert len(a.sharding.device_set) == 2 and tuple(a.sharding.spec) == spec, a.sharding

found = collectives(step.as_text())
inside = [(kind, shapes) for body, kind, shapes in found if body]
sizes = sorted(int(np.prod(shape)) for _, shapes in inside for shape in shapes if shape)
assert inside and all(kind == "all-reduce" for kind, _ in inside), inside
assert sizes == sorted(a.size for a in jax.tree.leaves(state.params)), (sizes, inside)
assert any(kind == "all-gather" for body, kind, _ in found if not body), "roll-outs must reach the buffer"

Checkpoints(folder / "checkpoints", {"case": "sharded"}).save(5, state)
save(folder / "states.npz", state)
np.save(folder / "losses.npy", losses + run(step, state, 2)[1])
"""
)


def test_two_devices_are_one(tmp_path):
    """Losses to rounding, buffer and resampling included; in an update only gradients and scalars are exchanged;
    the state of two devices, bit for bit, on one."""
    other = start(TWO_DEVICES, tmp_path, devices=2)
    case = make("masked", build=small)
    step = jax.jit(case.trainer.step)
    losses = losses_of(step, case.init(), 5)
    finish(other)
    state = Checkpoints(tmp_path / "checkpoints", CONFIGURATION).restore(case.init())
    assert_same_arrays(tmp_path / "states.npz", state)
    assert all(len(a.sharding.device_set) == 1 for a in jax.tree.leaves(state))
    losses += losses_of(step, state, 2)
    assert_same_losses(tmp_path / "losses.npy", losses)
    assert len(np.unique(losses)) == 14


CHAINS_ON_TWO_DEVICES = (
    TOOLS
    + """
from tests.training.cases import make_likelihood
folder = Path(sys.argv[1])
trainer, init = make_likelihood(mesh=state_mesh())
step = jax.jit(trainer.step).lower(init()).compile()
state, losses = run(step, init(), 4)
for tree, spec in ((state.buffer.position, ("states",)), (state.buffer.log_step, ()), (state.params, ())):
    for a in jax.tree.leaves(tree):
        assert len(a.sharding.device_set) == 2 and tuple(a.sharding.spec) == spec, a.sharding
found = collectives(step.as_text())
sizes = sorted(int(np.prod(shape)) for _, _, shapes in found for shape in shapes if shape)
assert found and all(kind == "all-reduce" for _, kind, _ in found), found
assert sizes == sorted(a.size for a in jax.tree.leaves(state.params)), (sizes, found)
Checkpoints(folder / "checkpoints", {"case": "sharded"}).save(4, state)
save(folder / "states.npz", state)
np.save(folder / "losses.npy", losses + run(step, state, 2)[1])
"""
)


def assert_two_devices_are_one(script, folder, trainer, init):
    """Losses of four iterations there and here, and of two more from the state of two devices, bit for bit, on one."""
    other = start(script, folder, devices=2)
    step = jax.jit(trainer.step)
    losses = losses_of(step, init(), 4)
    finish(other)
    state = Checkpoints(folder / "checkpoints", CONFIGURATION).restore(init())
    assert_same_arrays(folder / "states.npz", state)
    losses += losses_of(step, state, 2)
    assert_same_losses(folder / "losses.npy", losses)
    assert len(np.unique(losses)) == 12


def test_chains_of_maximum_likelihood_on_two_devices(tmp_path):
    """As above: data and chains stay where they are, and the state of two devices goes on with one."""
    pytest.importorskip("distrax")
    assert_two_devices_are_one(CHAINS_ON_TWO_DEVICES, tmp_path, *make_likelihood())


CLUSTER_ON_TWO_DEVICES = (
    TOOLS
    + """
from tests.training.cases import make_cluster
folder = Path(sys.argv[1])
trainer, init = make_cluster(mesh=state_mesh())
step = jax.jit(trainer.step).lower(init()).compile()
state, losses = run(step, init(), 4)
for tree, spec in ((state.buffer.x, ("states",)), (state.params, ())):
    for a in jax.tree.leaves(tree):
        assert len(a.sharding.device_set) == 2 and tuple(a.sharding.spec) == spec, a.sharding
Checkpoints(folder / "checkpoints", {"case": "sharded"}).save(4, state)
save(folder / "states.npz", state)
np.save(folder / "losses.npy", losses + run(step, state, 2)[1])
"""
)


def test_chains_of_the_energy_on_two_devices(tmp_path):
    """The same chains, whose states noise is aligned with on the host, and the state of two devices on one."""
    assert_two_devices_are_one(CLUSTER_ON_TWO_DEVICES, tmp_path, *make_cluster())


TWO_PROCESSES = (
    TOOLS
    + """
folder, port, process = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, process)
assert jax.device_count() == 2 and jax.local_device_count() == 1
case = make("flow", build=small, mesh=state_mesh())
store = Checkpoints(folder / "checkpoints", {"case": "sharded"})
state = store.restore(case.init())
assert not state.buffer.x.is_fully_addressable
save(folder / "restored.npz", state)
step = jax.jit(case.trainer.step)
state, losses = run(step, state, 3)
store.save(5, state)
save(folder / "states.npz", state)
if is_writer():
    np.save(folder / "losses.npy", losses + run(step, state, 2)[1])
else:
    run(step, state, 2)
"""
)


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """From a checkpoint of one device to two processes and back, bit for bit; losses to rounding."""
    case = make("flow", build=small)
    step = jax.jit(case.trainer.step)
    state = case.init()
    for _ in range(2):
        state, _ = step(state)
    store = Checkpoints(tmp_path / "checkpoints", CONFIGURATION)
    store.save(2, state)
    port = free_port()
    both = [start(TWO_PROCESSES, tmp_path, port, i) for i in range(2)]
    losses = losses_of(step, state, 3)
    for process in both:
        finish(process)
    assert_same_arrays(tmp_path / "restored.npz", state)
    state = store.restore(case.init())
    assert int(state.iteration) == 5
    assert_same_arrays(tmp_path / "states.npz", state)
    losses += losses_of(step, state, 2)
    assert_same_losses(tmp_path / "losses.npy", losses)


EIGHT_DEVICES = (
    TOOLS
    + """
folder = Path(sys.argv[1])

def by_column(path, shape):
    wide = path.startswith("params/") and path.endswith("/kernel") and shape[-1] % 8 == 0
    return PartitionSpec(None, "states") if wide else PartitionSpec()

for name, proposals, rule in (("8x1", 1, {}), ("2x4", 4, {}), ("by_column", 1, {"param_spec_fn": by_column})):
    case = make("product", mesh=state_mesh(proposals=proposals), num_proposals=512, **rule)
    step = jax.jit(case.trainer.step)
    state, losses = run(step, case.init(), 5)
    again, losses_again = run(step, case.init(), 5)
    assert losses == losses_again, "not the same twice"
    np.save(folder / f"{name}.npy", losses)

kernel, moments = (
    [a for path, a in jax.tree_util.tree_leaves_with_path(tree) if "kernel" in str(path[-1]) and a.shape[-1] == 8]
    for tree in (state.params, state.opt_state)
)
assert kernel and len(moments) == 2 * len(kernel)
for a in (*kernel, *moments, *state.ema_params["params"]["Dense_0"].values()):
    if a.ndim == 2:
        assert a.addressable_shards[0].data.shape == (a.shape[0], 1), a.sharding
Checkpoints(folder / "checkpoints", {"case": "sharded"}).save(5, state)
save(folder / "states.npz", state)
"""
)


@pytest.mark.slow
def test_eight_devices_are_one(tmp_path):
    """States over eight devices, over two with their proposals over four, and parameters split by a rule."""
    other = start(EIGHT_DEVICES, tmp_path, devices=8)
    case = make("product", num_proposals=512)
    losses = losses_of(jax.jit(case.trainer.step), case.init(), 5)
    finish(other)
    for name in ("8x1", "2x4", "by_column"):
        assert_same_losses(tmp_path / f"{name}.npy", losses, name)
    state = Checkpoints(tmp_path / "checkpoints", CONFIGURATION).restore(case.init())
    assert_same_arrays(tmp_path / "states.npz", state)


class Devices:
    """Stands for a mesh of three devices where nothing but their number matters."""

    size = 3


def test_counts_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match=r"^proposals: must divide the number of devices, 1, got 2"):
        state_mesh(jax.devices()[:1], proposals=2)
    with pytest.raises(ValueError, match=r"^batch_size: a multiple of the number of devices, 3, got 16"):
        make("flow", num_rollouts=33, capacity=33, mesh=Devices())
    with pytest.raises(ValueError, match=r"^num_rollouts: a multiple of"):
        make("flow", batch_size=15, mesh=Devices())
    case = make("flow")
    source = rollout_source(
        case.process,
        case.sampler,
        replay_buffer(64, weighted=True),
        case.psi_fn,
        case.apply_fn,
        num_rollouts=33,
        mesh=Devices(),
    )
    with pytest.raises(ValueError, match=r"^capacity: a multiple of"):
        source.init()
    with pytest.raises(ValueError, match=r"^batch_size: a multiple of the number of devices, 3, got 16"):
        make_likelihood(mesh=Devices())
    with pytest.raises(ValueError, match=r"^num_chains: a multiple of the number of devices, 3, got 32"):
        make_cluster(mesh=Devices())
