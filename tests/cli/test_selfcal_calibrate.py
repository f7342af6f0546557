"""Options of selfcal that go with a known source, or with other tables, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--term G", "give one --model"),
        ("--term G --model x.model", "no calibrator that is known here"),
        ("--model 3C286", "name the terms to solve"),
        ("--model point:1Jy --term G --apply x.g", "exclude each other"),
        ("--apply-to 1", "--apply-to: goes with --term only"),
        ("--model point:1Jy --term G --rounds 3", "--rounds: does not go with --term"),
        ("--model point:1Jy --term G --gaintype T", "--gaintype: does not go with --term"),
        ("--model point:1Jy --term G --imsize 128", "--imsize: does not go with --term"),
        ("--apply x.g --solint inf", "--solint: does not go with --apply"),
        ("--model 3C286 --term G --flux-from x", "has a flux of its own"),
        ("--model point:1Jy --term B --flux-from x", "needs --term G"),
        ("--model point:1Jy --term G --calmode p --flux-from x", "needs --term G"),
        ("--model point:1Jy --term B --calmode p", "only G and T have one"),
        ("--model point:1 --term G", "use point:1.0Jy"),
        ("--model 3C286 --term G --standard mine", "setjy knows Perley-Butler 2017"),
    ],
)
def test_what_does_not_go_together_is_refused(invoke, point_ms, words: str, said: str) -> None:
    result = invoke("selfcal", point_ms, *words.split(), code=2)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--pre gone", "gone: no such calibration table"),
        ("--parang", "needs all four"),
        ("--apply-to nobody", "nobody"),
    ],
)
def test_what_the_data_do_not_have_is_said(invoke, point_ms, words: str, said: str) -> None:
    result = invoke(
        "selfcal", point_ms, "--model", "point:1Jy", "--term", "G", *words.split(), code=3
    )
    assert said in result.stderr


def test_several_sources_have_no_single_model(invoke, tmp_path) -> None:
    from makems import MsRecipe, make_ms

    make_ms(tmp_path / "two.ms", MsRecipe(n_antenna=4, n_scan=2, n_time=1, n_chan=(1,), n_field=2))
    result = invoke("selfcal", "two.ms", "--model", "point:1Jy", "--term", "G", code=2)
    assert "0=field0, 1=field1 are several sources" in result.stderr


def test_uvfits_is_checked_before_an_engine_starts(invoke, tmp_path) -> None:
    assert "no such file" in invoke("import-uvfits", "x.fits", "x.ms", code=3).stderr
    (tmp_path / "x.fits").write_text("nothing")
    assert "is no FITS file" in invoke("import-uvfits", "x.fits", "x.ms", code=3).stderr
    for text in ("", "SIMPLE  =                    T".ljust(2880)):
        (tmp_path / "x.fits").write_text(text)
        assert "is no FITS file" in invoke("import-uvfits", "x.fits", "x.ms", code=3).stderr
    fits.writeto(tmp_path / "x.fits", np.zeros((4, 4), "f4"), overwrite=True)
    assert "holds no visibilities" in invoke("import-uvfits", "x.fits", "x.ms", code=3).stderr
