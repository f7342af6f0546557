"""Delays and TEC end to end: the fitted table through applycal, and as rounds of selfcal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import plots
from peelkit.core.dispersive_solve import solve_term
from peelkit.engines.casa import Casa
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.caltable import read_gain_table
from peelkit.selection import Selection

SIGMA = 0.3
N_ANTENNA = 10


def band(**changes: object) -> MsRecipe:
    """Two spws of 16 channels from 300 to 500 MHz; a 1 Jy point."""
    return MsRecipe(
        **{
            "n_antenna": N_ANTENNA, "n_scan": 2, "n_time": 4, "n_chan": (16, 16), "freq_hz": 300e6,
            "chan_width_hz": 6.25e6, "sigma_jy": SIGMA, "seed": 5, **changes,
        }
    )  # fmt: skip


def with_model(path: Path, recipe: MsRecipe) -> ms.MsInfo:
    """Make the MS with the model of a 1 Jy point and a CORRECTED_DATA."""
    make_ms(path, recipe)
    with ms.opened(path, write=True) as main:
        for name in ("MODEL_DATA", "CORRECTED_DATA"):
            ms.add_column(main, name)
        info = ms.read_info(path)
        for _, rows in ms.chunks(main, info, np.arange(info.n_rows)):
            ones = np.ones_like(ms.get(main, "DATA", rows))
            for name in ("MODEL_DATA", "CORRECTED_DATA"):
                ms.put(main, name, rows, ones)
    return ms.read_info(path)


def applied(path: Path, caltable: Path, log: Path) -> np.ndarray:
    with Casa(log) as casa:
        casa.run(
            "applycal", vis=str(path), gaintable=[str(caltable)], interp=["nearest"], calwt=False,
            flagbackup=False, applymode="calflagstrict",
        )  # fmt: skip
    with table(str(path), ack=False) as main:
        return np.ma.masked_array(main.getcol("CORRECTED_DATA"), main.getcol("FLAG"))


TEC = tuple(np.random.default_rng(1).uniform(0.05, 0.5, N_ANTENNA) * (-1) ** np.arange(N_ANTENNA))
# Channels of 31 MHz tell delays apart within +-16 ns.
DELAYS = tuple(np.random.default_rng(2).uniform(-7, 7, N_ANTENNA))
WIDE = {"freq_hz": 1e9, "chan_width_hz": 31.25e6}


@pytest.mark.casa
@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ("tec_and_offset", band(tec_tecu=TEC, phase_rms_deg=60)),
        ("delay_and_offset", band(delay_ns=DELAYS, phase_rms_deg=60, **WIDE)),
        ("delay_and_tec", band(delay_ns=DELAYS, tec_tecu=TEC)),
    ],
)
def test_data_that_applycal_corrected_are_the_model_and_noise(
    tmp_path: Path, kind: str, recipe: MsRecipe
) -> None:
    path, out = tmp_path / "a.ms", tmp_path / "a.cal"
    info = with_model(path, recipe)
    report = solve_term(info, kind=kind, out=out, solint_s=None, refants=[3])
    assert (report.solutions, report.failed) == (2 * N_ANTENNA * 2, 0)
    residual = applied(path, out, tmp_path / "log") - 1
    assert residual.mask.sum() == 0
    # 2 x 9 x 3 phases of 45 x 4 x 32 x 2 complex numbers take 0.1 % of the noise.
    assert np.std(residual.real) == pytest.approx(SIGMA, rel=0.01)
    assert np.std(residual.imag) == pytest.approx(SIGMA, rel=0.01)
    record = json.loads((tmp_path / "a.cal.json").read_text())
    for interval in record["intervals"]:
        assert interval["reference"] == "ea04"
        for key, truth in (("tec_tecu", TEC), ("delay_ns", DELAYS)):
            if key not in interval:
                continue
            found = np.array(interval[key]).reshape(N_ANTENNA, -1)
            error = np.array(interval[f"{key}_error"], dtype=float).reshape(N_ANTENNA, -1)
            off = found - (np.array(truth) - truth[3])[:, None]
            others = np.arange(N_ANTENNA) != 3
            assert np.abs(off[others] / error[others]).max() < 4.5
            assert np.abs(off[3]).max() == 0


@pytest.mark.casa
def test_an_antenna_without_signal_is_flagged_and_the_rest_calibrated(tmp_path: Path) -> None:
    path, out = tmp_path / "a.ms", tmp_path / "a.cal"
    info = with_model(path, band(tec_tecu=TEC))
    rng = np.random.default_rng(3)
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        mine = (main.getcol("ANTENNA1") == 2) | (main.getcol("ANTENNA2") == 2)
        data[mine] = rng.normal(0, SIGMA, (mine.sum(), 16, 2, 2)) @ [1, 1j]
        main.putcol("DATA", data)
    report = solve_term(info, kind="tec_and_offset", out=out, solint_s=20.0, refants=[2, 0])
    # An antenna that has data but no signal can be no reference that others are found from; it fails.
    assert all(fit.failed[2].all() for fit in report.fits)
    gains = read_gain_table(out)
    assert gains.failed[gains.antenna == 2].all() and gains.ok[gains.antenna != 2].all()
    residual = applied(path, out, tmp_path / "log") - 1
    assert residual.mask[mine].all() and not residual.mask[~mine].any()
    assert np.std(residual[~mine].real) == pytest.approx(SIGMA, rel=0.01)


def test_spws_channels_and_intervals_are_those_of_the_selection(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    info = with_model(path, band(n_chan=(16, 8), tec_tecu=TEC))
    solve = {"kind": "tec_and_offset", "refants": [0]}
    report = solve_term(info, out=tmp_path / "a", solint_s=20.0, **solve)
    table_a = read_gain_table(tmp_path / "a")
    # 2 scans of 4 x 10 s, 2 spws of different size.
    assert len(report.fits) == 4 and table_a.gain.shape == (4 * 2 * N_ANTENNA, 2)
    assert set(table_a.spw) == {0, 1} and set(table_a.scan) == {1, 2}
    report = solve_term(
        info, out=tmp_path / "b", solint_s=None, combine="scan", selection=Selection(spw="1:2~7"), **solve
    )  # fmt: skip
    assert len(report.fits) == 1 and set(read_gain_table(tmp_path / "b").spw) == {1}
    with pytest.raises(DataError, match="needs 4 channels or more, and 2 are selected"):
        solve_term(
            info, out=tmp_path / "c", solint_s=None, selection=Selection(spw="0:3~4"), **solve
        )
    with pytest.raises(OptionError, match="gaintype 'clock': use one of tec, "):
        solve_term(info, out=tmp_path / "c", solint_s=None, kind="clock", refants=[0])


@pytest.mark.casa
@pytest.mark.slow
def test_phases_of_tec_need_a_round_of_tec(invoke, tmp_path: Path) -> None:
    recipe = band(
        n_time=6, radius_m=8000.0, phase_rms_deg=10,
        tec_tecu=tuple(np.random.default_rng(9).normal(0, 0.02, N_ANTENNA)),
    )  # fmt: skip
    make_ms(tmp_path / "a.ms", recipe)
    imaging = ("--imsize", 80, "--nterms", 1, "--no-plots", "--overwrite")
    residuals, range_ = {}, {}
    for first in ("G", "tec_and_offset"):
        invoke(
            "selfcal", "a.ms", *imaging, "--solint", "inf", "--solint", "inf",
            "--gaintype", first, "--gaintype", "G", "--out", first,
        )  # fmt: skip
        found = json.loads((tmp_path / "a.ms.selfcal.peelkit.json").read_text())["results"]
        assert [item["accepted"] for item in found["rounds"]] == [True, True]
        # A phase for each spw goes on top of the TEC, and in the place of an earlier one.
        assert len(found["gaintables"]) == (1 if first == "G" else 2)
        range_[first] = found["final"]["dynamic_range"]
        with table("a.ms", ack=False) as main:
            residuals[first] = np.std((main.getcol("CORRECTED_DATA") - 1).real)
    # The noise alone, and the noise with what TEC leaves within a spw.
    assert residuals["tec_and_offset"] == pytest.approx(SIGMA, rel=0.02)
    # Phases of 0.1 rad that are left within a spw cost 20 % of the dynamic range here (42 % were measured of
    # 1.5 times as much TEC).
    assert range_["tec_and_offset"] > 1.1 * range_["G"]


def test_terms_of_phases_have_no_amplitudes(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_scan=1, n_time=2))
    auto = invoke("selfcal", "a.ms", "--gaintype", "tec", code=2).stderr
    assert "--gaintype tec goes with named intervals" in auto
    for kind in ("K", "delay"):
        amplitude = invoke(
            "selfcal", "a.ms", "--solint", "inf", "--calmode", "ap", "--gaintype", kind, code=2
        ).stderr
        assert f"gaintype {kind} with calmode ap" in amplitude


@pytest.mark.casa
def test_a_table_of_casas_delays_is_read_as_phases_at_the_edge_of_the_spw(tmp_path: Path) -> None:
    path, out = tmp_path / "a.ms", tmp_path / "a.K"
    info = with_model(path, band(n_scan=1, n_chan=(16,), delay_ns=DELAYS, sigma_jy=0.02, **WIDE))
    with Casa(tmp_path / "log") as casa:
        casa.run(
            "gaincal", product=out, vis=str(path), caltable=str(out), gaintype="K", solint="inf",
            refant="ea01",
        )  # fmt: skip
    found = read_gain_table(out)
    width = info.spws[0].bandwidth_hz
    expected = np.exp(1e-9j * np.pi * width * (np.array(DELAYS) - DELAYS[0]))[found.antenna]
    # CASA interpolates the peak of a transform: delays to 0.02 of a channel's turn.
    assert np.abs(np.angle(found.gain / expected[:, None])).max() < 0.3
    made = plots.gains(found, [item.name for item in info.antennas], tmp_path / "K", calmode="p")
    assert [item.name for item in made] == ["K.phase.png"]
