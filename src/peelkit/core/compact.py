"""One compact source by formula: a point or Gaussian with its own spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from astropy.coordinates import ICRS
from numpy.typing import NDArray

from peelkit.core import fourier
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import field_basis, tangent_basis
from peelkit.io.ms import Field
from peelkit.io.survey import C_M_S

ARCSEC_RAD = math.radians(1 / 3600)

# Transform of a Gaussian of full width theta [rad] at a baseline of x wavelengths: exp(-K (theta x)^2).
GAUSSIAN_K = math.pi**2 / (4 * math.log(2))

CANNOT_TURN = "ICRS; use --shape clean with --predictor tclean"


@dataclass(frozen=True)
class Compact:
    """A point or Gaussian.

    Its position is the one that the data themselves have at the frequencies of their own frame, with no
    scaling to LSRK: only positions in tclean's images, which are about 1e-4 of the distance from the
    phase centre off, need that.

    Parameters
    ----------
    ra_deg, dec_deg : float
        ICRS.
    flux_jy : float
        At ``reference_hz``; as the data show it, or of the sky where a primary beam is given.
    reference_hz : float
        Where the spectrum is centred [Hz].
    spectrum : tuple of float
        ``ln S = ln flux + sum_k spectrum[k - 1] ln(f / f_ref)^k``; the first is the spectral index.
    major_arcsec, minor_arcsec, pa_deg : float
        Full widths at half maximum, position angle from north through east; 0 for a point.
    apparent : dict
        (field, spw) to the flux that is seen there [Jy], in place of flux, spectrum and primary beam.
    """

    ra_deg: float
    dec_deg: float
    flux_jy: float
    reference_hz: float
    spectrum: tuple[float, ...] = ()
    major_arcsec: float = 0.0
    minor_arcsec: float = 0.0
    pa_deg: float = 0.0
    apparent: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @property
    def unit(self) -> Compact:
        """The same source with 1 Jy everywhere."""
        return replace(self, flux_jy=1.0, spectrum=(), apparent={})

    @property
    def shape(self) -> str:
        """``point`` or ``gaussian``."""
        return "gaussian" if self.major_arcsec > 0 else "point"

    @property
    def basis(self) -> NDArray[np.float64]:
        """Unit vectors east, north and outwards at the source, one a row, ICRS."""
        return tangent_basis(math.radians(self.ra_deg), math.radians(self.dec_deg))

    def flux(self, freq_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Flux at frequencies [Hz], in Jy."""
        log = np.log(np.asarray(freq_hz) / self.reference_hz)
        return self.flux_jy * np.exp(np.polynomial.polynomial.polyval(log, [0.0, *self.spectrum]))

    def taper(self, uv_m: NDArray[np.float64], freq_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Visibility over flux at its own centre, shape (row, chan).

        Parameters
        ----------
        uv_m : ndarray, shape (row, 2)
            Baselines along east and north at the source [m].
        freq_hz : ndarray, shape (chan,)
            Frequencies [Hz].
        """
        if self.major_arcsec <= 0:
            return np.ones((uv_m.shape[0], freq_hz.size))
        sine, cosine = math.sin(math.radians(self.pa_deg)), math.cos(math.radians(self.pa_deg))
        along = (uv_m[:, 0] * sine + uv_m[:, 1] * cosine) * self.major_arcsec * ARCSEC_RAD
        across = (uv_m[:, 0] * cosine - uv_m[:, 1] * sine) * self.minor_arcsec * ARCSEC_RAD
        return np.asarray(
            np.exp(-GAUSSIAN_K * np.outer(along**2 + across**2, (freq_hz / C_M_S) ** 2))
        )

    def visibilities(
        self,
        field: Field,
        uvw_m: NDArray[np.float64],
        freq_hz: NDArray[np.float64],
        beam: Beam | None = None,
        *,
        time_s: NDArray[np.float64],
    ) -> NDArray[np.complex128]:
        """Visibilities in the data of a field [Jy], shape (row, chan).

        ``V = S(f) P(f) taper(u, v) exp(2 pi i b.(s - s_field) f / c)`` for unit vectors s: the sign of
        `peelkit.engines.ducc.predict`, and no approximation but that of a small source.

        Parameters
        ----------
        field : Field
            Whose phase centre they refer to.
        uvw_m : ndarray, shape (row, 3)
            Baselines [m].
        freq_hz : ndarray, shape (chan,)
            Frequencies of the data, in their own frame [Hz].
        beam : Beam, optional
            Primary beam that the field sees the source through.
        time_s : ndarray, shape (row,)
            Times [MJD s], for a field that moves.
        """
        own = self.basis
        baseline, path_m = np.empty_like(uvw_m), np.empty(uvw_m.shape[0])
        for place, at in field.views(time_s):
            toward = field_basis(place, ICRS(), CANNOT_TURN)
            baseline[at] = uvw_m[at] @ toward
            path_m[at] = baseline[at] @ (own[2] - toward[2])
        flux = self.flux(freq_hz)
        if beam is not None:
            flux = flux * self.power(field.at(float(time_s.mean())), freq_hz, beam)
        vis = fourier.turns(path_m, freq_hz)
        vis *= flux
        if self.major_arcsec > 0:
            vis *= self.taper(baseline @ own[:2].T, freq_hz)
        return np.asarray(vis)

    def power(self, field: Field, freq_hz: NDArray[np.float64], beam: Beam) -> NDArray[np.float64]:
        """Primary beam of a field at the source, shape (chan,)."""
        toward = field_basis(field, ICRS(), CANNOT_TURN)
        # By the chord: the arc cosine is poor at small angles.
        chord = float(np.linalg.norm(self.basis[2] - toward[2]))
        offset = np.array(2 * math.asin(min(1.0, chord / 2)))
        return np.array([float(beam.power(float(freq), offset)) for freq in freq_hz])

    def record(self) -> dict[str, Any]:
        """As sidecars have it: ``refined`` of ddsolve, ``model`` of predict-region."""
        return {
            "shape": self.shape,
            "ra_deg": self.ra_deg,
            "dec_deg": self.dec_deg,
            "flux_jy": self.flux_jy,
            "reference_hz": self.reference_hz,
            "spectrum": list(self.spectrum),
            "major_arcsec": self.major_arcsec,
            "minor_arcsec": self.minor_arcsec,
            "pa_deg": self.pa_deg,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Compact:
        """Read what `record` gave; a point has no size, whatever it says."""
        is_point = record["shape"] == "point"
        return cls(
            ra_deg=float(record["ra_deg"]),
            dec_deg=float(record["dec_deg"]),
            flux_jy=float(record["flux_jy"]),
            reference_hz=float(record["reference_hz"]),
            spectrum=tuple(float(value) for value in record["spectrum"]),
            major_arcsec=0.0 if is_point else float(record["major_arcsec"]),
            minor_arcsec=0.0 if is_point else float(record["minor_arcsec"]),
            pa_deg=0.0 if is_point else float(record["pa_deg"]),
        )


__all__ = ["ARCSEC_RAD", "GAUSSIAN_K", "Compact"]
