"""Runs that several tests look at are made once."""

import shutil

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.benchmarks.commands import arguments


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Most of a tiny run is compilation, and many runs have the very same programs, those of other processes too."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update(names[0], folder)
    jax.config.update(names[1], 0.2)
    compilation_cache.reset_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "JAX_COMPILATION_CACHE_DIR", folder
        )  # commands of the tests leave the user's cache alone
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """`finished(target)` is the folder of a tiny finished run; not to be changed."""
    from benchmarks import train

    runs = {}

    def run(target):
        if target not in runs:
            folder = tmp_path_factory.mktemp("runs") / target
            train.main(arguments(target, folder))
            runs[target] = folder
        return runs[target]

    return run


@pytest.fixture
def a_run(finished, tmp_path):
    """A copy of a finished run of the Ising target, free to be changed."""
    return shutil.copytree(finished("ising"), tmp_path / "run")
