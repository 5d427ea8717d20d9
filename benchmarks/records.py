"""Records of measurements, a line of JSON each, and the tables of `benchmarks/README.md` made from them."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from egmjax.training import write_atomically

from . import markdown

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench -->)", flags=re.DOTALL)


class Record(NamedTuple):
    """One case of one run of a benchmark; seconds are of wall time, compilation apart.

    Cases of one `run` were measured in turn; `ratio` is the median over rounds of a case's time to the `baseline`'s.
    `cpu_median` is of all cores together, which other work on the machine hardly lengthens. `compile_seconds` is `None`
    where nothing is compiled, `peak_mib` (of a fresh process with compilation, less what it had after its imports) and
    `run_mib` (of a run alone) where they were not measured, all numbers where the case did not run: `error` says why.
    `others` are what else was measured, by name.
    """

    benchmark: str
    case: str
    run: str
    commit: str
    python: str
    jax: str
    jaxlib: str
    device: str
    num_cores: int
    shapes: dict[str, int]
    dtype: str
    num_repeats: int
    load_average: float
    compile_seconds: float | None = None
    median: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    cpu_median: float | None = None
    baseline: str = ""
    ratio: float | None = None
    peak_mib: float | None = None
    run_mib: float | None = None
    error: str = ""
    others: dict[str, float] = {}  # noqa: RUF012 - never changed

    @property
    def key(self) -> tuple[str, ...]:
        """Records of the same key may be compared: benchmark, case, shapes, type of number, device, cores."""
        shapes = json.dumps(self.shapes, sort_keys=True)
        return (self.benchmark, self.case, shapes, self.dtype, self.device, str(self.num_cores))


def circumstances() -> dict[str, str | int | float]:
    """The fields of a `Record` that say when, where and by what it was made."""
    return {
        "run": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "python": platform.python_version(),
        "jax": version("jax"),
        "jaxlib": version("jaxlib"),
        "device": _device(),
        "num_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "load_average": round(os.getloadavg()[0], 2),
    }


def append(file: Path, records: Iterable[Record]) -> None:
    """Adds records to the end of `file`, which is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.writelines(json.dumps(record._asdict(), allow_nan=False) + "\n" for record in records)


def read(file: Path) -> list[Record]:
    """All records of `file`, oldest first. Raises `ValueError` for a line that is none."""
    records = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"file: line {number} of {file} is not a record ({error})") from error
    return records


def newest_run(records: Sequence[Record], benchmark: str) -> list[Record]:
    """The records of the last run of `benchmark`, in their order."""
    found = [record for record in records if record.benchmark == benchmark]
    return [record for record in found if record.run == found[-1].run]


def table(records: Sequence[Record]) -> str:
    """Markdown: a line for each record of one run, and under it what measured them."""
    others = list(dict.fromkeys(name for record in records for name in record.others))
    peaks = any(record.peak_mib is not None for record in records)
    header = [
        "",
        "median",
        "fastest",
        "slowest",
        "CPU",
        "compile",
        "ratio",
        *(["process MiB", "run MiB"] if peaks else []),
        *others,
    ]
    rows = []
    for record in records:
        if record.error:
            rows.append([record.case, record.error, *[""] * (len(header) - 2)])
            continue
        times = [
            _seconds(s)
            for s in (
                record.median,
                record.fastest,
                record.slowest,
                record.cpu_median,
                record.compile_seconds,
            )
        ]
        row = [record.case, *times, _number(record.ratio)]
        row += [_number(record.peak_mib), _number(record.run_mib)] if peaks else []
        rows.append([*row, *(_number(record.others.get(name)) for name in others)])
    first = records[0]
    shapes = ", ".join(f"{name} {size}" for name, size in first.shapes.items())
    baselines = ", ".join(dict.fromkeys(f"`{r.baseline}`" for r in records if r.baseline))
    ratios = f" Ratios: to {baselines}, medians over rounds measured in turn." if baselines else ""
    note = (
        f"{shapes}; {first.dtype}; {first.num_repeats} repeats; {first.device}, {first.num_cores} cores, load "
        f"{first.load_average}; Python {first.python}, jax {first.jax}, jaxlib {first.jaxlib}; commit "
        f"{first.commit or 'unknown'}, {first.run}.{ratios}"
    )
    return f"{markdown.table(header, rows)}\n{note.lstrip('; ')}\n"


def write_tables(document: Path, tables: Mapping[str, str]) -> list[str]:
    """Puts each table between `<!-- bench:NAME -->` and `<!-- /bench -->`; all else stays as it is, to the byte.

    Returns the names of the blocks that were rewritten; blocks without a table stay too.
    """
    text = document.read_bytes().decode()
    written = []

    def replace(block: re.Match[str]) -> str:
        name = block[2]
        if name not in tables:
            return block[0]
        written.append(name)
        return f"{block[1]}{tables[name]}{block[3]}"

    changed = BLOCK.sub(replace, text)
    if changed != text:
        write_atomically(document, changed)
    return written


def _seconds(value: float | None) -> str:
    """With a unit, to three digits."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{_number(value / size)} {unit}"
    return f"{_number(value / 1e-6)} us"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def _commit() -> str:
    """Of the checkout this file is in, with a plus where files differ from it; empty where there is none."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _device() -> str:
    import jax

    kind = jax.devices()[0].device_kind
    cpu = Path("/proc/cpuinfo")
    if kind != "cpu" or not cpu.exists():
        return kind
    name = re.search(r"model name\s*:\s*(.+)", cpu.read_text())
    return f"cpu ({name[1].strip()})" if name else kind
