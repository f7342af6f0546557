"""What snr-estimate promises against what gaincal delivers, and our prediction against tclean's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.core import modelcol, snr
from peelkit.engines import casa as engine
from peelkit.engines.casa import Casa
from peelkit.io import ms
from peelkit.io.caltable import read_gain_table
from peelkit.io.image import read_image, write_like

pytestmark = pytest.mark.casa


@pytest.mark.parametrize(
    ("gaintype", "combine"), [("G", ""), ("T", ""), ("G", "spw"), ("T", "spw")]
)
def test_the_scatter_of_solved_phases_is_one_over_the_predicted_snr(
    tmp_path: Path, gaintype: str, combine: str
) -> None:
    # A 1 Jy point, no gain errors, noise only: the phases that gaincal finds are its errors.
    recipe = MsRecipe(n_antenna=20, n_scan=4, n_time=10, n_chan=(2, 2), sigma_jy=0.5, seed=8)
    path = tmp_path / "a.ms"
    make_ms(path, recipe)
    info = ms.read_info(path)
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "MODEL_DATA")
        main.putcol("MODEL_DATA", np.ones_like(main.getcol("DATA")))
    caltable = tmp_path / "a.g"
    with Casa(tmp_path / "casa.log") as casa:
        engine.solve_gains(
            casa, path, caltable, solint="int", calmode="p", gaintype=gaintype, combine=combine,
            minsnr=0.0, minblperant=4, refant="",
        )  # fmt: skip
    table = read_gain_table(caltable)
    phase = np.angle(np.where(table.ok, table.gain, np.nan))
    # Without a reference antenna only the mean phase of all is free; its removal costs 1 in 20.
    times = table.time_s + 1e4 * table.spw
    for key in np.unique(times):
        phase[times == key] -= np.nanmean(phase[times == key], axis=0)
    n_base = 20 * 19 / 2
    rms = recipe.sigma_jy / np.sqrt(n_base * 40 * 4 * 2)  # of an image of all spws and both hands
    predicted = snr.snr_rows(
        1.0, rms, n_ant=20, on_source_s=400.0, intervals=[("int", 10.0)],
        shares=snr.Shares([0.5, 0.5]),
    )  # fmt: skip
    row = next(r for r in predicted if (r.combine, r.gaintype) == (combine, gaintype))
    assert info.n_rows == n_base * 40 * 2
    # n - 3 in the formula where the exact figure is n, and linear errors: 15 % in all.
    assert np.nanstd(phase) == pytest.approx(1 / row.snr, rel=0.15)


def test_an_image_of_a_prediction_has_the_model_where_it_was_put(tmp_path: Path) -> None:
    # Truth: tclean images MODEL = prediction of a point; the image must have it at the same pixel.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=14, sigma_jy=0.01, seed=4))
    imaging = engine.Imaging(imsize=256, cell_arcsec=1.5)
    with Casa(tmp_path / "casa.log") as casa:
        engine.clean(
            casa,
            path,
            tmp_path / "first",
            imaging,
            field="0",
            spw="",
            datacolumn="data",
            mask=None,
            nsigma=3.0,
        )
        like = read_image(tmp_path / "first.image")
        plane = np.zeros_like(like.data)
        plane[180, 60] = 2.5  # 100" west and 78" north
        write_like(tmp_path / "truth.model", plane, like, unit="Jy/pixel")
        info = ms.read_info(path)
        with ms.opened(path, write=True) as main:
            ms.add_column(main, "MODEL_DATA")
            ms.add_column(main, "CORRECTED_DATA")
        models = modelcol.read_models([tmp_path / "truth.model"])
        modelcol.predict_model(info, models, rows=np.arange(info.n_rows))
        with ms.opened(path, write=True) as main:
            main.putcol("CORRECTED_DATA", main.getcol("MODEL_DATA"))
        engine.clean(
            casa,
            path,
            tmp_path / "back",
            imaging,
            field="0",
            spw="",
            datacolumn="corrected",
            mask=None,
            nsigma=3.0,
        )
    back = read_image(tmp_path / "back.image").data
    from peelkit.core.measure import refined_peak

    x, y, peak = refined_peak(back)
    assert (x, y) == (pytest.approx(60, abs=0.02), pytest.approx(180, abs=0.02))
    assert peak == pytest.approx(2.5, rel=0.01)
