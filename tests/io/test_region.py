"""Region files and their pixels, against places that are known and against CASA."""

import math

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import FK4, FK5, ICRS, Galactic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from regions import (
    CircleSkyRegion,
    EllipseSkyRegion,
    PolygonSkyRegion,
    RectangleSkyRegion,
    Regions,
)

from makeimage import make_image
from peelkit.errors import DataError
from peelkit.io.image import read_image
from peelkit.io.region import LabelledRegion, read_regions, region_mask, write_regions

# 3C273 as the VLA saw it in 1981: B1950_VLA, as CASA writes it (EQUINOX 1979.9).
CENTRE_B1950 = (186.63885, 2.32437)
CELL = 0.1
SIZE = 512
VLA = FK4(equinox="B1950", obstime=Time(1979.9, format="byear"))


def save_image(path, *, frame="B1950_VLA", centre=CENTRE_B1950):
    header = fits.Header()
    names = ("GLON", "GLAT") if frame == "GALACTIC" else ("RA--", "DEC-")
    for axis in (1, 2):
        header[f"CTYPE{axis}"] = f"{names[axis - 1]}-SIN"
        header[f"CRVAL{axis}"] = centre[axis - 1]
        header[f"CRPIX{axis}"] = SIZE / 2 + 1
        header[f"CDELT{axis}"] = (-CELL if axis == 1 else CELL) / 3600
        header[f"CUNIT{axis}"] = "deg"
    if frame == "B1950_VLA":
        header["RADESYS"], header["EQUINOX"] = "FK4", 1979.9
    elif frame == "ICRS":
        header["RADESYS"] = "ICRS"
    header["BUNIT"] = "Jy/beam"
    header["BMAJ"] = header["BMIN"] = 3 / 3600
    fits.writeto(path, np.zeros((SIZE, SIZE), np.float32), header)
    return read_image(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return save_image(tmp_path_factory.mktemp("region") / "b1950.fits")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """North up, ICRS, at declination 60: where cos(dec) matters."""
    path = tmp_path_factory.mktemp("region") / "icrs.fits"
    return save_image(path, frame="ICRS", centre=(150.0, 60.0))


def save(tmp_path, text, name="r.crtf"):
    path = tmp_path / name
    path.write_text(text)
    return path


def moments(mask):
    """Number of pixels, their middle (x, y), and second moments (xx, yy, xy)."""
    y, x = np.nonzero(mask)
    covariance = np.cov(x, y)
    return [len(x), x.mean(), y.mean(), covariance[0, 0], covariance[1, 1], covariance[0, 1]]


def mask_of(text, image, tmp_path, name="r.crtf"):
    regions = read_regions(save(tmp_path, text, name), image)
    assert len(regions) == 1
    return region_mask(regions[0], image)


def place(image, x=300, y=200):
    sky = image.sky(x, y)
    return SkyCoord(sky.ra, sky.dec, frame="icrs")


# --- pixels against CASA ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # What CASA 6.7 masks on the 3C273 image, whose pixels these are: pixels, x, y, xx, yy, xy.
        ("circle [[{p}], 3arcsec]", [2827, 300.08, 200.25, 224.6, 225.5, 0.0]),
        (
            "ellipse [[{p}], [6arcsec, 3arcsec], 30deg]",
            [5651, 300.07, 200.24, 393.4, 731.3, -292.2],
        ),
        ("ellipse [[{p}], [3arcsec, 6arcsec], 30deg]", [5652, 300.08, 200.20, 731.9, 393.1, 292.0]),
        ("rotbox [[{p}], [10arcsec, 4arcsec], 30deg]", [3998, 300.08, 200.25, 657.6, 308.3, 302.9]),
        ("centerbox [[{p}], [10arcsec, 4arcsec]]", [4000, 300.5, 200.5, 833.5, 133.3, 0.0]),
        ("box [[{p}], [{q}]]", [3000, 325.5, 230.5, 208.3, 300.0, 0.0]),
        ("poly [[{p}], [{q}], [{r}]]", [1901, 323.48, 253.60, 105.7, 423.8, 106.1]),
    ],
)
def test_crtf_shapes_mask_what_casa_masks(image, tmp_path, shape, expected):
    names = {"p": (300, 200), "q": (350, 260), "r": (320, 300)}
    at = {name: place(image, *pixel) for name, pixel in names.items()}
    words = {name: f"{c.ra.deg:.9f}deg, {c.dec.deg:.9f}deg" for name, c in at.items()}
    found = moments(mask_of(shape.format(**words) + " coord=ICRS\n", image, tmp_path))
    # CASA rounds boxes to pixels and keeps them parallel to them; 0.6 pixels, 1 % in area, 4 % in
    # the moments tell any other convention for axes and angles apart.
    assert found[0] == pytest.approx(expected[0], rel=0.01)
    assert found[1:3] == pytest.approx(expected[1:3], abs=0.6)
    assert found[3:] == pytest.approx(expected[3:], rel=0.045, abs=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("circle [[300pix, 200pix], 30pix]", [2821, 300, 200, 224.6, 224.6, 0]),
        ("box [[290pix, 190pix], [310pix, 220pix]]", [651, 300, 205, 36.7, 80.1, 0]),
        ("centerbox [[300pix, 200pix], [21pix, 11pix]]", [231, 300, 200, 36.8, 10.0, 0]),
        (
            "ellipse [[300pix, 200pix], [60pix, 30pix], 30deg]",
            [5655, 300, 200, 393.3, 731.1, -291.5],
        ),
    ],
)
def test_crtf_pixel_regions_mask_what_casa_masks(image, tmp_path, text, expected):
    found = moments(mask_of(text, image, tmp_path))
    assert found == pytest.approx(expected, rel=0.005, abs=0.5)


