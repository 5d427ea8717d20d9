"""The shape of the package: imports point downwards, the core needs jax alone, and a renamed copy works."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import egmjax

ROOT = pathlib.Path(egmjax.__file__).parent

# What each folder may import from the others; a new folder or a new edge is a decision to be made here.
ALLOWED = {
    "_pytree": set(),
    "_precision": set(),
    "_random": set(),
    "_mean_free": set(),
    "states": set(),
    "multispin": set(),
    "sharding": set(),
    "generators": set(),
    "losses": set(),
    "paths": {"_pytree", "_random", "states", "generators"},
    "processes": {"_pytree", "_precision", "states", "generators", "losses", "paths"},
    "simulators": {"_pytree", "_precision", "states", "generators", "paths", "processes", "mcmc", "metrics"},
    "proposals": {"_pytree", "states", "paths", "processes", "simulators"},
    "estimators": {
        "_pytree",
        "_precision",
        "_random",
        "states",
        "multispin",
        "sharding",
        "generators",
        "paths",
        "processes",
        "simulators",
        "proposals",
    },
    "data": {"states"},
    "mcmc": {"_pytree", "_precision", "states"},
    "metrics": {"_pytree", "states"},
    "targets": {"_pytree", "_precision", "_mean_free", "states", "multispin", "mcmc", "metrics"},
    "networks": {"_pytree", "_mean_free", "states"},
    "plotting": {"states", "metrics"},
}
CORE = [
    "_pytree",
    "_precision",
    "_random",
    "states",
    "multispin",
    "sharding",
    "generators",
    "losses",
    "paths",
    "processes",
    "simulators",
    "proposals",
    "estimators",
]
ABOVE = {"ebm", "training", "commands", "__main__", "cli", "__init__"}  # may import anything below them
OPTIONAL = (
    "flax",
    "distrax",
    "orbax",
    "blackjax",
    "matplotlib",
    "optax",
    "tyro",
    "tqdm",
    "sklearn",
    "statsmodels",
)
LAZY = ("diffrax",)  # imported by the function that needs it


def part_of(file):
    first = file.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports_of(file):
    """`(absolute module names, folders of this package)` that a file imports, wherever in it."""
    absolute, folders = set(), set()
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            absolute.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)]
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            folders.update([base[0]] if base else names)
    return absolute, folders


FILES = sorted(f for f in ROOT.rglob("*.py") if "__pycache__" not in f.parts)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_are_relative_and_point_downwards(file):
    absolute, folders = imports_of(file)
    assert not any(name.split(".")[0] == "egmjax" for name in absolute), "only relative imports"
    part = part_of(file)
    others = folders - {part}
    if part in ABOVE:
        assert not (others & {"__main__", "commands", "cli"})
        return
    assert part in ALLOWED, f"{part}: say in ALLOWED what it may import"
    assert others <= ALLOWED[part], f"{part} must not import {sorted(others - ALLOWED[part])}"
    if part in CORE:
        assert not any(name.split(".")[0] in OPTIONAL for name in absolute)


def test_allowed_imports_have_no_cycle():
    order, left = [], dict(ALLOWED)
    while left:
        ready = [part for part, needs in left.items() if needs <= set(order)]
        assert ready, f"cycle among {sorted(left)}"
        order += ready
        left = {part: needs for part, needs in left.items() if part not in ready}


def test_every_folder_states_what_it_exports():
    for folder in sorted(p.parent for p in ROOT.glob("*/__init__.py")):
        tree = ast.parse((folder / "__init__.py").read_text())
        names = [
            t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        ]
        assert "__all__" in names or not any(isinstance(n, ast.ImportFrom) for n in tree.body), folder.name


def test_the_package_is_typed_and_has_a_literal_version():
    assert (ROOT / "py.typed").exists()
    tree = ast.parse((ROOT / "__init__.py").read_text())
    versions = [
        n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__version__"
    ]
    assert isinstance(versions[0], ast.Constant)


EXAMPLE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
import jax, jax.numpy as jnp
import {name}
from {name} import generators, mcmc, states, losses, targets
from {name}.paths import MaskedPath
from {name}.processes import MaskedProcess
from {name}.simulators import first_hitting_sampler
from {name}.proposals import reference_posterior
from {name}.estimators import psi_from_energy, snis

assert "egmjax" == {name!r} or not any(m.split(".")[0] == "egmjax" for m in sys.modules)

def energy(x):  # Ising on a ring of four
    s = 2.0 * x - 1.0
    return -0.4 * jnp.sum(s * jnp.roll(s, 1))

path = MaskedPath(sites=4)
process = MaskedProcess(path)
estimate = snis(
    jax.random.key(0), path.sample_prior(jax.random.key(1)), 0.0, process=process,
    proposal=reference_posterior(path), psi_fn=psi_from_energy(energy, path), num_proposals=256,
)
rollout = first_hitting_sampler(process).sample(jax.random.key(2), lambda x, t: jnp.zeros((4, 2)))
assert abs(float(estimate.target.sum()) - 4) < 1e-3 and float(estimate.info.ess) > 50
assert set(rollout.x.tolist()) <= {{0, 1}}
assert targets.GaussianMixture.gmm40().means.shape == (40, 2)  # a data file comes along
print("fine")
"""


def run(script, path):
    environment = {**os.environ, "PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", script]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("fine")


def test_core_works_without_optional_packages():
    run(EXAMPLE.format(blocked=(*OPTIONAL, *LAZY), name="egmjax"), ROOT.parent)


def test_renamed_copy_of_the_folder_works(tmp_path):
    shutil.copytree(ROOT, tmp_path / "my_sampler", ignore=shutil.ignore_patterns("__pycache__"))
    run(EXAMPLE.format(blocked=(*OPTIONAL, *LAZY, "egmjax"), name="my_sampler"), tmp_path)


def test_import_of_the_package_does_nothing():
    run("import egmjax, sys; assert 'flax' not in sys.modules; print('fine')", ROOT.parent)
