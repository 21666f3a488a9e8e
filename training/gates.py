"""The gates between a trained bundle and the one that is served: a typed policy in, a verdict a program can read out.

A gate that cannot be assessed is a gate that failed; one that does not apply is infinite in the policy, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bundle.manifest import Licence
from training.config import RunConfig, read_config
from training.evaluation.bootstrap import Interval
from training.evaluation.floors import Verdict
from training.evaluation.verification import MIN_FALSE_MATCHES
from training.export.detector_forms import DetectorBudget
from training.export.embedder_forms import EmbedderBudget
from training.export.ladder import Rung

CONFIGS = Path(__file__).resolve().parent / "configs"
MEGABYTE = 1_000_000


class Policy(RunConfig, allow_inf_nan=True):
    """What a bundle must show before it replaces another. `inf` switches a limit off."""

    fmr: float = Field(1e-3, gt=0, lt=1)  # at which FNMR on validation is compared with the old bundle's
    fnmr_margin: float = Field(0.01, ge=0)  # rise of FNMR, upper bound of the interval: 1 percentage point
    recall_margin: float = Field(0.01, ge=0)  # fall of the detector's recall, lower bound: 1 percentage point
    ap_margin: float = Field(0.01, ge=0)  # and of its AP, easy, medium and hard each, likewise
    times_old_most: float = Field(1.25, gt=0)  # processor time a face, over the old bundle's
    times_reference_most: float = Field(1.1, gt=0)  # and over the reference embedder's
    times_yunet_most: float = Field(3, gt=0)  # processor time a picture, over the reference detector's
    embedder_megabytes_most: float = Field(9, gt=0)
    detector_megabytes_most: float = Field(9, gt=0)
    bundle_megabytes_most: float = Field(20, gt=0)
    realised_over_promised_most: float = Field(2, ge=1)  # false match rate on held-out people, either way
    variants: EmbedderBudget = EmbedderBudget()  # what other forms of the embedder may cost
    detector_variants: DetectorBudget = DetectorBudget()


def standing_policy(synthetic: bool) -> Policy:
    """The policy of the repository, for real or for drawn data. Raises BadConfig."""
    return read_config(Policy, CONFIGS / ("synthetic" if synthetic else "") / "gates.toml")


@dataclass(frozen=True)
class Gate:
    """One gate: whether it holds, what was measured (with its interval) and required, and why in words.

    measured, required: None where the gate does not apply or could not be assessed; `reason` says which.
    """

    name: str
    holds: bool
    reason: str
    measured: float | str | None = None
    required: float | str | None = None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    def row(self) -> dict[str, Any]:
        """As outcome.json and the manifest keep it."""
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """What was measured of the bundle to be.

    rungs: the forms of both models; milliseconds: processor time a face, as served; picture_milliseconds: of our
    detector and of YuNet, a picture at VGA, as served; sizes: bytes by role, "embedder"
    and "detector"; terms: of each data set and teacher, "commercial" or "research-only"; alike: training photographs
    that look like one of the evaluation's.
    """

    rungs: Sequence[Rung]
    verdicts: Sequence[Verdict]
    milliseconds: float
    reference_milliseconds: float | None
    picture_milliseconds: tuple[float, float] | None  # None: nothing to compare with
    sizes: Mapping[str, int]
    licence: Licence
    terms: Mapping[str, str]
    alike: int = 0


@dataclass(frozen=True)
class Incumbent:
    """The bundle that would be replaced, run on the same faces and pictures and in the same minute as the candidate.

    fnmr_difference, recall_difference, ap_differences (by WIDER's setting): the candidate's rate less this one's, None
    where faces or pictures do not carry it; same_detector: the candidate's finds the same in any picture, so that there
    is no difference to measure.
    """

    model_id: str
    fnmr_difference: Interval | None
    milliseconds: float
    recall_difference: Interval | None
    ap_differences: Mapping[str, Interval] | None = None
    same_detector: bool = False


def judge(candidate: Candidate, incumbent: Incumbent | None, policy: Policy) -> list[Gate]:
    """Every gate that can be judged before the calibration is made; `judge_calibration` and `judge_size` follow it.

    incumbent: None for a first bundle.
    """
    return [
        parity_gate(candidate.rungs),
        *(_floor(verdict) for verdict in candidate.verdicts),
        _accuracy(incumbent, policy),
        _detection(incumbent, policy),
        _average_precision(incumbent, policy),
        _pace_over_old(candidate, incumbent, policy),
        _pace_over_reference(candidate, policy),
        _pace_over_yunet(candidate, policy),
        *_sizes(candidate, policy),
        _licence(candidate),
        _alike(candidate),
    ]


def judge_calibration(held_out: Sequence[Mapping[str, Any]], policy: Policy) -> Gate:
    """On people that the thresholds were not fitted on, false matches are as frequent as promised, within a factor.

    held_out: rows of `promise.held_out_fmr`; a rate counts where a test's comparisons carry it.
    """
    name, factor = "calibration", policy.realised_over_promised_most
    if not math.isfinite(factor):
        return Gate(name, True, "does not apply: the policy sets no limit")
    carried = [of for of in held_out if of["promised"] * of["comparisons_per_test"] >= MIN_FALSE_MATCHES]
    if not carried:
        return Gate(
            name, False, "not assessed: the held-out people carry none of the promised rates", None, factor
        )
    worst = max(carried, key=lambda of: _times(of["realised"], of["promised"]))
    promised, realised, spread = worst["promised"], worst["realised"], worst["spread"]
    times = _times(realised, promised)
    return Gate(
        name,
        times <= factor,
        f"the false match rate on held-out people is {realised:.3g} where {promised:g} is promised, a factor of "
        f"{times:.2f}, most {factor:g}",
        realised / promised,
        factor,
        (max(0.0, realised - 2 * spread) / promised, (realised + 2 * spread) / promised),
    )


def judge_size(bundle_bytes: int, policy: Policy) -> Gate:
    """The whole bundle, on disk."""
    return _at_most("size of the bundle", bundle_bytes / MEGABYTE, policy.bundle_megabytes_most, "MB")


def parity_gate(rungs: Sequence[Rung], failure: str = "") -> Gate:
    """Graph and model agree. failure: the message of a ParityFailed, which ends an export before there are rungs."""
    name, required = "parity", "graph and model agree"
    if failure:
        return Gate(name, False, failure, None, required)
    served = [of for of in rungs if of.published]
    nearest = [of.agreement.nearest_least for of in served if of.agreement]
    if not served or len(nearest) < len(served):
        return Gate(name, False, "not assessed", None, required)
    return Gate(
        name,
        True,
        f"graphs and models agree, and so do {len(served)} published forms",
        min(nearest),
        required,
    )


def _floor(verdict: Verdict) -> Gate:
    got = "not assessed" if verdict.measured is None else f"{verdict.measured:.4g}"
    got = f"{got}, the floor is {verdict.asked:g}"
    return Gate(f"floor: {verdict.floor}", verdict.holds, got, verdict.measured, verdict.asked)


def _accuracy(incumbent: Incumbent | None, policy: Policy) -> Gate:
    name, margin = (
        f"accuracy: FNMR at FMR {policy.fmr:g} on validation, less the old bundle's",
        policy.fnmr_margin,
    )
    if incumbent is None:
        return Gate(name, True, "does not apply: there is no incumbent")
    if not math.isfinite(margin):
        return Gate(name, True, "does not apply: the policy sets no limit")
    found = incumbent.fnmr_difference
    if found is None:
        return Gate(name, False, f"not assessed: the faces do not carry FMR {policy.fmr:g}", None, margin)
    return Gate(
        name,
        found.high <= margin,
        f"{found.value:+.2%} against {incumbent.model_id}, 95 % from {found.low:+.2%} to {found.high:+.2%}, by drawing "
        f"people anew; the upper bound may be {margin:+.2%}",
        found.value,
        margin,
        (found.low, found.high),
    )


def _detection(incumbent: Incumbent | None, policy: Policy) -> Gate:
    name, margin = (
        "detection: recall at 1 false positive a validation picture, less the old bundle's",
        policy.recall_margin,
    )
    if known := _known_of_detector(name, incumbent, margin):
        return known
    assert incumbent is not None
    found = incumbent.recall_difference
    if found is None:
        none = "not assessed: the pictures are too few for an interval, or there are none"
        return Gate(name, False, none, None, -margin)
    return Gate(
        name,
        found.low >= -margin,
        f"{found.value:+.2%} against {incumbent.model_id}, 95 % from {found.low:+.2%} to {found.high:+.2%}, by drawing "
        f"pictures anew; the lower bound may be {-margin:+.2%}",
        found.value,
        -margin,
        (found.low, found.high),
    )


def _average_precision(incumbent: Incumbent | None, policy: Policy) -> Gate:
    """Recall is of faces of 40 pixels and more: a detector that lost all others would pass by it alone."""
    name, margin = "detection: WIDER's AP at VGA as served, less the old bundle's", policy.ap_margin
    if known := _known_of_detector(name, incumbent, margin):
        return known
    assert incumbent is not None
    if not incumbent.ap_differences:
        none = "not assessed: the pictures are too few for an interval, or WIDER's lists (val_protocol) are not there"
        return Gate(name, False, none, None, -margin)
    worst_first = sorted(incumbent.ap_differences.items(), key=lambda of: of[1].low)
    told = "; ".join(
        f"{setting} {of.value:+.4f}, 95 % from {of.low:+.4f} to {of.high:+.4f}" for setting, of in worst_first
    )
    worst = worst_first[0][1]
    return Gate(
        name,
        worst.low >= -margin,
        f"{told}, against {incumbent.model_id}, by drawing pictures anew; each lower bound may be {-margin:+g}",
        worst.value,
        -margin,
        (worst.low, worst.high),
    )


def _known_of_detector(name: str, incumbent: Incumbent | None, margin: float) -> Gate | None:
    """The gate of a detector's fall where nothing has to be measured for it."""
    if incumbent is None:
        return Gate(name, True, "does not apply: there is no incumbent")
    if not math.isfinite(margin):
        return Gate(name, True, "does not apply: the policy sets no limit")
    if incumbent.same_detector:
        same = f"the detector is that of {incumbent.model_id}, graph and reading: no difference"
        return Gate(name, True, same, 0.0, -margin)
    return None


def _pace_over_old(candidate: Candidate, incumbent: Incumbent | None, policy: Policy) -> Gate:
    name = "speed: processor time a face over the old bundle's"
    if incumbent is None:
        return Gate(name, True, "does not apply: there is no incumbent")
    return _times_most(name, candidate.milliseconds, incumbent.milliseconds, policy.times_old_most)


def _pace_over_reference(candidate: Candidate, policy: Policy) -> Gate:
    name = "speed: processor time a face over the reference embedder's"
    return _times_most(
        name, candidate.milliseconds, candidate.reference_milliseconds, policy.times_reference_most
    )


def _pace_over_yunet(candidate: Candidate, policy: Policy) -> Gate:
    ours, theirs = candidate.picture_milliseconds or (math.nan, None)
    return _times_most("speed: processor time a picture over YuNet's", ours, theirs, policy.times_yunet_most)


def _times_most(name: str, ours: float, theirs: float | None, most: float) -> Gate:
    if not math.isfinite(most):
        return Gate(name, True, "does not apply: the policy sets no limit")
    if not theirs:
        return Gate(name, False, "not assessed: nothing to compare with", None, most)
    reason = f"{ours:.2f} ms against {theirs:.2f} ms in the same run, {ours / theirs:.2f} ×, most {most:g} ×"
    return Gate(name, ours <= most * theirs, reason, ours / theirs, most)


def _sizes(candidate: Candidate, policy: Policy) -> list[Gate]:
    most = {"embedder": policy.embedder_megabytes_most, "detector": policy.detector_megabytes_most}
    return [
        _at_most(f"size of the {role}", candidate.sizes[role] / MEGABYTE, limit, "MB")
        for role, limit in most.items()
    ]


def _at_most(name: str, measured: float, most: float, unit: str) -> Gate:
    if not math.isfinite(most):
        return Gate(name, True, "does not apply: the policy sets no limit")
    return Gate(
        name, measured <= most, f"{measured:.2f} {unit}, most {most:g} {unit}", round(measured, 3), most
    )


def strictest(terms: Mapping[str, str]) -> Literal["research-only", "commercial"]:
    """What weights inherit that were made from sets and teachers under `terms`, by name: of nothing known, and of
    anything but "commercial" among them, "research-only"."""
    return "commercial" if terms and set(terms.values()) == {"commercial"} else "research-only"


def _licence(candidate: Candidate) -> Gate:
    """The weights inherit the strictest terms of what they were made from; a bundle may claim less, never more."""
    strict = sorted(name for name, terms in candidate.terms.items() if terms != "commercial")
    allowed, claimed = strictest(candidate.terms), candidate.licence.id
    if claimed == "commercial" != allowed:
        reason = (
            f"the bundle may not claim to be commercial: made from research-only data ({', '.join(strict)})"
            if strict
            else "the bundle may not claim to be commercial: nothing states the terms of what it was made from"
        )
        return Gate("licence", False, reason, claimed, allowed)
    because = f", for the terms of {', '.join(strict)}" if strict else ""
    return Gate("licence", True, f"{claimed}; the data allow {allowed}{because}", claimed, allowed)


def _alike(candidate: Candidate) -> Gate:
    count = candidate.alike
    reason = f"{count} training photographs look like a validation photograph"
    return Gate("overlap of the detector's sets", not count, reason, float(count), 0.0)


def _times(one: float, other: float) -> float:
    """By what factor two rates differ, whichever is larger; infinite where one is zero."""
    least, most = sorted((one, other))
    return most / least if least > 0 else math.inf