# --- positions ----------------------------------------------------------------------------------


def spellings(image):
    at = place(image)
    ra_hours = at.ra.to_string(unit="hour", sep=":", precision=5, pad=True)
    fk5, galactic = at.transform_to(FK5()), at.transform_to(Galactic())
    vla = at.transform_to(FK4(equinox="B1950", obstime=Time(1979.9, format="byear")))
    dec = at.dec
    return {
        "dms with dots": (f"{ra_hours}, {dec.to_string(sep='.', precision=4, pad=True)}", "ICRS"),
        "dms with colons": (
            f"{ra_hours}, +{dec.to_string(sep=':', precision=4, pad=True)}",
            "ICRS",
        ),
        "hms": (
            f"{at.ra.to_string(unit='hour', precision=5)}, {dec.to_string(precision=4)}",
            "icrs",
        ),
        "radians": (f"{at.ra.rad:.10f}rad, {dec.rad:.10f}rad", "ICRS"),
        "bare degrees": (f"{at.ra.deg:.9f}, {dec.deg:.9f}", "ICRS"),
        "J2000": (f"{fk5.ra.deg:.9f}deg, {fk5.dec.deg:.9f}deg", "J2000"),
        "galactic": (f"{galactic.l.deg:.9f}deg, {galactic.b.deg:.9f}deg", "GALACTIC"),
        "B1950_VLA": (f"{vla.ra.deg:.9f}deg, {vla.dec.deg:.9f}deg", "B1950_VLA"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "dms with dots",
        "dms with colons",
        "hms",
        "radians",
        "bare degrees",
        "J2000",
        "galactic",
        "B1950_VLA",
    ],
)
def test_every_spelling_of_a_position_lands_on_its_pixel(image, tmp_path, name):
    position, coord = spellings(image)[name]
    found = moments(mask_of(f"circle [[{position}], 2arcsec] coord={coord}", image, tmp_path))
    assert found[1:3] == pytest.approx([300, 200], abs=0.1)  # 0.01 arcsec


@pytest.mark.parametrize("frame", ["icrs", "fk5", "galactic"])
def test_ds9_positions_land_on_their_pixel_in_a_b1950_image(image, tmp_path, frame):
    at = place(image)
    sky = at.galactic if frame == "galactic" else at.transform_to(frame)
    lon, lat = sky.spherical.lon.deg, sky.spherical.lat.deg
    found = moments(
        mask_of(f'{frame}\ncircle({lon:.9f},{lat:.9f},2") # text={{x}}\n', image, tmp_path, "r.reg")
    )
    assert found[1:3] == pytest.approx([300, 200], abs=0.1)


def test_ds9_sexagesimal_is_hours_and_degrees(plain, tmp_path):
    text = 'fk5\ncircle(10:00:00.0,+60:00:00.0,2")\n'
    assert moments(mask_of(text, plain, tmp_path, "r.reg"))[1:3] == pytest.approx(
        [256, 256], abs=0.3
    )


