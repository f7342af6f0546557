"""Which spws are solved together, and which solutions each gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import snr_estimate, spwmaps
from peelkit.io import ms
from peelkit.io.survey import Survey, survey
from peelkit.selection import Selection

NAMES = ("EVLA_S#A0C0#0", "EVLA_S#A0C0#1", "EVLA_S#B0D0#2", "EVLA_S#B0D0#3")


def made(tmp_path: Path, **changes: object) -> tuple[ms.MsInfo, Survey]:
    path = tmp_path / "a.ms"
    recipe = MsRecipe(
        **{"n_antenna": 5, "n_scan": 4, "n_time": 2, "n_chan": (2, 2, 2, 2), **changes}
    )
    make_ms(path, recipe)
    info = ms.read_info(path)
    return info, survey(info, Selection())


def test_basebands_are_told_by_the_names_of_spws(tmp_path: Path) -> None:
    info, found = made(tmp_path, spw_names=NAMES)
    assert spwmaps.groups(info, found, "baseband") == [[0, 1], [2, 3]]
    assert spwmaps.groups(info, found, "scan") == [[0], [1], [2], [3]]
    assert spwmaps.groups(info, found, "spw,scan") == [[0, 1, 2, 3]]
    assert spwmaps.has_basebands(info, found)


def test_spws_without_a_baseband_are_not_combined_by_it(tmp_path: Path) -> None:
    info, found = made(tmp_path)
    assert spwmaps.groups(info, found, "baseband") == [[0], [1], [2], [3]]
    assert not spwmaps.has_basebands(info, found)


def test_each_spw_gets_what_it_was_solved_with(tmp_path: Path) -> None:
    info, found = made(tmp_path, spw_names=NAMES)
    assert spwmaps.spw_map(info, found, {0: {0, 1, 2, 3}}) == []
    assert spwmaps.spw_map(info, found, {0: {0}}, combine="spw") == [0, 0, 0, 0]
    # Spw 1 is nearer to spw 2 than to none, but has its baseband's.
    assert spwmaps.spw_map(info, found, {0: {0, 2}}, combine="baseband") == [0, 0, 2, 2]
    # Seed 002, tip 15: solved with spw='1,2' combined, applied to four.
    assert spwmaps.spw_map(info, found, {0: {1}}, combine="spw") == [1, 1, 1, 1]


def test_a_spw_to_be_avoided_gets_the_nearest_in_frequency(tmp_path: Path) -> None:
    info, found = made(tmp_path)
    assert spwmaps.spw_map(info, found, {0: {0, 1, 2, 3}}, avoid=[3]) == [0, 1, 2, 2]
    assert spwmaps.spw_map(info, found, {0: {0, 1, 2, 3}}, avoid=[0, 1]) == [2, 2, 2, 3]


def test_executions_with_spws_of_their_own_keep_their_own_solutions(tmp_path: Path) -> None:
    info, found = made(tmp_path, executions=2)
    assert found.observations == [0, 1]
    assert [found.spws_of(0), found.spws_of(1)] == [[0, 1], [2, 3]]
    assert spwmaps.spw_map(info, found, {0: {0}, 1: {2}}, combine="spw") == [0, 0, 2, 2]


def test_executions_that_count_their_scans_alike_add_up(tmp_path: Path) -> None:
    # 4 scans of 2 integrations of 10 s, two in each execution.
    _, found = made(tmp_path, executions=2)
    assert found.on_source_s(0) == pytest.approx(80)
    assert found.execution_s(0) == pytest.approx(40)
    assert sorted({visit.scan for visit in found.visits}) == [1, 2]


def test_observations_that_run_side_by_side_are_one_execution(tmp_path: Path) -> None:
    # As in a real ALMA mosaic, whose 23 fields have an OBSERVATION_ID each.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_scan=4, n_time=2, n_field=2))
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("OBSERVATION_ID", main.getcol("FIELD_ID"))
    found = survey(ms.read_info(path), Selection())
    assert found.observations == [0]
    assert found.execution_of == {0: 0, 1: 0}
    assert found.on_source_s() == pytest.approx(80)


def test_a_spw_that_an_execution_has_alone_has_all_its_sensitivity(tmp_path: Path) -> None:
    # Mira (seed 002, 2.4.1): two executions, one wide spw each; there is nothing to combine.
    info, found = made(tmp_path, n_chan=(2, 2), executions=2)
    shares = snr_estimate.shares(info, found, 0)
    assert np.allclose(shares.spw, 1.0)
    plan = snr_estimate.make_plan(info, found, field=0, peak=1.0, rms=0.01)
    assert {row.combine for row in plan.rows} == {"", "scan"}
