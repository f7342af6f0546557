"""CASA's selection words."""

from __future__ import annotations

import pytest

from peelkit.errors import DataError, OptionError
from peelkit.selection import (
    antenna_words,
    check_uvrange,
    parse_angle_arcsec,
    parse_ids,
    parse_solint,
    parse_spw,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("inf", None), ("30s", 30.0), ("0.5min", 30.0), ("1h", 3600.0), ("12", 12.0), ("int", 2.5), ("3int", 7.5), (" INF ", None)],
)  # fmt: skip
def test_solint_is_read_as_casa_reads_it(text: str, seconds: float | None) -> None:
    assert parse_solint(text, integration_s=2.5) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-3s", "ten", "3 apples", "0int"])
def test_a_bad_solint_is_a_usage_error_that_shows_it(text: str) -> None:
    with pytest.raises(OptionError, match="solint"):
        parse_solint(text, integration_s=1.0)


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", [0, 1, 2, 3]), ("1", [1]), ("0~2", [0, 1, 2]), ("B*", [1, 2]), ("3C273,0", [3, 0]), (">1", [2, 3]), ("<2", [0, 1])],
)  # fmt: skip
def test_ids_ranges_names_and_globs(text: str, ids: list[int]) -> None:
    assert parse_ids(text, ["A", "B1", "B2", "3C273"], kind="field") == ids


def test_a_number_names_what_it_names_in_casa() -> None:
    """Measured with MSSelection of CASA 6.7: a name first for antennas, an id first for fields and spws."""
    assert parse_ids("1", ["1", "0"], kind="antenna") == [0]
    assert parse_ids("1", ["1", "0"], kind="refant") == [0]
    assert parse_ids("1", ["1", "0"], kind="field") == [1]
    assert parse_ids("5", ["5", "0"], kind="field") == [0]
    assert parse_spw("0", [4, 8], ["1", "0"]) == {0: [(0, 3)]}


ODD = ["A&B", "C,D", "", "x y", "e;f", "!g", "h~i", "C", "C,D,E", ""]


def test_any_name_can_be_given() -> None:
    for number, name in enumerate(ODD):
        if name:
            assert parse_ids(name, ODD, kind="field") == [number]
            assert parse_ids(f'"{name}"', ODD, kind="field") == [number]
    assert parse_ids("x y,C,D,h~i,C,C,D,E", ODD, kind="field") == [3, 1, 6, 7, 8]
    assert parse_ids("2,9", ODD, kind="antenna") == [2, 9]


def test_spws_may_be_called_anything() -> None:
    names = ["a:b,c", "a", "b:1", "spw,1"]
    chans = [8, 8, 8, 8]
    assert parse_spw("a:b,c", chans, names) == {0: [(0, 7)]}
    assert parse_spw("a:b,c:1~2;4,a:3", chans, names) == {0: [(1, 2), (4, 4)], 1: [(3, 3)]}
    assert parse_spw("b:1,spw,1:0~3", chans, names) == {2: [(0, 7)], 3: [(0, 3)]}


def test_engines_get_ids_of_antennas_whose_names_they_would_misread() -> None:
    assert antenna_words(range(10), ODD) == ["0", "1", "2", "3", "4", "5", "6", "C", "8", "9"]
    # CASA takes "3" for the third antenna, which is called so.
    assert antenna_words([2, 0], ["1", "2", "3"]) == ["3", "1"]
    assert antenna_words([1], ["1", "A&B"]) == ['"A&B"']
    assert antenna_words([0, 1], ["ea01", "DV-02"]) == ["ea01", "DV-02"]


@pytest.mark.parametrize("text", ["7", "0~9", "nope", "Q*"])
def test_what_is_not_there_is_named_with_what_is(text: str) -> None:
    with pytest.raises(DataError, match="0=A"):
        parse_ids(text, ["A", "B"], kind="field")


def test_spw_channels() -> None:
    found = parse_spw("0:5~60,2", [64, 8, 8], ["a", "b", "c"])
    assert found == {0: [(5, 60)], 2: [(0, 7)]}
    assert parse_spw("", [4, 4], ["", ""]) == {0: [(0, 3)], 1: [(0, 3)]}
    assert parse_spw("1:0~1;3", [4, 4], ["", ""]) == {1: [(0, 1), (3, 3)]}


@pytest.mark.parametrize("text", ["0:9", "0:3~1", "0:x"])
def test_channels_outside_the_spw_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="0~3"):
        parse_spw(text, [4], [""])


@pytest.mark.parametrize(
    ("text", "arcsec"), [("0.5arcsec", 0.5), ("20mas", 0.02), ("1arcmin", 60.0), ("2", 2.0)]
)
def test_angles(text: str, arcsec: float) -> None:
    assert parse_angle_arcsec(text) == pytest.approx(arcsec)


@pytest.mark.parametrize("text", ["0arcsec", "one", "5parsec"])
def test_bad_angles(text: str) -> None:
    with pytest.raises(OptionError, match="angle"):
        parse_angle_arcsec(text)


@pytest.mark.parametrize(
    "text", ["", ">1klambda", "< 500 m", "100~500m", "0.1~3klambda,>5klambda", ">10"]
)
def test_uvranges_of_casa_are_accepted(text: str) -> None:
    check_uvrange(text)


@pytest.mark.parametrize("text", ["hello", ">1parsec", "1klambda>", "~5m"])
def test_other_uvranges_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="uvrange"):
        check_uvrange(text)
