"""Terms, models, spw maps and the flux scale of a calibration, without an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from peelkit.core.calibrate_flux import transfer
from peelkit.core.calibrate_match import match_spws
from peelkit.core.calibrate_model import match, point_flux
from peelkit.core.calibrate_plan import (
    CalibrateOptions,
    PointModel,
    StandardModel,
    band,
    is_calibrator,
    make_terms,
    parse_model,
)
from peelkit.core.calibrate_tables import calmode_of
from peelkit.errors import DataError, OptionError
from peelkit.io.caltable import CalPart, CalTable
from peelkit.io.ms import Field, MsInfo, Spw


def gains(
    values: np.ndarray, *, spw: int = 0, kind: str = "G", bands=((1.0e9, 1.1e9),)
) -> CalTable:
    """Table of one interval; values (antenna, pol), NaN where they failed."""
    n_ant = len(values)
    cube = np.nan_to_num(values, nan=1.0)[:, None, :].astype(complex)
    part = CalPart(
        spw, np.zeros(n_ant), np.arange(n_ant), np.zeros(n_ant, int), np.ones(n_ant, int),
        np.zeros(n_ant, int), cube, np.isnan(values)[:, None, :], np.full(cube.shape, 9.0),
    )  # fmt: skip
    freq = tuple(np.array([(low + high) / 2]) for low, high in bands)
    return CalTable(Path("x.cal"), kind, tuple(f"a{n}" for n in range(n_ant)), freq, bands, (part,))


def info_of(*bands: tuple[float, float]) -> MsInfo:
    spws = tuple(
        Spw(n, "", np.array([(low + high) / 2]), np.array([high - low]), "TOPO")
        for n, (low, high) in enumerate(bands)
    )
    return MsInfo(Path("x.ms"), 0, frozenset(), (), (), spws, (), (), "")


def test_models_are_points_or_standard_sources() -> None:
    assert parse_model("point:1.0Jy") == PointModel(1.0)
    assert parse_model("point:250mJy") == PointModel(0.25)
    assert parse_model("point:1Jy,alpha=-0.7@3GHz") == PointModel(1.0, -0.7, 3e9)
    assert parse_model("3c286") == StandardModel("3C286")
    assert parse_model("standard") == StandardModel()
    for text in ("point:1", "point:0Jy", "point:-1Jy", "point:1Jy,alpha=2", "3C1"):
        with pytest.raises(OptionError, match="use point:"):
            parse_model(text)
    assert is_calibrator("point:x") and is_calibrator("3C48") and not is_calibrator("first.model")


def test_a_point_with_a_spectrum_has_its_flux_at_the_reference_frequency() -> None:
    # (2 / 1)^-1 = 1/2, by hand.
    flux = point_flux(PointModel(4.0, -1.0, 1e9), np.array([1e9, 2e9]))
    assert flux.tolist() == [4.0, 2.0]


def test_each_frequency_has_the_model_image_of_its_band() -> None:
    assert [band(f * 1e9) for f in (0.35, 1.4, 3, 6, 10, 15, 22, 33, 43)] == list("PLSCXUKAQ")


def test_terms_have_the_intervals_of_the_field_by_themselves() -> None:
    terms = make_terms(CalibrateOptions("point:1Jy", ("K", "B", "G", "G")))
    assert [(t.name, t.solint, t.combine, t.calmode) for t in terms] == [
        ("K", "inf", "", ""), ("B", "inf", "scan", ""), ("G", "inf", "", "ap"), ("G2", "inf", "", "ap"),
    ]  # fmt: skip


def test_one_interval_is_for_the_gains_and_several_are_for_each_term() -> None:
    one = make_terms(CalibrateOptions("point:1Jy", ("K", "B", "G"), solints=("30s",)))
    assert [t.solint for t in one] == ["inf", "inf", "30s"]
    each = make_terms(
        CalibrateOptions("point:1Jy", ("B", "G"), solints=("inf,4ch", "int"), calmodes=("p",))
    )
    assert [(t.solint, t.calmode) for t in each] == [("inf,4ch", ""), ("int", "p")]
    alone = make_terms(CalibrateOptions("point:1Jy", ("B",), solints=("60s",)))
    assert alone[0].solint == "60s"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"solints": ("inf", "int")}, "2 times"),
        ({"solints": ("soon",)}, "soon"),
        ({"combines": ("scan", "spw", "")}, "for B use"),
        ({"combines": ("", "", "all")}, "all"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make_terms(CalibrateOptions("point:1Jy", ("K", "B", "G"), **changes))


def test_a_standard_source_is_known_by_its_position_in_any_frame() -> None:
    # 3C 286: J2000 13:31:08.288 +30:30:32.96; B1950 13:28:49.657 +30:45:58.64.
    new = Field(0, "1331+305", np.radians(202.784533), np.radians(30.509155), "J2000")
    old = Field(0, "1328+307", np.radians(202.206904), np.radians(30.766289), "B1950")
    assert match(new, "") == match(old, "") == match(new, "3C286") == "3C286"
    with pytest.raises(DataError, match="but at that of 3C286"):
        match(new, "3C48")


def test_the_flux_is_the_square_of_the_ratio_of_the_gains() -> None:
    # Gains 1.5 times as large against an assumed flux: 2.25 times that flux. One antenna is off, one dead.
    reference = gains(np.array([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0], [1.0, np.nan]]))
    own = gains(np.array([[1.5, 3.0], [4.5, 1.5], [9.0, 1.5], [np.nan, 1.5]]))
    found = transfer(own, reference, 0)
    assert found is not None
    assert (found.factor, found.scatter, found.ratios) == (2.25, 0.0, 6)
    assert transfer(own, reference, 1) is None


def test_the_error_of_the_flux_is_that_of_a_median(rng: np.random.Generator) -> None:
    # Gains with 1 %: ratios of squares with 2 sqrt(2) %, and the median of 2000 of them.
    one, two = (gains(1 + 0.01 * rng.normal(size=(1000, 2))) for _ in range(2))
    found = transfer(two, one, 0)
    assert found is not None
    assert found.scatter == pytest.approx(0.0283, rel=0.08)
    assert found.error == pytest.approx(np.sqrt(np.pi / 2) * found.scatter / np.sqrt(2000))
    assert abs(found.factor - 1) < 4 * found.error


def test_spws_are_matched_by_frequency_whatever_their_numbers() -> None:
    a, b = (1.0e9, 1.1e9), (1.2e9, 1.3e9)
    table = gains(np.ones((2, 2)), bands=(a, b))
    both = CalTable(
        table.path, "G", table.antennas, table.freq_hz, table.bands_hz,
        (table.parts[0], gains(np.ones((2, 2)), spw=1).parts[0]),
    )  # fmt: skip
    spwmap, ratios, _ = match_spws(both, info_of(b, a), [0, 1])
    assert (spwmap, ratios) == ([1, 0], {0: 1.0, 1: 1.0})
    # A line window inside one, and one beside both: the nearest.
    assert match_spws(both, info_of((1.24e9, 1.25e9), (1.5e9, 1.6e9)), [0, 1])[0] == [1, 1]


def test_solutions_of_combined_spws_serve_all_of_them() -> None:
    a, b = (1.0e9, 1.1e9), (1.2e9, 1.3e9)
    table = gains(np.ones((2, 2)), bands=(a, b))  # solved in spw 0, for both
    spwmap, ratios, _ = match_spws(table, info_of(b, a), [0, 1], (0, 0))
    assert spwmap == [0, 0]
    assert ratios == {0: 1.0, 1: 1.0}  # no frequency is new: phases are not to be scaled
    # By path nothing is known of that; the frequency is another, and is said to be.
    assert match_spws(table, info_of(b), [0])[1][0] == pytest.approx(2.5 / 2.1)


def test_a_bandpass_of_other_frequencies_is_refused() -> None:
    table = gains(np.ones((2, 2)), kind="B")
    with pytest.raises(DataError, match="its bandpass has nothing at the 5 GHz of spw 0"):
        match_spws(table, info_of((4.95e9, 5.05e9)), [0])


def test_the_mode_of_a_table_is_read_from_its_gains() -> None:
    phase = np.exp(1j * np.array([[0.0, 0.3], [0.2, 0.1]]))
    assert calmode_of(gains(np.abs(phase))) == "p"
    table = gains(np.ones((2, 2)))
    table.parts[0].values[:, 0] = phase
    assert calmode_of(table) == "p"
    table.parts[0].values[:, 0] = 2 * phase
    assert calmode_of(table) == "ap"
    table.parts[0].values[:, 0] = 2
    assert calmode_of(table) == "a"