def test_ds9_pixels_count_from_one(plain, tmp_path):
    found = moments(mask_of("image\ncircle(101,51,10)\n", plain, tmp_path, "r.reg"))
    assert found[1:3] == pytest.approx([100, 50])


def test_ds9_ellipse_and_box_have_half_and_full_axes(plain, tmp_path):
    ellipse = mask_of('icrs\nellipse(150,60,4",2",20)\n', plain, tmp_path, "e.reg")
    assert ellipse.sum() == pytest.approx(math.pi * 40 * 20, rel=0.01)
    box = mask_of('icrs\nbox(150,60,8",4",0)\n', plain, tmp_path, "b.reg")
    assert box.sum() == pytest.approx(80 * 40, rel=0.03)
    _, _, _, xx, yy, _ = moments(box)
    assert xx > 3 * yy  # width along x


def test_a_crtf_box_is_as_wide_as_on_the_sky(plain, tmp_path):
    # 10 arcsec in right ascension at declination 60 are 5 on the sky.
    ra, dec = 10 / 3600, 4 / 3600
    one, two = (f"[{150 + s * ra / 2}deg, {60 + s * dec / 2}deg]" for s in (-1, 1))
    text = f"box [{one}, {two}] coord=ICRS"
    assert mask_of(text, plain, tmp_path).sum() == pytest.approx(50 * 40, rel=0.05)


def test_a_region_over_the_edge_keeps_what_is_inside_and_a_small_one_its_pixel(plain, tmp_path):
    assert mask_of("circle [[0pix, 0pix], 10pix]", plain, tmp_path).sum() == pytest.approx(
        math.pi * 100 / 4, rel=0.15
    )
    tiny = mask_of("circle [[100.4pix, 50.4pix], 0.1pix]", plain, tmp_path)
    assert np.argwhere(tiny).tolist() == [[50, 100]]


# --- files --------------------------------------------------------------------------------------


def test_labels_survive_in_both_formats(tmp_path):
    crtf = (
        "#CRTFv0 CASA Region Text Format version 0\n"
        "global coord=J2000, color=#2EE6D6, linewidth=1\n"
        "# a comment\n\n"
        "circle[[150.0deg, 60.0deg], 3arcsec], color=red, label='3C 286, core', labelpos=top\n"
        'ellipse [[10h00m00s, +60d00m10s], [3arcsec, 2arcsec], 30deg,] coord=ICRS, label="B"\n'
        "poly [[150deg,60deg],[150.01deg,60deg],[150deg,60.01deg],]\n"
    )
    found = read_regions(save(tmp_path, crtf), make_image())
    assert [region.label for region in found] == ["3C 286, core", "B", ""]
    assert [region.number for region in found] == [1, 2, 3]
    ds9 = (
        "# Region file format: DS9 version 4.1\n"
        'global color=green dashlist=8 3 width=1 font="helvetica 10 normal roman"\n'
        "fk5\n"
        'circle(150.0,60.0,3") # color=red text={3C 286; core}\n'
        'ellipse(10:00:00,+60:00:10,3",2",30) # text={B}\n'
        "polygon(150,60,150.01,60,150,60.01,)\n"
    )
    found = read_regions(save(tmp_path, ds9, "r.reg"), make_image())
    assert [region.label for region in found] == ["3C 286; core", "B", ""]


def test_a_crtf_file_without_header_keeps_its_first_region(tmp_path):
    text = "".join(f"circle [[{ra}deg, 60deg], 3arcsec] coord=ICRS\n" for ra in (150, 151))
    for name in ("r.crtf", "r.txt"):
        assert len(read_regions(save(tmp_path, text, name), make_image())) == 2


SKY = SkyCoord(150.001, 60.002, unit="deg")
FOUR = [
    LabelledRegion(CircleSkyRegion(SKY, 4 * u.arcsec), "BRIGHT_1"),
    LabelledRegion(
        EllipseSkyRegion(SKY, width=4 * u.arcsec, height=9 * u.arcsec, angle=35 * u.deg), "BRIGHT_2"
    ),
    LabelledRegion(
        RectangleSkyRegion(SKY, width=12 * u.arcsec, height=5 * u.arcsec, angle=-20 * u.deg), "a b"
    ),
    LabelledRegion(
        PolygonSkyRegion(SkyCoord([150.0, 150.005, 150.001], [60.0, 60.001, 60.004], unit="deg")),
        "",
    ),
]


