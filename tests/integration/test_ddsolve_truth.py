"""ddsolve on data with known direction-dependent errors, through the command line and QuartiCal itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import RECIPE, Bright, make_truth
from peelkit.core import dd_apply, dd_cells, dd_data, dd_gains, dd_solve
from peelkit.core.dd_plan import settle
from peelkit.core.dd_terms import TermChoice
from peelkit.core.ddsolve_options import DdOptions
from peelkit.engines import quartical
from peelkit.io import ms, solvecopy
from peelkit.progress import Progress
from peelkit.selection import Selection

pytestmark = [pytest.mark.quartical, pytest.mark.slow]

TWO = (Bright(5.0, 300.0, 200.0), Bright(0.5, -400.0, 100.0))
SOLVE = (
    "--all", "ALL", "--peel", "B1", "--peel", "B2", "--de-time", "inf", "--de-freq", "spw",
    "--g-time", "60s",
)  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("dd") / "two.ms"
    return path, make_truth(path, TWO)


def columns(path: Path, *names: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [main.getcol(name) for name in names]


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(values) ** 2) / 2))


def test_two_sources_ten_to_one_in_flux_are_both_gone_and_the_rest_is_kept(
    two, copy_ms, invoke
) -> None:
    path, truth = two
    target = copy_ms(path)
    before = columns(target, "DATA", "FLAG", "FLAG_ROW")
    out = invoke("ddsolve", target, *SOLVE, "--json")
    result = json.loads(out.stdout)["results"]
    peeled, *after = columns(target, "PEELED_DATA", "DATA", "FLAG", "FLAG_ROW")
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    # Truth: the rest and the noise, nothing else. The gains take up a little noise (480 real numbers of
    # 50 000), and G moves the 0.3 Jy of the rest a little.
    left = peeled - truth["rest"] - truth["noise"]
    assert rms(left) < 0.25 * RECIPE.sigma_jy
    assert rms(peeled - truth["rest"]) == pytest.approx(RECIPE.sigma_jy, rel=0.03)
    # Each direction's own model is no longer in it.
    for name in ("B1", "B2"):
        (model,) = columns(target, name)
        share = np.real(np.vdot(model, peeled - truth["rest"])) / np.vdot(model, model).real
        assert abs(share) < 5e-3
    assert result["chi2"]["solved"] == pytest.approx(1.0, abs=0.03)
    assert result["chi2"]["model_only"] > 100
    assert [d["decision"] for d in result["directions"]] == ["peel", "peel"]
    for d in result["directions"]:
        assert d["chi2_before"] > 2 * d["chi2_after"] and d["flagged_fraction"] == 0
    assert result["flags"]["flagged_by_failed_solutions"] == 0
    assert len(result["plots"]) == 8 and all(Path(name).exists() for name in result["plots"])
    invoke("undo", target)
    with table(str(target), ack=False) as main:
        assert "PEELED_DATA" not in main.colnames()


def test_some_directions_are_kept_when_asked(two, copy_ms, invoke) -> None:
    path, truth = two
    target = copy_ms(path)
    invoke("ddsolve", target, *SOLVE, "--subtract", "B1", "--no-plots", "--corrected")
    peeled, corrected, b2 = columns(target, "PEELED_DATA", "CORRECTED_DATA", "B2")
    # B2 is still there, with its own errors (0.5 rad: cos keeps 78 % of it).
    share = np.real(np.vdot(b2, peeled - truth["rest"])) / np.vdot(b2, b2).real
    assert 0.6 < share < 1.0
    # Nothing was subtracted from CORRECTED_DATA.
    assert rms(corrected) == pytest.approx(5 / np.sqrt(2), rel=0.05)  # rms of one component
    again = invoke("ddsolve", target, *SOLVE, "--keep", "--no-plots", "--overwrite", "--json",
                   "--datacolumn", "data")  # fmt: skip
    record = json.loads(again.stdout)
    assert record["results"]["output_column"] is None and record["writes"] == []
    assert columns(target, "PEELED_DATA")[0].tobytes() == peeled.tobytes()


def test_own_data_are_a_direction_alone_without_any_gains(two, copy_ms, invoke) -> None:
    path, truth = two
    target = copy_ms(path)
    out = invoke("ddsolve", target, *SOLVE, "--no-plots", "--own-data", "all", "--json")
    record = json.loads(out.stdout)
    assert record["results"]["own_data"] == {"B1": "B1_DATA", "B2": "B2_DATA"}
    assert record["writes"] == ["PEELED_DATA", "B1_DATA", "B2_DATA"]
    scan, one, two_ = columns(target, "SCAN_NUMBER", "ANTENNA1", "ANTENNA2")
    for number, name in enumerate(("B1", "B2")):
        own, model = columns(target, f"{name}_DATA", name)
        gain = truth["jones"][number]
        taken = gain[scan - 1, one] * gain[scan - 1, two_].conj()
        noise = truth["noise"] / taken[:, None]
        # The gains take up a little of the noise, and move a bright source by a little of itself.
        assert rms(own - model - noise) < 0.3 * rms(noise)
        assert rms(own - model) == pytest.approx(rms(noise), rel=0.05)
        share = np.vdot(model, own).real / np.vdot(model, model).real
        assert share == pytest.approx(1.0, abs=5e-3)
    invoke("undo", target)
    with table(str(target), ack=False) as main:
        assert not {"PEELED_DATA", "B1_DATA", "B2_DATA"} & set(main.colnames())


def test_gains_are_applied_as_quartical_applies_them(two, tmp_path) -> None:
    path, _ = two
    target = tmp_path / "full.ms"
    shutil.copytree(path, target)
    info = ms.read_info(target)
    # As many rows in the copy as in the MS: an integration and channel of dE are a cell.
    options = DdOptions(
        all_column="ALL", peel=("B1", "B2"), out=tmp_path / "run", rounds=1, iterations=15,
        terms=(TermChoice("G", "diag_complex", "5int", "spw"), TermChoice("dE", "diag_complex", "7int", "2chan")),
    )  # fmt: skip
    plan = settle(info, Selection(), options, Progress())
    family = solvecopy.families(info, [0, 1])[0]
    extra = {"output.products": '["corrected_residual"]', "output.columns": '["OUT"]',
             "output.subtract_directions": "[1, 2]"}  # fmt: skip
    kept: list[np.ndarray] = []
    terms = dd_solve._terms(plan, family)
    real = quartical.solve

    def keeping(job, folder):
        solved = real(job, folder)
        kept.extend(columns(job.ms, "OUT", "TIME", "ANTENNA1", "ANTENNA2", "DATA_DESC_ID"))
        return solved

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quartical, "solve", keeping)
        work = dd_solve.Work(
            plan, family, tuple(terms), {0: 1.0, 1: 1.0}, extra, "q", (0, 15, 15, 15)
        )
        groups, solved = dd_solve.one_run(work, Progress())
    theirs, cell, one, two_, ddid = kept
    cells = np.rint((cell - solvecopy.FIRST_S) / solvecopy.STEP_S).astype(int)
    with ms.opened(target) as main:
        weight = main.getcol("WEIGHT")[0, 0]
        for block in dd_data.blocks(plan.rows, "DATA", plan.models, main):
            done = dd_apply.peel(
                block, groups, all_column="ALL", directions={"B1": "B1", "B2": "B2"},
                subtract=["B1", "B2"], gains_needed=["B1", "B2"],
            )  # fmt: skip
            # The copy counts integrations, scan after scan.
            when = dd_gains.time_index(plan.rows.axes[block.key], block.times_s)
            mine = ddid == block.description.id
            place = {
                key: number
                for number, key in zip(
                    np.flatnonzero(mine),
                    zip(cells[mine], one[mine], two_[mine], strict=True),
                    strict=True,
                )
            }
            keep = block.antenna1 != block.antenna2
            rows = [
                place[key]
                for key in zip(when[keep], block.antenna1[keep], block.antenna2[keep], strict=True)
            ]
            good = ~(done.failed | block.flag.any(axis=-1))[keep]
            # Single precision of columns of 5 Jy; the copy has its weights in its data.
            np.testing.assert_allclose(
                done.peeled[keep][good], theirs[rows][good] / np.sqrt(weight), atol=2e-5, rtol=1e-5
            )
    assert len(solved.chi2) == 2  # two spws


def test_what_quartical_stumbles_on_changes_nothing(two, tmp_path, invoke) -> None:
    path, _ = two
    clean, odd = tmp_path / "clean.ms", tmp_path / "odd.ms"
    shutil.copytree(path, clean)
    shutil.copytree(path, odd)
    with table(f"{odd}/FEED", readonly=False, ack=False) as sub:  # one row for each spw
        n = sub.nrows()
        sub.copyrows(sub)
        sub.putcol("SPECTRAL_WINDOW_ID", np.repeat([0, 1], n).astype(np.int32))
    with table(
        f"{odd}/POLARIZATION", readonly=False, ack=False
    ) as sub:  # a setup that no data have
        sub.addrows(1)
        sub.putcell("NUM_CORR", 1, 2)
        sub.putcell("CORR_TYPE", 1, sub.getcell("CORR_TYPE", 0))
        sub.putcell("CORR_PRODUCT", 1, sub.getcell("CORR_PRODUCT", 0))
        sub.putcell("NUM_CORR", 0, 4)
        sub.putcell("CORR_TYPE", 0, np.array([5, 6, 7, 8], dtype=np.int32))
        sub.putcell("CORR_PRODUCT", 0, np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32))
    with table(f"{odd}/SPECTRAL_WINDOW", readonly=False, ack=False) as sub:  # ids in another order
        first, second = sub.getcell("CHAN_FREQ", 0), sub.getcell("CHAN_FREQ", 1)
        sub.putcell("CHAN_FREQ", 0, second)
        sub.putcell("CHAN_FREQ", 1, first)
    with table(f"{odd}/DATA_DESCRIPTION", readonly=False, ack=False) as sub:
        sub.putcol("SPECTRAL_WINDOW_ID", np.array([1, 0], dtype=np.int32))
        sub.putcol("POLARIZATION_ID", np.array([1, 1], dtype=np.int32))
    with table(str(odd), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        data[40] = np.nan
        main.putcol("DATA", data)
        main.putcell("FLAG_ROW", 41, True)
    with table(str(clean), readonly=False, ack=False) as main:
        flag = main.getcol("FLAG")
        flag[40:42] = True
        main.putcol("FLAG", flag)
    invoke("ddsolve", clean, *SOLVE, "--no-plots")
    invoke("ddsolve", odd, *SOLVE, "--no-plots")
    (expected,), (found, flags) = columns(clean, "PEELED_DATA"), columns(odd, "PEELED_DATA", "FLAG")
    keep = np.delete(np.arange(len(found)), [40, 41])
    np.testing.assert_allclose(found[keep], expected[keep], atol=1e-4)
    assert np.isfinite(found).all() and not flags.any()


def test_fields_put_together_have_the_solutions_that_fields_apart_have(tmp_path, invoke) -> None:
    # Two fields in turn, the same errors in both scans: apart each field has half of the data.
    path = tmp_path / "fields.ms"
    truth = make_truth(path, TWO[:1], replace(RECIPE, n_field=2, n_scan=4, n_time=6), seed=4)
    together, apart = tmp_path / "together.ms", tmp_path / "apart.ms"
    shutil.copytree(path, together)
    shutil.copytree(path, apart)
    options = ("--all", "ALL", "--peel", "B1", "--de-time", "inf", "--de-freq", "spw", "--g-time",
               "60s", "--no-plots", "--json")  # fmt: skip
    one = json.loads(invoke("ddsolve", together, *options, "--combine", "field").stdout)["results"]
    two = json.loads(invoke("ddsolve", apart, *options).stdout)["results"]
    assert len(one["groups"]) == 2 and len(two["groups"]) == 4
    for target in (together, apart):
        (peeled,) = columns(target, "PEELED_DATA")
        assert rms(peeled - truth["rest"]) == pytest.approx(RECIPE.sigma_jy, rel=0.04)
    # Every scan is one field's, so that the intervals are the same: only the order of work differs.
    np.testing.assert_allclose(
        columns(together, "PEELED_DATA")[0], columns(apart, "PEELED_DATA")[0], atol=0.05
    )


def test_failed_solutions_flag_their_data_and_undo_takes_that_back(two, copy_ms, invoke) -> None:
    path, _ = two
    target = copy_ms(path)
    with table(str(target), readonly=False, ack=False) as main:
        flag = main.getcol("FLAG")
        one, two_, scan = (main.getcol(c) for c in ("ANTENNA1", "ANTENNA2", "SCAN_NUMBER"))
        # Antenna 4 has one baseline in scan 1: nothing holds its solutions.
        rows = ((one == 4) | (two_ == 4)) & (scan == 1)
        flag[rows] = True
        main.putcol("FLAG", flag)
        kept = main.getcol("FLAG")
    out = invoke("ddsolve", target, *SOLVE, "--no-plots", "--json")
    flags = json.loads(out.stdout)["results"]["flags"]
    assert flags["flagged_before"] == int(kept.sum())
    (after,) = columns(target, "FLAG")
    assert not (kept & ~after).any()
    assert int((after & ~kept).sum()) == flags["flagged_by_failed_solutions"]
    invoke("undo", target)
    np.testing.assert_array_equal(columns(target, "FLAG")[0], kept)


def test_a_faint_direction_is_subtracted_as_it_is_and_noise_is_left_alone(tmp_path, invoke) -> None:
    path = tmp_path / "faint.ms"
    make_truth(path, (Bright(5.0, 300.0, 200.0), Bright(0.012, -400.0, 100.0, 0.0, 0.0)))
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("B2", main.getcol("B2"))
        before = main.getcol("DATA")
    out = invoke("ddsolve", path, "--all", "ALL", "--peel", "B1", "--peel", "B2", "--de-time", "60s",
                 "--de-freq", "1chan", "--no-plots", "--json")  # fmt: skip
    directions = json.loads(out.stdout)["results"]["directions"]
    assert [d["decision"] for d in directions] == ["peel", "subtract"]
    assert "below 3" in directions[1]["reason"] and directions[1]["subtracted"]
    refused = invoke("ddsolve", path, "--all", "ALL", "--peel", "B2", "--decide", "B2=skip",
                     "--overwrite", code=5)  # fmt: skip
    assert "no direction to peel" in refused.stderr
    np.testing.assert_array_equal(columns(path, "DATA")[0], before)


def test_a_residual_worse_than_before_is_refused_and_the_ms_is_as_it_was(
    two, copy_ms, invoke
) -> None:
    path, _ = two
    target = copy_ms(path)
    with table(str(target), readonly=False, ack=False) as main:
        # The model's phases are turned: subtracted as it is, it doubles the source.
        main.putcol("B1", -main.getcol("B1"))
        names = main.colnames()
    refused = invoke("ddsolve", target, "--all", "B2", "--peel", "B1", "--decide", "B1=subtract",
                     "--no-plots", code=5)  # fmt: skip
    assert "worse than before" in refused.stderr
    with table(str(target), ack=False) as main:
        assert main.colnames() == names


def test_the_solve_in_chunks_is_the_solve_in_one(two, tmp_path, monkeypatch) -> None:
    # Chunks end with scans: they change nothing but when an iteration stops.
    path, _ = two
    peeled = []
    for samples in (6e6, 1):
        monkeypatch.setattr(dd_cells, "CHUNK_VISIBILITIES", samples)
        options = DdOptions(
            all_column="ALL", peel=("B1",), out=tmp_path / f"run{samples:g}",
            terms=(TermChoice("G", "diag_complex", "60s", "spw"), TermChoice("dE", "diag_complex", "inf", "spw")),
        )  # fmt: skip
        plan = settle(ms.read_info(path), Selection(), options, Progress())
        groups, runs = dd_solve.solve(plan, {0: 1.0, 1: 1.0}, {}, Progress())
        assert len(runs[0].chi2) == (2 if samples > 1 else 4)  # two spws, two scans each
        peeled.append([term.gains for one in groups.values() for term in one.terms])
    for one, other in zip(*peeled, strict=True):
        # S/N of a solution is 300.
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_descending_frequencies_are_solved_like_ascending_ones(two, tmp_path, invoke) -> None:
    path, _ = two
    up, down = tmp_path / "up.ms", tmp_path / "down.ms"
    shutil.copytree(path, up)
    shutil.copytree(path, down)
    with table(str(down), readonly=False, ack=False) as main:
        for name in ("DATA", "ALL", "B1", "B2"):
            main.putcol(name, np.ascontiguousarray(main.getcol(name)[:, ::-1]))
    with table(f"{down}/SPECTRAL_WINDOW", readonly=False, ack=False) as sub:
        for spw in range(2):
            sub.putcell("CHAN_FREQ", spw, np.ascontiguousarray(sub.getcell("CHAN_FREQ", spw)[::-1]))
            sub.putcell("CHAN_WIDTH", spw, -sub.getcell("CHAN_WIDTH", spw))
    # In MHz, which QuartiCal itself would get wrong here.
    options = (*SOLVE[:6], *SOLVE[-2:], "--de-time", "inf", "--de-freq", "20MHz", "--no-plots")
    for target in (up, down):
        invoke("ddsolve", target, *options)
    found, expected = columns(down, "PEELED_DATA")[0][:, ::-1], columns(up, "PEELED_DATA")[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_intervals_are_chosen_by_what_predicts_data_that_were_held_out(
    two, copy_ms, invoke
) -> None:
    path, truth = two
    target = copy_ms(path)
    result = json.loads(
        invoke("ddsolve", target, *SOLVE[:6], "--no-plots", "--json").stdout
    )["results"]  # fmt: skip
    # The truth is one gain for each scan and direction, and none of the array.
    assert result["intervals"]["chosen"] == [
        {"direction": label, "integrations": 0, "channels": 0} for label in ("B1", "B2")
    ]
    terms = {term["name"]: term for term in result["terms"]}
    assert (terms["dE"]["time"], terms["dE"]["freq"]) == ("inf", "spw")
    tried = [one for one in result["intervals"]["candidates"] if one["direction"] == "B1"]
    assert len(tried) >= 5
    # A shorter G carries noise, which data that the solve saw do not show.
    shared = [one for one in result["intervals"]["candidates"] if one["term"] == "G"]
    assert max(shared, key=lambda one: one["parameters"])["excess"] > 0.02
    assert result["chi2"]["solved"] == pytest.approx(1.0, abs=0.03)
    (peeled,) = columns(target, "PEELED_DATA")
    assert rms(peeled - truth["rest"] - truth["noise"]) < 0.25 * RECIPE.sigma_jy


def test_a_solve_goes_on_until_it_has_converged_or_chi_squared_settles(tmp_path, invoke) -> None:
    """Two bright directions trade with each other slowly: two rounds through the terms leave six times the noise."""
    path = tmp_path / "a.ms"
    recipe = replace(RECIPE, sigma_jy=0.02)
    brights = (Bright(6.0, 60, 30, 0.6, 0.15), Bright(3.0, -50, 60, 0.6, 0.15))
    make_truth(path, brights, recipe)
    words = ("ddsolve", path, "--all", "ALL", "--peel", "B1", "--peel", "B2", "--no-balance", "--no-plots",
             "--g-time", "1int", "--de-time", "inf", "--de-freq", "spw", "--json")  # fmt: skip
    results = json.loads(invoke(*words).stdout)["results"]
    # The truth is 1, less the share that 2900 gains take of 50 000 numbers.
    assert 0.9 < results["chi2"]["solved"] < 1.05


def test_gains_that_change_over_the_band_are_found_where_the_rest_is_bright(
    tmp_path, invoke
) -> None:
    """A solve has G of whole spws only: what the rest shows beside it is taken out, and all is solved again."""
    path = tmp_path / "a.ms"
    truth = make_truth(path, (Bright(5.0, 300.0, 200.0),), replace(RECIPE, flux_jy=3.0))
    rng = np.random.default_rng(8)
    with table(str(path), readonly=False, ack=False) as main:
        data, noise = main.getcol("DATA").astype(complex), truth["noise"]
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        # Delays: up to a radian over the spw.
        slope = rng.normal(scale=0.3, size=(RECIPE.n_antenna, 1, 1)) * np.arange(-1.5, 2)[:, None]
        gain = np.exp(1j * slope)
        main.putcol("DATA", (data - noise) * gain[one] * gain[two].conj() + noise)
    words = ("ddsolve", path, "--all", "ALL", "--peel", "B1", "--g-time", "60s", "--de-time", "inf",
             "--de-freq", "1chan", "--no-plots", "--json")  # fmt: skip
    results = json.loads(invoke(*words).stdout)["results"]
    # In one pass 50.
    assert results["chi2"]["solved"] < 5
    assert results["balance"]["phase_rms_deg"] < 1


def test_an_interval_of_g_that_is_no_candidate_is_kept(two, copy_ms, invoke) -> None:
    path, _ = two
    target = copy_ms(path)
    words = ("--g-time", "3int", "--g-freq", "auto", "--de-freq", "spw", "--json")
    result = json.loads(invoke("ddsolve", target, *SOLVE[:6], *words).stdout)["results"]
    terms = {term["name"]: term for term in result["terms"]}
    assert (terms["G"]["time"], terms["G"]["freq"]) == ("3int", "spw")
    assert not any(one["term"] == "G" for one in result["intervals"]["candidates"])
    assert {"intervals.B1.png", "intervals.B2.png"} <= {Path(one).name for one in result["plots"]}


def fast_phases(path: Path, sources: tuple[str, ...]) -> None:
    """Turn DATA, or only what columns put into it (without other errors), by phases that change each integration."""
    rng = np.random.default_rng(9)
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        _, when = np.unique(main.getcol("TIME"), return_inverse=True)
        phase = 0.4 * rng.normal(size=(when.max() + 1, RECIPE.n_antenna))
        turn = np.exp(
            1j * (phase[when, main.getcol("ANTENNA1")] - phase[when, main.getcol("ANTENNA2")])
        )
        turned = sum(main.getcol(name) for name in sources) if sources else data
        data = data + turned * (turn[:, None, None] - 1)
        main.putcol("DATA", data.astype(np.complex64))


def one_direction(invoke, path: Path, *words: str) -> dict:
    """Results of a solve towards B1, intervals in time left to it but for ``words``."""
    base = ("--all", "ALL", "--peel", "B1", "--de-freq", "spw", "--no-plots", "--json")
    return json.loads(invoke("ddsolve", path, *base, *words).stdout)["results"]


def test_intervals_of_de_are_chosen_with_the_g_that_is_solved(tmp_path, invoke) -> None:
    path = tmp_path / "fast.ms"
    truth = make_truth(path, (Bright(5.0, 300.0, 200.0, 0.0, 0.0),), replace(RECIPE, n_time=8))
    fast_phases(path, ("B1",))
    result = one_direction(invoke, path, "--g-time", "inf")
    # A G of each integration would follow that; one of a scan does not.
    assert result["intervals"]["chosen"][0]["integrations"] == 1
    (peeled,) = columns(path, "PEELED_DATA")
    assert rms(peeled - truth["rest"] - truth["noise"]) < 0.6 * RECIPE.sigma_jy


def test_g_may_be_shorter_than_a_fixed_de(tmp_path, invoke) -> None:
    path = tmp_path / "fast.ms"
    truth = make_truth(path, (Bright(5.0, 300.0, 200.0),), replace(RECIPE, n_time=8))
    fast_phases(path, ())
    result = one_direction(invoke, path, "--de-time", "inf")
    terms = {term["name"]: term for term in result["terms"]}
    assert (terms["G"]["time"], terms["dE"]["time"]) == ("1int", "inf")
    # G is taken out of the rest too; with one of a scan it would have errors of sqrt(2) 0.4 rad.
    (peeled,) = columns(path, "PEELED_DATA")
    assert rms(peeled - truth["rest"]) < 1.3 * RECIPE.sigma_jy
    assert rms(truth["rest"]) > 4 * RECIPE.sigma_jy


def test_the_rest_of_the_sky_decides_what_is_g_and_what_is_de(two, copy_ms, invoke) -> None:
    path, truth = two
    target = copy_ms(path)
    # An error of the array, which the self-calibration before did not find: all see it.
    rng = np.random.default_rng(8)
    gain = np.exp(0.15j * rng.normal(size=RECIPE.n_antenna)) * (
        1 + 0.05 * rng.normal(size=RECIPE.n_antenna)
    )
    with table(str(target), readonly=False, ack=False) as main:
        data, one, two_ = (main.getcol(name) for name in ("DATA", "ANTENNA1", "ANTENNA2"))
        data *= (gain[one] * gain[two_].conj())[:, None, None]
        main.putcol("DATA", data.astype(np.complex64))
    options = [*SOLVE[:6], "--de-time", "inf", "--de-freq", "spw", "--g-time", "60s", "--no-plots"]
    left = {}
    for word in ("--no-balance", "--balance"):
        out = invoke("ddsolve", target, *options, word, "--overwrite", "--json")
        (peeled,) = columns(target, "PEELED_DATA")
        rest = truth["rest"]
        scale = np.real(np.vdot(rest, peeled)) / np.vdot(rest, rest).real
        left[word] = rms(peeled - scale * rest)
        result = json.loads(out.stdout)["results"]
    # What is subtracted is the same; the rest is right only where it had a say.
    noise = rms(truth["noise"])
    assert left["--no-balance"] > 1.15 * noise
    assert left["--balance"] < 1.08 * noise, left["--balance"] / noise
    # The flux scale is that of the data: the gains' mean amplitude, which is near 1.
    assert abs(scale - 1) < 0.1
    assert result["balance"]["solved"] == result["balance"]["groups"] == 2
