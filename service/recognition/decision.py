"""From a promised error rate to a threshold: who counts as a match, and at what risk.

Rates are the caller's promise, thresholds follow from the bundle's calibration and the gallery's templates; no number
here is a similarity. A rate that the calibration cannot carry is refused, never rounded to one that it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from bundle.calibration import Calibration, Threshold, UnsupportedRate
from service.errors import FpirUnsupported, InvalidParameter

Verdict = Literal["match", "no_match", "no_face", "low_quality"]

DEFAULT_FPIR = 0.01
DEFAULT_FMR = 1e-4
CONFLICT_FPIR = 1e-3  # an enrolled face that matches another person at this rate is not enrolled

_REMEMBERED = 256  # thresholds; one takes about a millisecond to find


@dataclass(frozen=True, slots=True)
class Operating:
    """Where a decision is made. `threshold` is None where nobody can match.

    identify  fpir: of one searched face in this gallery; fmr: F_1, of one comparison with one template
    verify    fmr: of this comparison, the best of the person's templates; fpir is None
    `extrapolated`: the rates rest on a tail fit, not on measured pairs.
    """

    threshold: float | None
    fpir: float | None
    fmr: float | None
    extrapolated: bool

    def matches(self, similarity: float) -> bool:
        """Whether a cosine similarity is a match here."""
        return self.threshold is not None and similarity >= self.threshold


class Decider:
    """The decisions of one calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._known: dict[tuple[float, tuple[tuple[int, int], ...]], Threshold] = {}

    def identify(
        self, templates: Mapping[int, int], fpir: float | None, threshold: float | None
    ) -> Operating:
        """Where a search decides. `templates`: of a person → persons of the gallery; empty for an empty gallery.

        Raises `InvalidParameter` (both given, out of range), `FpirUnsupported` with `details.supported`.
        """
        _exclusive("fpir", fpir, threshold)
        if not any(templates.values()):
            return Operating(None, None if threshold is not None else fpir or DEFAULT_FPIR, None, False)
        if threshold is not None:
            hit = self._calibration.fpir_at(threshold, templates)
            single = self._calibration.false_match_rate(threshold)
            return Operating(threshold, hit.value, single.value, hit.extrapolated or single.extrapolated)
        asked = fpir if fpir is not None else DEFAULT_FPIR
        found = self._threshold(asked, templates)
        single = self._calibration.false_match_rate(found.value)
        return Operating(found.value, asked, single.value, found.extrapolated or single.extrapolated)

    def verify(self, templates: int, fmr: float | None, threshold: float | None) -> Operating:
        """Where a comparison with the best of `templates` (1 for a picture) decides. Raises as `identify` does."""
        _exclusive("fmr", fmr, threshold)
        if threshold is not None:
            rate = self._calibration.false_match_rate(threshold, templates)
            return Operating(threshold, None, rate.value, rate.extrapolated)
        asked = fmr if fmr is not None else DEFAULT_FMR
        # One person in the gallery: the rate of the transaction is F_k itself.
        found = self._threshold(asked, {templates: 1})
        rate = self._calibration.false_match_rate(found.value, templates)
        return Operating(found.value, None, asked, found.extrapolated or rate.extrapolated)

    def conflict(self, templates: Mapping[int, int]) -> Operating:
        """Where a face that is being enrolled counts as somebody else: FPIR 1e-3, or the least that can be carried."""
        try:
            return self.identify(templates, CONFLICT_FPIR, None)
        except FpirUnsupported as unsupported:
            return self.identify(templates, float(str(unsupported.details["supported"])), None)

    def _threshold(self, rate: float, templates: Mapping[int, int]) -> Threshold:
        key = (rate, tuple(sorted(templates.items())))
        known = self._known.get(key)
        if known is None:
            known = self._solved(lambda: self._calibration.threshold_for_fpir(rate, templates))
            while len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
            self._known[key] = known
        return known

    def _solved(self, solve: Callable[[], Threshold]) -> Threshold:
        try:
            return solve()
        except UnsupportedRate as unsupported:
            message = f"the calibration carries rates from {unsupported.supported:.3g} here"
            raise FpirUnsupported(message, asked=unsupported.asked, supported=unsupported.supported) from None


def _exclusive(name: str, rate: float | None, threshold: float | None) -> None:
    if rate is not None and threshold is not None:
        raise InvalidParameter(f"{name} and threshold exclude each other", parameter=name)
    if rate is not None and not 0 < rate <= 1:
        raise InvalidParameter(f"{name} must be above 0 and at most 1", parameter=name)
    if threshold is not None and not -1 <= threshold <= 1:
        raise InvalidParameter("threshold must be from -1 to 1", parameter="threshold")
