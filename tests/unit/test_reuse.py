"""Which images may share a PSF, and what of a model is taken over."""

from pathlib import Path

import numpy as np
import pytest
from casacore.images import image as CasaImage  # noqa: N812
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit import memory
from peelkit.core import restart, reuse
from peelkit.engines.casa import Casa, Imaging
from peelkit.io import ms


@pytest.fixture
def observed(tmp_path: Path) -> Path:
    path = tmp_path / "x.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_scan=2, n_time=2, n_chan=(4, 2), n_field=2))
    return path


def mark(path: Path) -> str:
    info = ms.read_info(path)
    return reuse.mark(info, np.arange(info.n_rows))


def change(path: Path, column: str) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        cell = main.getcell(column, 3)
        main.putcell(column, 3, ~cell if column.startswith("FLAG") else cell * 2)


def test_of_a_run_the_data_count_too(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=4, n_scan=1, n_time=2))
    seen = set()
    for name in ("DATA", "FLAG", "WEIGHT", "SIGMA", "MODEL"):
        info = ms.read_info(path)
        seen.add(reuse.mark(info, ms.every_row(info), ("DATA", "SIGMA", "SIGMA_SPECTRUM")))
        if name == "MODEL":
            continue
        with ms.opened(path, write=True) as main:
            old = main.getcell(name, 3)
            main.putcell(name, 3, ~old if name == "FLAG" else 2 * old)
    assert len(seen) == 5
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "MODEL_DATA")
        main.putcol("MODEL_DATA", main.getcol("DATA"))
    info = ms.read_info(path)
    assert reuse.mark(info, ms.every_row(info), ("DATA", "SIGMA", "SIGMA_SPECTRUM")) in seen


def test_visibilities_do_not_change_the_mark(observed: Path) -> None:
    before = mark(observed)
    change(observed, "DATA")
    assert mark(observed) == before


@pytest.mark.parametrize("column", ["FLAG", "WEIGHT", "UVW", "FLAG_ROW"])
def test_flags_weights_and_uvw_change_the_mark(observed: Path, column: str) -> None:
    before = mark(observed)
    change(observed, column)
    assert mark(observed) != before


def test_the_mark_does_not_depend_on_how_rows_are_read(
    observed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mark(observed)
    monkeypatch.setattr(memory, "MOST_CHUNK_BYTES", 1000)
    assert mark(observed) == before


def test_a_copy_of_the_rows_has_their_mark_and_other_rows_have_another(
    observed: Path, tmp_path: Path
) -> None:
    info = ms.read_info(observed)
    with ms.opened(observed) as main:
        rows = np.flatnonzero(main.getcol("FIELD_ID") == 1)
    ms.copy_rows(observed, tmp_path / "copy.ms", rows, data_column="DATA")
    assert mark(tmp_path / "copy.ms") == reuse.mark(info, rows) != mark(observed)


def make_image(path: Path, data: np.ndarray) -> None:
    CasaImage(str(path), values=data[None, None])


def test_faint_components_are_left_out_and_signs_do_not_matter(tmp_path: Path) -> None:
    plane = np.zeros((8, 8), dtype=np.float32)
    plane[2, 3], plane[5, 5], plane[6, 1] = 3.0, 0.2, -1.0
    make_image(tmp_path / "one.model", plane)
    made = Imaging(imsize=8, cell_arcsec=1.0)
    reuse.take_model(Casa(tmp_path / "casa.log"), tmp_path / "one", tmp_path / "two", made)
    restart.drop_doubtful(tmp_path / "two", made, 0.5)
    found = CasaImage(str(tmp_path / "two.model")).getdata().squeeze()
    wanted = plane.copy()
    wanted[5, 5] = 0
    np.testing.assert_array_equal(found, wanted)
    # The image that it came from is as it was.
    np.testing.assert_array_equal(CasaImage(str(tmp_path / "one.model")).getdata().squeeze(), plane)


def test_a_psf_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    made = Imaging(imsize=8, cell_arcsec=1.0)
    make_image(tmp_path / "one.psf", np.ones((8, 8), dtype=np.float32))
    casa = Casa(tmp_path / "casa.log")
    assert not reuse.take_psf(casa, tmp_path / "one", tmp_path / "two", made)
    assert not (tmp_path / "two.psf").exists()
    make_image(tmp_path / "one.sumwt", np.ones((8, 8), dtype=np.float32))
    assert reuse.take_psf(casa, tmp_path / "one", tmp_path / "two", made)
    assert (tmp_path / "two.psf").is_dir() and not (tmp_path / "two.psf").is_symlink()