@pytest.mark.parametrize("name", ["out.crtf", "out.reg"])
def test_written_regions_are_read_back_by_us_and_by_the_regions_package(plain, tmp_path, name):
    path = tmp_path / name
    write_regions(path, FOUR)
    ours = read_regions(path, plain)
    theirs = Regions.read(path, format="crtf" if name.endswith("crtf") else "ds9")
    assert [region.label for region in ours] == [region.label for region in FOUR]
    assert len(theirs) == len(FOUR)
    for before, after, other in zip(FOUR, ours, theirs, strict=True):
        wanted = region_mask(before, plain)
        assert np.array_equal(region_mask(after, plain), wanted)
        # That package's own path to pixels; a few on the rim may fall otherwise.
        their_mask = other.to_pixel(plain.wcs).to_mask().to_image(wanted.shape) > 0.5
        assert np.sum(their_mask != wanted) < 0.03 * wanted.sum() + 3


def test_the_crtf_written_is_what_casa_reads(tmp_path):
    path = tmp_path / "out.crtf"
    write_regions(path, FOUR[:2])
    assert path.read_text().splitlines() == [
        "#CRTFv0 CASA Region Text Format version 0",
        "circle [[150.0010000000deg, 60.0020000000deg], 4arcsec] coord=ICRS, label='BRIGHT_1'",
        "ellipse [[150.0010000000deg, 60.0020000000deg], [4.5arcsec, 2arcsec], 35.000000deg] "
        "coord=ICRS, label='BRIGHT_2'",
    ]


@pytest.mark.parametrize("name", ["out.crtf", "out.reg"])
def test_regions_in_other_frames_are_written_in_icrs_at_the_same_pixels(plain, tmp_path, name):
    at = SKY.transform_to(Galactic())
    region = LabelledRegion(
        EllipseSkyRegion(at, width=4 * u.arcsec, height=10 * u.arcsec, angle=35 * u.deg), "G"
    )
    write_regions(tmp_path / name, [region])
    after = region_mask(read_regions(tmp_path / name, plain)[0], plain)
    before = region_mask(region, plain)
    assert np.sum(after != before) <= 0.005 * before.sum()
    assert isinstance(after, np.ndarray)


# --- refusals -----------------------------------------------------------------------------------

C = "circle [[150deg, 60deg], 3arcsec]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no region in this file"),
        ("#CRTFv0\n# nothing\n", "no region in this file"),
        ("point [[150deg, 60deg]] coord=ICRS", "no region in this file"),
        ("circle [[150deg, 60deg], 1e400deg] coord=ICRS", "a number that is not finite"),
        (f"{C} coord=MARS", "frame 'MARS'; use one of"),
        (f"-{C} coord=ICRS", "an exclusion"),
        (
            "circle [[150deg, 60deg], 3] coord=ICRS",
            "'3' cannot be read; give a length with its unit",
        ),
        (
            "circle [[150deg, 60deg], -3arcsec] coord=ICRS, label='neg'",
            r"\(neg\): '-3arcsec' cannot be read; give a length above",
        ),
        ("circle [[150deg, 160deg], 3arcsec] coord=ICRS", "cannot be read"),
        ("circle [[150deg, 60deg], 3arcsec coord=ICRS", "line 1 is no CRTF region"),
        ("circle [[150deg], 3arcsec] coord=ICRS", "two values"),
        ("circle [[10:00, +60:00], 3arcsec] coord=ICRS", "cannot be read; write 12h29m06.7s"),
        ("circle [[150pix, 60pix], 3arcsec] coord=ICRS", "both in angles, or both in pix"),
        (
            "annulus [[150deg, 60deg], [1arcsec, 3arcsec]] coord=ICRS",
            "annulus is not among the shapes",
        ),
        ("poly [[150deg, 60deg], [150.1deg, 60deg]] coord=ICRS", "polygon of 2 corners"),
        (
            f"{C} coord=ICRS, label='A'\n{C} coord=ICRS, label='B'",
            r"region 2 \(B\): the same as region 1 \(A\)",
        ),
        ("hello", "line 1 is no CRTF region"),
    ],
)
def test_bad_crtf_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_regions(save(tmp_path, text), make_image())
    assert "r.crtf" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('circle(150,60,3")', "coordinate frame was not found"),
        ("physical\ncircle(150,60,3)", "physical"),
        ("fk5\npoint(150,60)", "no region in this file"),
        ("fk5\nline(150,60,151,60)", "no region in this file"),
        ('fk5\nannulus(150,60,1",2")', "circleannulus is no area"),
        ('fk5\n-circle(150,60,3")', "an exclusion"),
        ('fk5\ncircle(150,60,3")\ncircle(150,60,3")', "region 2: the same as region 1"),
        ("fk5\ncircle(150,60,abc)", "not a DS9 or CRTF region file"),
        ("fk5\npolygon(150,60,151,61)", "polygon of 2 corners"),
        ("", "no region in this file"),
    ],
)
def test_bad_ds9_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_regions(save(tmp_path, text, "r.reg"), make_image())
    assert "r.reg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such region file"):
        read_regions(tmp_path / "none.crtf", make_image())
    with pytest.raises(DataError, match="no region file"):
        read_regions(tmp_path, make_image())
    (tmp_path / "x.reg").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not text"):
        read_regions(tmp_path / "x.reg", make_image())


