"""Every python block of the README and of the contributing guide runs as it stands."""

import os
import re
import subprocess
import sys

import pytest

from tests.benchmarks.commands import ROOT

BLOCKS = {
    name: re.findall(
        r"^```python[^\n]*\n(.*?)^```", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL
    )
    for name in ("README.md", "CONTRIBUTING.md")
}


def test_the_documents_have_python():
    assert len(BLOCKS["README.md"]) == 2
    assert len(BLOCKS["CONTRIBUTING.md"]) == 5


def test_a_target_of_ones_own_is_short():
    for block, lines in zip(BLOCKS["README.md"], (25, 30)):
        assert len([line for line in block.splitlines() if line.strip()]) < lines


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_run(name, tmp_path):
    """Each in a namespace of its own, in one process."""
    program = (
        f"for block in {BLOCKS[name]!r}:\n    exec(compile(block, {name!r}, 'exec'), {{'__name__': 'block'}})"
    )
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
