"""Every python block of the README and of the contributing guide runs as it stands."""

import os
import re
import subprocess
import sys

import pytest

from tests.benchmarks.commands import ROOT

BLOCKS = {
    f"{name} {number}": block
    for name in ("README.md", "CONTRIBUTING.md")
    for number, block in enumerate(
        re.findall(r"^```python[^\n]*\n(.*?)^```", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    )
}


def test_the_documents_have_python():
    assert {name.split()[0] for name in BLOCKS} == {"README.md", "CONTRIBUTING.md"}


def test_a_target_of_ones_own_is_short():
    assert len([line for line in BLOCKS["README.md 0"].splitlines() if line.strip()]) < 25


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs(name, tmp_path):
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[name]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