@pytest.mark.parametrize("ra", [150.5, 330.0])
def test_a_region_outside_the_image_is_refused_by_name(plain, tmp_path, ra):
    # 330 degrees is behind the tangent point: the projection would fold it onto the image.
    dec = 60 if ra < 180 else -60
    path = save(tmp_path, f"circle [[{ra}deg, {dec}deg], 3arcsec] coord=ICRS, label='far'")
    with pytest.raises(DataError, match=r"r\.crtf: region 1 \(far\): .*outside .*icrs\.fits"):
        region_mask(read_regions(path, plain)[0], plain)


def test_regions_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.crtf"
    path.write_text("mine")
    with pytest.raises(DataError, match="exists"):
        write_regions(path, FOUR)
    assert path.read_text() == "mine"
    with pytest.raises(DataError, match="quotes and braces"):
        write_regions(path, [LabelledRegion(FOUR[0].shape, "it's")], overwrite=True)
    assert path.read_text() == "mine"
    write_regions(path, FOUR, overwrite=True)
    assert len(read_regions(path, make_image())) == 4
    with pytest.raises(DataError, match=r"\.crtf for CASA"):
        write_regions(tmp_path / "out.txt", FOUR)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out.crtf"]


# --- frames of the image ------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [FK5(), ICRS(), Galactic(), FK4(), VLA])
def test_crtf_without_coord_is_in_the_frame_of_the_image(tmp_path, frame):
    # CASA 6.7: imstat puts a circle at CRVAL, in no frame, onto CRPIX of images in all of these. With coord=J2000
    # it is thousands of pixels away in a B1950 image.
    image = make_image(size=600, centre=(186.6, 2.3), frame=frame)
    text = "#CRTFv0\ncircle[[186.6deg, 2.3deg], 10arcsec]\n"
    found = moments(mask_of(text, image, tmp_path))
    assert found[0] == pytest.approx(math.pi * 10**2, rel=0.04)
    assert found[1:3] == pytest.approx([300, 300], abs=0.1)


# --- pixels -------------------------------------------------------------------------------------


def on_the_sky(image, inside):
    """Pixels whose offset (east, north) [arcsec] from the middle of the image is ``inside``."""
    ny, nx = image.data.shape
    centre = image.sky(nx / 2, ny / 2)
    rows, columns = np.mgrid[0:ny, 0:nx]
    there = image.sky(columns.ravel(), rows.ravel())
    east, north = (offset.arcsec.reshape(ny, nx) for offset in centre.spherical_offsets_to(there))
    return inside(east, north)


def turned(east, north, deg):
    """Along a position angle, and across it."""
    turn = math.radians(deg)
    return (
        east * math.sin(turn) + north * math.cos(turn),
        east * math.cos(turn) - north * math.sin(turn),
    )


