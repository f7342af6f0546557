"""CASA's selection words."""

from __future__ import annotations

import pytest

from peelkit.errors import DataError, OptionError
from peelkit.selection import check_uvrange, parse_angle_arcsec, parse_ids, parse_solint, parse_spw


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


def test_a_name_goes_before_a_number() -> None:
    # ALMA MSs have antennas called "1".
    assert parse_ids("1", ["1", "0"], kind="antenna") == [0]


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
