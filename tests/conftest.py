"""Strict flags for every test: silent rank promotion raises; warnings are errors by `pyproject.toml`.

Most of the time of a test is compilation, and most of that is optimisation, so programs are compiled without it, and
where jax still has them by the older emitters, which take a third less time. `EGMJAX_TEST_OPTIMIZED=1` compiles them as
users do.
"""

import gc
import importlib.metadata
import os

if os.environ.get("EGMJAX_TEST_OPTIMIZED", "0") != "1":
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    # an unknown flag ends the process, and later versions than these may not know them
    jax_version = tuple(map(int, importlib.metadata.version("jax").split(".")[:2]))
    if (0, 10) <= jax_version <= (0, 12):
        # a module in parts costs more than it saves where programs are small and both cores have tests
        flags.append("--xla_cpu_parallel_codegen_split_count=1")
    if jax_version == (0, 10):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

# programs need not know which line of Python they come from
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# pytest-xdist runs a process on each core; threads of theirs that wait for each other only burn time
os.environ.setdefault("OMP_NUM_THREADS", "1")

# tracing makes many small objects and few cycles; looking for them as often as by default takes a tenth of the time
gc.set_threshold(200_000, 20, 100)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def _x64_context():
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before jax 0.8

    return enable_x64()


@pytest.fixture
def x64():
    """Float64 for the time of one test: exact references are held to rounding error."""
    with _x64_context():
        yield


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """The test runs once for each default float type; its value is the name of that type."""
    if request.param == "float32":
        yield request.param
        return
    with _x64_context():
        yield request.param
