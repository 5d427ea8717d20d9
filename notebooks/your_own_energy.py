# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An energy of your own, on a mixed space
#
# A particle in the plane carries a colour, one of three. Colours sit in different places and have different sizes, and one of them
# is a ring. We write the energy, compose a sampler from functions, and check what it says against numerical integration.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

from egmjax import (
    estimators,
    metrics,
    networks,
    paths,
    plotting,
    processes,
    proposals,
    simulators,
    states,
    targets,
    training,
)

space = (states.Real((2,)), states.Categorical(sites=1, num_states=3))
centres = jnp.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])


def energy(x):
    position, colour = x
    distance = jnp.sqrt(jnp.sum((position - centres[colour[0]]) ** 2) + 1e-6)
    ring, disc = 8.0 * (distance - 1.5) ** 2, 2.0 * distance**2
    return jnp.where(colour[0] == 2, ring, disc) + 0.3 * colour[0]


target = targets.from_energy(energy, space)

# %% [markdown]
# **The process.** The position follows a flow, the colour starts masked and is revealed by a jump. A product of processes is a tuple of them; one
# set of weights comes from the joint energy.

# %%
flow = processes.FlowProcess(paths.stationary_path((2,), scale=3.0))
jump = processes.MaskedProcess(paths.MaskedPath(sites=1, num_states=3))
process = processes.ProductProcess((flow, jump))
sampler = simulators.grid_sampler(process, simulators.time_grid(20))
network = networks.ResidualMLP(space, process.prediction_shape(), width=64, depth=2, scale=3.0)

# %% [markdown]
# **Training from the energy.** At states along the path, the marginal generator is estimated by importance sampling over 256 proposals,
# and the network regresses on it.

# %%
psi_fn = estimators.psi_from_energy(target.energy, process.path)
objective = training.snis_objective(
    process, network.apply, proposals.reference_posterior(process.path), psi_fn, num_proposals=256
)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, 600)))
buffer = training.replay_buffer(4000, weighted=False)
source = training.rollout_source(process, sampler, buffer, psi_fn, network.apply, num_rollouts=500)
trainer = training.make_trainer(source, objective, optimizer, batch_size=256, updates_per_iteration=20)
params = network.init(jax.random.key(0), process.path.sample_prior(jax.random.key(0)), jnp.zeros(()))
result = training.fit(trainer, trainer.init(jax.random.key(1), params), num_iterations=30)

# %% [markdown]
# **Certified samples.** Each sample has its exact log-weight, so log Z is estimated with a standard error that can be believed, and the raw samples can
# be corrected.

# %%
predict = lambda x, t: network.apply(result.state.ema_params, x, t)
roll_out = jax.jit(jax.vmap(lambda key: sampler.sample(key, predict)))
rollouts = roll_out(jax.random.split(jax.random.key(2), 5000))
log_weight = jax.vmap(psi_fn, (0, None))(rollouts.x, 1.0) + rollouts.log_weight
summary = metrics.summarize_weights(log_weight)
print(f"log Z = {summary.log_z:.4f} +- {summary.log_z_stderr:.4f}, ESS {summary.ess_fraction:.3f}")

# %% [markdown]
# **The truth**, by integration on a grid.

# %%
axis = jnp.linspace(-9.0, 9.0, 721)
grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
mass = np.array(
    [
        float(
            jnp.sum(jnp.exp(-jax.vmap(lambda p, c=c: energy((p, jnp.array([c]))))(grid)))
            * (axis[1] - axis[0]) ** 2
        )
        for c in range(3)
    ]
)
weight = metrics.normalized_weights(log_weight)
raw = np.bincount(np.asarray(rollouts.x[1][:, 0]), minlength=3) / len(weight)
weighted = np.bincount(np.asarray(rollouts.x[1][:, 0]), weights=np.asarray(weight), minlength=3)
print("log Z exact  ", np.log(mass.sum()).round(4))
print("colours, raw     ", raw.round(3))
print("colours, weighted", weighted.round(3))
print("colours, exact   ", (mass / mass.sum()).round(3))
assert abs(float(summary.log_z) - np.log(mass.sum())) < 4 * float(summary.log_z_stderr) + 1e-3

# %%
plotting.plot_report(
    states=rollouts.x,
    energies=jax.vmap(target.energy)(rollouts.x),
    log_weight=log_weight,
    history=[{**row, "step": row["iteration"]} for row in result.history],
    exact_log_z=float(np.log(mass.sum())),
    title="an energy of your own",
)
