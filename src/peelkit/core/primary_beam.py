"""Primary beams: how much of the power a dish receives from off its pointing direction.

They are those that tclean makes mosaics with (CASA's PBMath), even where better ones are known: the
model of a mosaic is what fits the data through the imager's beams. Largest differences to tclean's own
``.pb`` of one field at 3 GHz, out to a power of 0.2, in per cent of the peak: EVLA 0.3, VLA, ALMA and
ngVLA 0.03, dishes known by their diameter only 0.05 (tests/integration/test_predict_tclean.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.survey import C_M_S

# Aperture and blockage [m], and the radius beyond which the beam is zero [deg GHz].
ALMA_12M = (10.7, 0.75, 1.784)
ALMA_7M = (6.25, 0.75, 3.568)
VLA_BANDS = (25.0, 2.36, 0.8564)
VLA_ELSE = (24.5, 0.0, 0.8564)
APERTURES = {"NGVLA": (18.0, 0.0, 1.5), "IRAMPDB": (15.0, 1.0, 1.784)}

# Bands for which CASA has VLA_BANDS [GHz].
VLA_BANDS_GHZ = ((0.0, 0.1), (0.2, 0.4), (1, 2), (4, 7), (7, 11), (11, 19), (19, 35), (35, 55))

# Dishes of which only the diameter is known: power at equal steps out to 51.6 arcmin at 1 GHz for 25 m.
BY_DIAMETER = (
    1.0, 0.997634, 0.972516, 0.913722, 0.837871, 0.750356, 0.651549, 0.549903, 0.449083, 0.352819,
    0.266025, 0.190533, 0.128047, 0.0794855, 0.0438381, 0.0201386, 0.0065117, 0.000690041, 8.87288e-05,
)  # fmt: skip
BY_DIAMETER_ARCMIN_GHZ_M = 1.1998662 * 43 * 25
DIAMETERS_M = {"GMRT": 45.0, "OVRO": 10.4}

# EVLA: Perley (2016), EVLA Memo 195, of which every fourth frequency or so is here, and 10^3 c_1, 10^7
# c_2, 10^10 c_3, 10^14 c_4. CASA takes the nearest frequency; here the coefficients are interpolated.
EVLA_MHZ_COEFFICIENTS = np.array([
    (232, -1.137, 5.19, -1.04, 0.71), (281, -1.106, 5.11, -1.10, 0.91),
    (312, -1.030, 4.44, -0.89, 0.68), (357, -0.996, 4.23, -0.79, 0.51),
    (392, -1.067, 5.13, -1.12, 0.90), (421, -1.154, 5.85, -1.33, 1.08),
    (470, -1.010, 4.85, -1.07, 0.86),
    (1040, -1.529, 8.69, -1.88, 0), (1104, -1.486, 8.15, -1.68, 0), (1168, -1.439, 7.53, -1.45, 0),
    (1232, -1.450, 7.87, -1.63, 0), (1360, -1.449, 8.02, -1.74, 0), (1488, -1.455, 7.92, -1.63, 0),
    (1552, -1.435, 7.54, -1.49, 0), (1680, -1.443, 7.74, -1.57, 0), (1808, -1.488, 8.38, -1.83, 0),
    (1936, -1.459, 7.93, -1.62, 0), (2000, -1.508, 8.31, -1.68, 0),
    (2052, -1.429, 7.52, -1.47, 0), (2180, -1.389, 7.06, -1.33, 0), (2436, -1.377, 6.90, -1.27, 0),
    (2692, -1.402, 7.23, -1.40, 0), (2948, -1.433, 7.46, -1.42, 0), (3052, -1.467, 8.05, -1.70, 0),
    (3180, -1.497, 8.38, -1.80, 0), (3436, -1.521, 8.63, -1.88, 0), (3692, -1.521, 8.51, -1.79, 0),
    (3948, -1.516, 8.30, -1.66, 0),
    (4052, -1.406, 7.41, -1.48, 0), (4308, -1.380, 7.08, -1.37, 0), (4564, -1.365, 6.92, -1.31, 0),
    (4820, -1.371, 7.06, -1.40, 0), (5180, -1.353, 6.74, -1.25, 0), (5564, -1.376, 6.99, -1.31, 0),
    (5948, -1.428, 7.57, -1.57, 0), (6308, -1.463, 7.94, -1.62, 0), (6692, -1.455, 7.76, -1.53, 0),
    (7052, -1.470, 8.01, -1.64, 0), (7436, -1.498, 8.22, -1.66, 0), (7948, -1.448, 7.69, -1.51, 0),
    (8052, -1.403, 7.21, -1.37, 0), (8564, -1.391, 6.95, -1.25, 0), (9052, -1.403, 7.20, -1.36, 0),
    (9564, -1.416, 7.45, -1.47, 0), (10180, -1.409, 7.25, -1.36, 0),
    (10564, -1.413, 7.37, -1.43, 0), (11180, -1.394, 6.99, -1.24, 0),
    (11948, -1.399, 6.97, -1.22, 0),
    (12052, -1.399, 7.17, -1.34, 0), (12948, -1.397, 7.18, -1.36, 0),
    (13820, -1.376, 6.88, -1.24, 0), (14692, -1.384, 7.03, -1.31, 0),
    (15564, -1.397, 7.28, -1.43, 0), (16564, -1.408, 7.32, -1.41, 0),
    (17180, -1.438, 7.84, -1.64, 0), (17948, -1.452, 7.99, -1.69, 0),
    (19052, -1.419, 7.56, -1.53, 0), (19948, -1.434, 7.81, -1.63, 0),
    (21436, -1.439, 7.89, -1.66, 0), (23052, -1.401, 7.21, -1.37, 0),
    (23948, -1.402, 7.21, -1.36, 0), (25948, -1.422, 7.46, -1.45, 0),
    (28052, -1.444, 7.61, -1.44, 0), (28948, -1.460, 7.98, -1.64, 0),
    (31052, -1.415, 7.44, -1.44, 0), (31948, -1.413, 7.37, -1.42, 0),
    (34436, -1.420, 7.36, -1.39, 0), (38048, -1.410, 7.38, -1.43, 0),
    (41052, -1.453, 7.69, -1.47, 0), (41948, -1.434, 7.47, -1.40, 0),
    (43052, -1.428, 7.40, -1.38, 0), (43948, -1.452, 7.68, -1.47, 0),
])  # fmt: skip


def power_beam(
    telescope: str, diameter_m: float, freq_hz: float, offset_rad: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Power that a dish receives from off its pointing direction, 1 on axis.

    Zero beyond about the main lobe, where CASA ends it too: sidelobes are neither round nor stable.

    Parameters
    ----------
    telescope : str
        CASA's name for the observatory.
    diameter_m : float
        Of the dish [m]; tells ALMA's 12 m dishes from those of 7 m, and makes the beam of telescopes
        that CASA has none for (`is_known`): an unblocked aperture, uniformly lit.
    freq_hz : float
        Frequency [Hz].
    offset_rad : ndarray
        Angles off axis [rad].

    Returns
    -------
    ndarray of float
        Between 0 and 1.
    """
    name = telescope.upper()
    offset = np.asarray(offset_rad, dtype=np.float64)
    scaled = offset * freq_hz / 1e9
    if name == "EVLA":
        table = EVLA_MHZ_COEFFICIENTS
        units = (1e-3, 1e-7, 1e-10, 1e-14)
        coefficients = [
            unit * float(np.interp(freq_hz / 1e6, table[:, 0], column))
            for unit, column in zip(units, table[:, 1:].T, strict=True)
        ]
        return _polynomial(coefficients, np.degrees(scaled) * 60)
    if name == "VLA":
        in_band = any(low < freq_hz / 1e9 < high for low, high in VLA_BANDS_GHZ)
        aperture = VLA_BANDS if in_band else VLA_ELSE
    elif name in ("ALMA", "ACA", "ATF"):
        aperture = ALMA_7M if diameter_m < 9 or name == "ACA" else ALMA_12M
    elif name in APERTURES:
        aperture = APERTURES[name]
    else:
        reach = BY_DIAMETER_ARCMIN_GHZ_M / DIAMETERS_M.get(name, diameter_m)
        # Here, because it takes half a second to import, and hardly ever is needed.
        from scipy.interpolate import CubicSpline

        curve = CubicSpline(np.linspace(0, reach, len(BY_DIAMETER)), BY_DIAMETER)
        radius = np.degrees(scaled) * 60
        return np.where(radius <= reach, np.clip(curve(radius), 0.0, 1.0), 0.0)
    dish, blocked, limit = aperture
    return np.where(np.degrees(scaled) <= limit, airy_power(dish, blocked, freq_hz, offset), 0.0)


