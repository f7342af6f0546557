"""Proposals to flag, from tables made by formula, each with one thing wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.core import decorrelation
from peelkit.core import flag_proposals as flags
from peelkit.engines import casa as engine
from peelkit.io import ms
from peelkit.io.caltable import GainTable
from peelkit.io.survey import survey
from peelkit.selection import Selection

N_ANT, N_TIME, START = 8, 24, 5.0e9
NAMES = [f"ea{n + 1:02d}" for n in range(N_ANT)]


def made(rng: np.random.Generator, *, n_spw: int = 1, n_pol: int = 2) -> dict[str, np.ndarray]:
    """Smooth phases, amplitudes of 1 with 2 % scatter, S/N 30; two scans of 12 intervals of 30 s."""
    spw, time, antenna = (index.ravel() for index in np.indices((n_spw, N_TIME, N_ANT)))
    drift = rng.uniform(-0.05, 0.05, (n_spw, N_ANT))[spw, antenna]
    phase = drift * time + 0.03 * rng.normal(size=time.size)
    gain = (1 + 0.02 * rng.normal(size=time.size)) * np.exp(1j * phase)
    scan = 1 + time // (N_TIME // 2)
    return {
        "time_s": START + 30.0 * time + 600.0 * (scan - 1),
        "antenna": antenna, "refant": np.zeros_like(antenna), "spw": spw, "scan": scan,
        "observation": np.zeros_like(antenna),
        "gain": np.repeat(gain[:, None], n_pol, axis=1),
        "failed": np.zeros((time.size, n_pol), dtype=bool),
        "snr": np.full((time.size, n_pol), 30.0),
    }  # fmt: skip


def proposed(columns: dict[str, np.ndarray], calmode: str = "ap", **more) -> list[flags.Proposal]:
    return flags.proposals(
        GainTable(**columns), NAMES, calmode=calmode, antennas=range(N_ANT), **more
    )


def test_good_solutions_propose_nothing(rng: np.random.Generator) -> None:
    assert proposed(made(rng, n_spw=2)) == []


def test_low_snr_on_one_antenna(rng: np.random.Generator) -> None:
    columns = made(rng)
    columns["snr"][columns["antenna"] == 3] = 12.0
    (found,) = proposed(columns)
    assert (found.antenna, found.timerange, found.spw) == ("ea04", "", "")
    assert found.reason == "S/N 12.0, median of the array 30.0"
    assert found.command == f"mode='manual' antenna='ea04' reason='{found.reason}'"


def test_amplitudes_off_all_the_time_and_in_one_stretch(rng: np.random.Generator) -> None:
    columns = made(rng)
    columns["gain"][columns["antenna"] == 2] *= 1.4
    late = np.isin(columns["time_s"], START + 30.0 * np.array([4, 5, 6]))
    columns["gain"][(columns["antenna"] == 5) & late] *= 0.6
    always, while_ = proposed(columns)
    assert (always.antenna, always.timerange) == ("ea03", "")
    assert always.reason.startswith("amplitude 1.")
    assert while_.antenna == "ea06"
    # Intervals 4 to 6, of 30 s: from 105 to 195 s after the first middle.
    assert while_.timerange == flags.timerange(START + 105.0, START + 195.0)
    # Phases alone have no amplitudes.
    assert proposed(columns, calmode="p") == []


@pytest.mark.parametrize("refant", [False, True])
def test_random_phases_are_told_whichever_antenna_is_the_reference(
    rng: np.random.Generator, refant: bool
) -> None:
    columns = made(rng)
    jump = rng.uniform(-math.pi, math.pi, N_TIME)
    time = np.unique(columns["time_s"], return_inverse=True)[1]
    if refant:
        # The reference itself jumps: all the others seem to.
        mine = columns["antenna"] != 6
    else:
        mine = columns["antenna"] == 6
    columns["gain"][mine] *= np.exp(1j * jump[time[mine]])[:, None]
    (found,) = proposed(columns, calmode="p")
    assert found.antenna == "ea07" and "jump at random" in found.reason


def test_a_random_ratio_of_the_hands(rng: np.random.Generator) -> None:
    columns = made(rng)
    mine = columns["antenna"] == 1
    columns["gain"][mine, 1] *= np.exp(1j * rng.uniform(-math.pi, math.pi, N_TIME))
    (found,) = proposed(columns, calmode="p")
    assert found.antenna == "ea02" and "hands" in found.reason


def test_where_all_is_random_no_antenna_is_blamed(rng: np.random.Generator) -> None:
    columns = made(rng)
    columns["gain"] *= np.exp(1j * rng.uniform(-np.pi, np.pi, columns["gain"].shape))
    assert proposed(columns, calmode="p") == []


def test_failing_antennas_but_not_where_all_fail(rng: np.random.Generator) -> None:
    columns = made(rng)
    columns["failed"][(columns["antenna"] == 7) & (columns["time_s"] > START + 200)] = True
    (found,) = proposed(columns)
    assert found.antenna == "ea08" and "solutions failed" in found.reason
    columns["failed"][columns["time_s"] > START + 200] = True
    assert proposed(columns) == []


def test_what_holds_in_one_spw_is_proposed_for_that(rng: np.random.Generator) -> None:
    columns = made(rng, n_spw=3)
    mine = columns["antenna"] == 4
    columns["gain"][mine & (columns["spw"] == 1)] *= 1.5
    (found,) = proposed(columns)
    assert (found.antenna, found.spw) == ("ea05", "1")
    columns["gain"][mine & (columns["spw"] != 1)] *= 1.5
    (found,) = proposed(columns, spw="0~2")
    assert (found.antenna, found.spw) == ("ea05", "0~2")


def test_a_decorrelated_time_is_told_once_and_an_antennas_own_by_its_name(
    rng: np.random.Generator,
) -> None:
    times = START + 60.0 * np.arange(20)
    ratio = 1 + 0.02 * rng.normal(size=(20, N_ANT))
    ratio[7:9] *= 0.4
    ratio[15, 2] *= 0.5
    array, own = flags.decorrelated(times, 30.0, ratio, NAMES)
    assert array.antenna == "" and "decorrelated" in array.reason
    assert array.timerange == flags.timerange(times[7] - 30, times[8] + 30)
    assert own.antenna == "ea03" and own.timerange == flags.timerange(
        times[15] - 30, times[15] + 30
    )


def test_amplitude_over_model_is_that_of_the_phase_noise(tmp_path: Path) -> None:
    # Phases of 1 rad rms each integration on every antenna: baselines have 2 rad^2, exp(-1) is left.
    recipe = MsRecipe(
        n_antenna=12, n_scan=2, n_time=40, n_chan=(1,), sigma_jy=0.01, seed=3,
        phase_rms_deg=math.degrees(1.0), gain_step=1,
    )  # fmt: skip
    make_ms(tmp_path / "a.ms", recipe)
    info = ms.read_info(tmp_path / "a.ms")
    with ms.opened(info.path, write=True) as main:
        ms.add_column(main, "MODEL_DATA")
        main.putcol("MODEL_DATA", np.ones_like(main.getcol("DATA")))
    starts, ends = decorrelation.intervals(survey(info, Selection()), 400.0)
    assert ends - starts == pytest.approx([400.0, 400.0])
    found = decorrelation.amplitude_over_model(info, np.arange(info.n_rows), starts, column="DATA")
    # 80 independent values of an antenna's phase and hand: 0.6 / sqrt(80) = 7 % of 1, and its partners'.
    assert found.mean() == pytest.approx(math.exp(-1), abs=0.05)
    assert found == pytest.approx(np.full(found.shape, math.exp(-1)), abs=0.3)


def test_time_ranges_are_casas_and_round_outwards() -> None:
    day = 58000 * 86400.0
    assert flags.timerange(day + 0.04, day + 3600.01) == (
        "2017/09/04/00:00:00.0~2017/09/04/01:00:00.1"
    )


@pytest.mark.casa
def test_casas_flagdata_does_what_the_list_says(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_scan=1, n_time=4, n_chan=(2, 2)))
    info = ms.read_info(path)
    with ms.opened(path) as main:
        times = np.unique(main.getcol("TIME"))
    flags.write_list(
        tmp_path / "flags.txt",
        [
            flags.Proposal("ea02", "", "1", "S/N 2.0, the array's median isn't"),
            flags.Proposal(
                "", flags.timerange(times[1] - 4, times[2] + 4), "", "decorrelated: 0.3"
            ),
        ],
    )
    with engine.Casa(tmp_path / "casa.log") as casa:
        engine.flag_by_list(casa, path, tmp_path / "flags.txt", action="calculate")
        with ms.opened(path) as main:
            assert not main.getcol("FLAG").any()
        engine.flag_by_list(casa, path, tmp_path / "flags.txt")
    with ms.opened(path) as main:
        expected = np.isin(main.getcol("TIME"), times[1:3])
        mine = (main.getcol("ANTENNA1") == 1) | (main.getcol("ANTENNA2") == 1)
        expected |= mine & (main.getcol("DATA_DESC_ID") == 1)
        flag = main.getcol("FLAG")
    assert np.array_equal(flag.all(axis=(1, 2)), expected)
    assert np.array_equal(flag.any(axis=(1, 2)), expected)
    assert info.n_rows == flag.shape[0]
