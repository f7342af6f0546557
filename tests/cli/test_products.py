"""Images by the names that people give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from peelkit.products import product, taylor_terms


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        ("x.image", "x.image", "x.image"),
        ("x.image.tt0", "x.image", "x.image.tt0"),
        ("x.image.tt0", "x", "x.image.tt0"),
        ("x.image", "x", "x.image"),
        ("x.psf.tt0", "x.psf", "x.psf.tt0"),
        ("x.model", "x.image", "x.image"),  # not there, and not another thing
    ],
)
def test_an_image_is_found_by_its_name_without_terms_and_by_its_stem(
    tmp_path: Path, there: str, asked: str, found: str
) -> None:
    (tmp_path / there).mkdir()
    assert product(tmp_path / asked) == tmp_path / found


def test_what_is_there_by_the_name_given_goes_before(tmp_path: Path) -> None:
    for name in ("x.image", "x.image.tt0"):
        (tmp_path / name).mkdir()
    assert product(tmp_path / "x.image") == tmp_path / "x.image"


def test_a_model_is_all_its_taylor_terms(tmp_path: Path) -> None:
    for name in ("x.model.tt0", "x.model.tt1", "y.model", "y.model.tt0"):
        (tmp_path / name).mkdir()
    assert taylor_terms(tmp_path / "x.model") == [
        tmp_path / "x.model.tt0",
        tmp_path / "x.model.tt1",
    ]
    assert taylor_terms(tmp_path / "y.model") == [tmp_path / "y.model"]
    assert taylor_terms(tmp_path / "z.model") == [tmp_path / "z.model"]
