"""Tables of the suite `trust`, from its rows: certificate, tests corrected jointly, cost beside rivals."""

from __future__ import annotations

import math
from typing import Any

from egmjax.metrics import holm

from .markdown import section

Row = dict[str, Any]
KINDS = ("raw", "weighted")
LEVEL = 0.05


def tabulate(rows: list[Row]) -> str:
    """Markdown; a line for each target and seed, and for each rival of it."""
    learned = [row for row in rows if row["method"] == "sampler"]
    parts = [_certificates(learned), _tests(learned), costs(rows), _coverage(learned)]
    return "\n".join(part for part in parts if part)


def adjust(rows: list[Row]) -> dict[tuple[str, int, str, str], tuple[float, float]]:
    """`{(experiment, seed, test, kind): (p, adjusted p)}`: Holm over every test of every row, raw and weighted."""
    found = {
        (row["experiment"], row["seed"], test, kind): entry[kind]
        for row in rows
        for test, entry in row["exactness"]["p_values"].items()
        for kind in KINDS
        if entry[kind] is not None
    }
    return {key: (p, float(q)) for (key, p), q in zip(found.items(), holm(list(found.values())))}


def _certificates(rows: list[Row]) -> str:
    head = ["target", "seed", "ELBO", "EUBO", "ESS, forward ESS", "Pareto k", "largest weight", "log Z"]
    head += ["exact", "distance / stderr"]
    lines = []
    for row in rows:
        z = row["log_z"]
        cells = [row["experiment"], str(row["seed"]), number(z["elbo"], 4), number(z["eubo"], 4)]
        cells += [f"{number(row['ess_fraction'], 4)}, {number(row['forward_ess_fraction'], 4)}"]
        cells += [number(row["pareto_k"], 2), number(row["largest_weight"], 5)]
        cells += [f"{number(z['estimate'], 4)} +- {number(z['stderr'], 4)}", number(z["exact"], 4)]
        lines.append([*cells, number(z["score"], 1)])
    return section("Certificate", head, lines)


def _tests(rows: list[Row]) -> str:
    adjusted = adjust(rows)
    tests = ("energy", "cells", "sign")
    head = ["target", "seed", "n", "mean energy / std", "mean \\|m\\| / std", "P(m > 0)"]
    head += [f"{test}: p raw, weighted" for test in tests] + ["rejected"]
    lines = []
    for row in rows:
        found = row["exactness"]
        sizes = found["effect_sizes"]
        cells = [row["experiment"], str(row["seed"]), str(found["num"])]
        cells += [pair(sizes.get(name), 4) for name in ("energy", "abs_magnetization")]
        cells.append(pair(found.get("sign"), 4))
        cells += [pair(found["p_values"].get(test), 3) for test in tests]
        rejected = [
            f"{test} {kind}"
            for test in tests
            for kind in KINDS
            if adjusted.get((row["experiment"], row["seed"], test, kind), (1.0, 1.0))[1] < LEVEL
        ]
        lines.append([*cells, ", ".join(rejected) or "none"])
    count = {kind: sum(key[3] == kind and q < LEVEL for key, (_, q) in adjusted.items()) for kind in KINDS}
    note = (
        f"Raw, weighted. {len(adjusted)} tests in all; rejected with Holm's correction over all of them at {LEVEL:g}: "
        f"{count['raw']} of raw samples, {count['weighted']} of weighted ones.\n"
    )
    return section("Tests against exact laws", head, lines) + "\n" + note


def costs(rows: list[Row]) -> str:
    """Markdown; a line for each sampler and each rival."""
    head = ["target", "seed", "method", "energies", "seconds, of CPU", "tau_int of energy, m", "R-hat"]
    head += ["ESS a second: energy", "m", "once trained", "ESS a CPU second: energy", "m", "once trained"]
    head += ["mean energy, distance / stderr", "log Z, distance / stderr"]
    lines = []
    for row in sorted(rows, key=lambda r: (_place(rows, r), r["seed"], r["method"] != "sampler")):
        cells = [row["experiment"], str(row["seed"]), row["method"]]
        if "error" in row:
            lines.append([*cells, *[""] * (len(head) - 4), row["error"].replace("|", "\\|")])
            continue
        seconds = f"{number(row['wall_seconds'], 0)}, {number(row['cpu_seconds'], 0)}"
        if row["method"] == "sampler":
            cells += [f"{row['energy_evaluations']:.1e}", seconds, "", ""]
            for unit in ("second", "cpu_second"):
                rate = number(row[f"ess_per_{unit}"], 0)
                cells += [rate, rate, number(row[f"ess_per_{unit}_trained"], 0)]
            lines.append([*cells, "", _log_z(row)])
            continue
        energy = row["observables"]["energy"]
        # without a magnetisation the slowest of the other observables takes its place
        others = [v for k, v in row["observables"].items() if k not in ("energy", "abs_magnetization")]
        other = min(others, key=lambda v: v["ess"]) if others else energy
        hats = [v["r_hat"] for v in (energy, other) if v["r_hat"] is not None]
        cells += ["", seconds, f"{number(energy['tau_int'], 2)}, {number(other['tau_int'], 2)}"]
        cells += [number(max(hats), 3) if hats else "-"]
        for unit in ("second", "cpu_second"):
            cells += [number(entry[f"ess_per_{unit}"], 0) for entry in (energy, other)] + [""]
        lines.append([*cells, number(energy.get("score"), 1), _log_z(row)])
    return section("Cost, beside rivals at equal wall-clock time", head, lines)


def _log_z(row: Row) -> str:
    """With its standard error, and how many of these it is from the exact value; empty where chains know none."""
    z = row.get("log_z")
    return f"{number(z['estimate'], 4)} +- {number(z['stderr'], 4)}, {number(z['score'], 1)}" if z else ""


def _coverage(rows: list[Row]) -> str:
    head = ["target", "seed", "coverage of the 95 % interval for log Z", "its own interval", "mean z", "sd z"]
    lines = [
        [
            row["experiment"],
            str(row["seed"]),
            number(c["fraction"], 3),
            f"{number(c['low'], 3)}, {number(c['high'], 3)}",
            number(c["mean_score"], 2),
            number(c["score_std"], 2),
        ]
        for row in rows
        if (c := row.get("coverage"))
    ]
    return section("Coverage", head, lines) if lines else ""


def _place(rows: list[Row], row: Row) -> int:
    return [r["experiment"] for r in rows].index(row["experiment"])


def number(value: float | None, digits: int) -> str:
    """`-` for what is not known; small numbers in powers of ten."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0e}" if 0 < abs(value) < 0.5 * 10.0**-digits else f"{value:.{digits}f}"


def pair(entry: dict[str, float | None] | None, digits: int) -> str:
    """Raw and weighted."""
    return "" if entry is None else ", ".join(number(entry[kind], digits) for kind in KINDS)