def is_known(telescope: str) -> bool:
    """Tell whether there is a beam for this telescope, or only its dishes' diameter to go by."""
    return telescope.upper() in {"VLA", "EVLA", "ALMA", "ACA", "ATF", *APERTURES}


def _polynomial(coefficients: Sequence[float], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Even polynomial of the radius [arcmin GHz], to its first zero or minimum."""
    series = np.polynomial.Polynomial([1.0, *coefficients])
    ends = np.concatenate([series.roots(), series.deriv().roots()])
    ends = ends[(np.abs(ends.imag) < 1e-9) & (ends.real > 0)].real
    squared = radius**2
    inside = squared < (ends.min() if ends.size else np.inf)
    return np.where(inside, series(np.where(inside, squared, 0.0)), 0.0)


def airy_power(
    dish_m: float, blocked_m: float, freq_hz: float, offset_rad: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Power beam of a round, uniformly lit aperture with a blockage in its middle, as CASA has it.

    ``|(A(x) - q^2 A(x / q)) / (1 - q^2)|^2`` with ``A(x) = 2 J1(x) / x``, ``x = pi D f / c offset`` and q
    the ratio of the diameters. A blocked aperture really has ``A(q x)`` there, which is up to 1.1 % of
    the peak less for ALMA and 2 % for the VLA.
    """
    x = np.pi * dish_m * freq_hz / C_M_S * np.asarray(offset_rad, dtype=np.float64)
    if blocked_m == 0:
        return np.asarray(_jinc(x) ** 2)
    ratio = blocked_m / dish_m
    return np.asarray(((_jinc(x) - ratio**2 * _jinc(x / ratio)) / (1 - ratio**2)) ** 2)


def _jinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import j1

    safe = np.where(np.abs(x) < 1e-6, 1.0, x)
    return np.where(np.abs(x) < 1e-6, 1.0, 2 * j1(safe) / safe)


@dataclass(frozen=True)
class Beam:
    """The primary beam of an array: telescope, and diameter of its dishes [m]."""

    telescope: str
    diameter_m: float

    @classmethod
    def of(cls, info: ms.MsInfo) -> Beam:
        """Beam of the array of an MS.

        Raises
        ------
        DataError
            If its dishes have different sizes, or an unknown one.
        """
        sizes = sorted({round(antenna.diameter_m, 1) for antenna in info.antennas})
        if not sizes or sizes[0] <= 0:
            raise DataError(f"{info.path}: the diameter of its dishes is not known; fill ANTENNA.")
        if sizes[-1] > 1.05 * sizes[0]:
            raise DataError(
                f"{info.path}: dishes of {sizes[0]:g} to {sizes[-1]:g} m, whose beams differ with the "
                "baseline; use --predictor tclean, or split it."
            )
        return cls(info.telescope, sizes[0])

    @property
    def is_known(self) -> bool:
        """There is a beam for this telescope, and not only its dishes' diameter."""
        return is_known(self.telescope)

    def power(self, freq_hz: float, offset_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Power received from angles off axis [rad]; see `power_beam`."""
        return power_beam(self.telescope, self.diameter_m, freq_hz, offset_rad)