@pytest.mark.parametrize("cells", [(1.0, 1.0), (0.5, 2.0), (2.0, 0.7)])
@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("circle [[{c}], 40arcsec]", lambda e, n: np.hypot(e, n) < 40),
        (
            "ellipse [[{c}], [60arcsec, 20arcsec], 35deg]",
            lambda e, n: np.hypot(*np.divide(turned(e, n, 35), [[[60]], [[20]]])) < 1,
        ),
        (
            "rotbox [[{c}], [30arcsec, 90arcsec], 35deg]",
            lambda e, n: np.all(np.abs(turned(e, n, 35)) < [[[45]], [[15]]], axis=0),
        ),
        (
            "centerbox [[{c}], [30.6arcsec, 90.7arcsec]]",
            lambda e, n: (np.abs(e) < 15.3) & (np.abs(n) < 45.35),
        ),
    ],
)
def test_shapes_are_those_on_the_sky_whatever_the_pixels(tmp_path, cells, text, inside):
    image = make_image(size=300, cells=cells)
    # A little beside the middle of a pixel, so that none is on the rim.
    text = text.format(c="150deg, 60.00001deg") + " coord=ICRS"
    found = mask_of(text, image, tmp_path)
    truth = on_the_sky(image, lambda e, n: inside(e, n - 0.036))
    assert truth.sum() > 1000
    assert (found != truth).sum() <= 0.003 * truth.sum()


PIXELS = "image\ncircle(101,51,20) # text={A}\n"


def test_regions_in_pixels_say_where_they_fell(tmp_path, caplog):
    image = make_image(path="sky.fits")
    with caplog.at_level("WARNING"):
        read_regions(save(tmp_path, PIXELS, "b.reg"), image)
    at = image.sky(100, 50).to_string("hmsdms", precision=2)
    assert f"b.reg: in pixels, which are taken for those of sky.fits: A is at {at}" in caplog.text
    with caplog.at_level("WARNING"):
        caplog.clear()
        read_regions(save(tmp_path, C + " coord=ICRS"), image)
    assert not caplog.text


def test_regions_in_pixels_stay_where_they_are_on_the_sky_of_their_image(tmp_path):
    own, finer = make_image(size=200, path="own.fits"), make_image(size=200, cells=(0.5, 0.5))
    (region,) = read_regions(save(tmp_path, "image\ncircle(111,91,20)\n", "b.reg"), own)
    found = moments(region_mask(region, finer))
    # Ten pixels beside the middle are twenty of half the size.
    assert found[0] == pytest.approx(4 * math.pi * 20**2, rel=0.02)
    assert found[1:3] == pytest.approx([120, 80], abs=0.3)
    assert region_mask(region, own)[90, 110] and not region_mask(region, own)[80, 120 + 15]


def test_a_bare_number_of_ds9_needs_no_memory_and_is_refused(plain, tmp_path):
    # 60 degrees are 2e6 pixels: a mask of that circle would take 16 TB.
    path = save(tmp_path, "fk5\ncircle(10:00:00,+60:00:00,60) # text={A}\n", "r.reg")
    with pytest.raises(
        DataError, match=r"\(A\): 120 deg wide, where all of .* is 0.0142 deg; DS9 takes"
    ) as caught:
        region_mask(read_regions(path, plain)[0], plain)
    assert 'write 60" for arcsec' in str(caught.value)
    # The whole image may be meant.
    whole = save(tmp_path, f"box [[0pix, 0pix], [{SIZE - 1}pix, {SIZE - 1}pix]]")
    assert region_mask(read_regions(whole, plain)[0], plain).all()


def test_what_has_no_area_is_left_out_beside_what_has(plain, tmp_path, caplog):
    crtf = (
        "#CRTFv0\n"
        f"{C} coord=ICRS\n"
        "line [[150deg, 60deg], [150.1deg, 60deg]] coord=ICRS\n"
        "polyline [[150deg, 60deg], [150.1deg, 60deg], [150deg, 61deg]] coord=ICRS\n"
        "point [[150deg, 60deg]] coord=ICRS\n"
        "symbol [[150deg, 60deg], .] coord=ICRS\n"
    )
    ds9 = (
        'fk5\ncircle(150,60,3")\npoint(150,60) # point=x\nline(150,60,151,60)\npolyline(150,60,151,61,152,60)\n'
        'segment(150,60,151,61)\nvector(150,60,3",45)\nruler(150,60,151,61)\ncompass(150,60,15")\n'
        "text(150,60) # text={a}\n"
    )
    for text, name, left in ((crtf, "r.crtf", 4), (ds9, "r.reg", 8)):
        caplog.clear()
        with caplog.at_level("WARNING"):
            (region,) = read_regions(save(tmp_path, text, name), plain)
        assert region_mask(region, plain).sum() > 2000
        assert len([line for line in caplog.messages if line.endswith("left out.")]) == left
