"""Exact log Z of wide tori added to reports: solved once for each model, and nothing else is touched."""

import json

import pytest

from benchmarks import exact_log_z
from benchmarks.options import PottsOptions, SpinGlassOptions, configuration
from egmjax.targets import Potts


def finished(folder, options, name="potts", known=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(configuration(name, options)))
    report = {"log_z": {"estimate": 34.0, "stderr": 0.05, "exact": known, "score": None}, "ess_fraction": 0.5}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_adds_what_the_report_could_not_know(tmp_path, monkeypatch, capsys):
    solved = []

    def solve(self):
        solved.append(self)
        return real(self)

    real = Potts.log_z_by_columns
    monkeypatch.setattr(Potts, "log_z_by_columns", solve)
    values = [PottsOptions(out=tmp_path, length=4, beta=1.0, seed=seed) for seed in (0, 1)]
    runs = [finished(tmp_path / str(i), options) for i, options in enumerate(values)]
    score = (34.0 - Potts(4, 3, 1.0).log_z) / 0.05
    exact_log_z.main([str(run) for run in runs])
    assert len(solved) == 1
    for run in runs:
        report = json.loads((run / "report.json").read_text())
        assert report["log_z"]["exact"] == pytest.approx(Potts(4, 3, 1.0).log_z, abs=1e-9)
        assert report["ess_fraction"] == 0.5
        assert report["log_z"]["score"] == pytest.approx(score)
    assert capsys.readouterr().out.count(f"off by {score:.2f} standard errors") == 2
    exact_log_z.main([str(runs[0])])
    assert len(solved) == 1  # read from the report


def test_bad_input(tmp_path):
    glass = finished(tmp_path / "glass", SpinGlassOptions(out=tmp_path), "spin-glass")
    for words in ([str(glass)], [str(tmp_path / "none")]):
        with pytest.raises(SystemExit) as error:
            exact_log_z.main(words)
        assert error.value.code == 2
