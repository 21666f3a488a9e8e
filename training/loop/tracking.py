"""What a run leaves behind and shows: metrics.jsonl, TensorBoard, a progress bar, and with what it was made.

    with Tracker(run, total=total, initial=step, unit="img", flops_per_sample=flops, config=…,
                 peak=peak_flops(device, precision.dtype)) as tracker:
        while step < total:
            with tracker.waiting():
                batch = next(batches)
            losses = …
            tracker.step(len(batch), losses, rate)
            if …:
                with tracker.aside():
                    tracker.validation(validate(…))

metrics.jsonl holds one JSON object a line: {"step", "rate", "img/s", "wait", "peak", losses …} every `every` steps,
means over those steps that have a finite value; {"step", "fnmr@…"} after each validation. A run that goes on appends.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from tqdm import tqdm

from training.config import REPOSITORY
from training.loop.checkpoint import replacing, writing

# dense peaks from the makers' data sheets, TFLOP/s: half precision with float32 sums, and float32 (TF32 where the GPU
# has it, as convolutions use it); the first whose words all stand in the device's name, so the more precise come first
GPUS: tuple[tuple[str, float, float], ...] = (
    ("H100 PCIe", 756, 378),
    ("H100 NVL", 835, 417),
    ("H100", 989, 495),
    ("H200 NVL", 835, 417),
    ("H200", 989, 495),
    ("A100", 312, 156),
    ("A30", 165, 82),
    ("A10", 125, 62.5),
    ("L40S", 362, 183),
    ("L4", 121, 60),
    ("V100 PCIE", 112, 14),
    ("V100", 125, 15.7),
    ("T4", 65, 8.1),
    ("RTX 4090", 165, 82.6),
    ("RTX 3090", 71, 35.6),
)
MEASURING_S = 0.25


def peak_flops(device: torch.device | str, dtype: torch.dtype) -> float:
    """FLOP/s that the device reaches at most in `dtype`: a known GPU's data sheet, else the best of some matrix
    products in about 0.3 s with the threads that torch has now. Measured beside other work it is too low."""
    device = torch.device(device)
    if device.type == "cuda":
        listed = listed_peak(torch.cuda.get_device_name(device), dtype)
        if listed:
            return listed
    return _measured_peak(device, dtype)


def listed_peak(name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s of a GPU by its driver's name, from the table above; None for one that is not in it."""
    words = name.replace("-", " ").split()
    if "Laptop" in words:  # a namesake with a third of the power
        return None
    for known, half, full in GPUS:
        if set(known.split()) <= set(words):
            return (full if dtype == torch.float32 else half) * 1e12
    return None


@torch.inference_mode()
def _measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    best, began = 0.0, time.perf_counter()
    for side in (128, 256, 512, 1024, 2048, 4096):
        left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
        took = math.inf
        for _ in range(4):  # the first also builds the kernel
            took = min(took, _seconds_of(left, right))
        best = max(best, 2 * side**3 / took)
        if time.perf_counter() - began + 4 * 8 * took > MEASURING_S:
            break
    return best


def _seconds_of(left: Tensor, right: Tensor) -> float:
    started = time.perf_counter()
    left @ right
    if left.device.type == "cuda":
        torch.cuda.synchronize(left.device)
    return time.perf_counter() - started


def environment() -> dict[str, Any]:
    """What the figures of a run depend on beside its configuration. Names the processor, not the machine."""
    packages = {}
    for name in ("torch", "numpy", "opencv-python-headless"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **packages,
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
    }


def _commit() -> str | None:
    """The commit that the code is of, with a + behind it where files differ from it; None outside a clone."""
    try:
        head, changed = (
            subprocess.run(
                ["git", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for command in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _processor() -> str:
    """The model's name, as the processor tells it."""
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_evidence(run: Path, initial: int, config: Mapping[str, Any]) -> None:
    """config.json: what the run is made with from step `initial` on, and below `earlier` what it was begun with.

    A config.json that cannot be read is replaced.
    """
    file = run / "config.json"
    made = {"config": dict(config), "environment": environment(), "step": initial}
    evidence = json.loads(json.dumps(made, default=str))  # comparable with what was read
    before = _evidence(file) if initial else {}
    earlier = before.pop("earlier", [])
    if before and all(before.get(key) == evidence[key] for key in ("config", "environment")):
        evidence["step"] = before["step"]
    elif before:
        earlier.append(before)
    with replacing(file) as out:
        out.write(json.dumps({**evidence, "earlier": earlier}, indent=2).encode())


def _evidence(file: Path) -> dict[str, Any]:
    """What stands in config.json; a plain configuration, which is all that it once was, counts as one."""
    try:
        before = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(before, dict):
        return {}
    return before if "environment" in before else {"config": before, "environment": None, "step": 0}


class Tracker:
    """Writes and shows a run. `quiet` (on ranks other than the first) does neither, but measures."""

    def __init__(
        self,
        run: Path,
        *,
        total: int,
        initial: int,
        unit: str,
        flops_per_sample: float | None,
        config: Mapping[str, Any],
        peak: float | None = None,
        every: int = 20,
        quiet: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`total` and `initial` are steps; `unit` names a sample in "<unit>/s"; `flops_per_sample` is of forward and
        backward pass together (about 6 × MACs), `peak` in FLOP/s; both are needed for the share of the peak."""
        run.mkdir(parents=True, exist_ok=True)
        self.at = initial
        self.quiet = quiet
        self.unit = unit
        self.every = every
        self.total = total
        self._file, self._events = run / "metrics.jsonl", run / "tensorboard"
        self._share = flops_per_sample / peak if flops_per_sample and peak else None
        self._clock = clock
        self._rate = 0.0
        self._open_interval()
        self._board = None
        self._hook = threading.excepthook
        if not quiet:
            write_evidence(run, initial, config)
            with writing(self._file):
                _end_line(self._file)
            threading.excepthook = self._other_than_unwritten
            with writing(self._events):
                self._board = _tensorboard(self._events, initial)
        self._bar = tqdm(
            total=total,
            initial=initial,
            unit="step",
            desc=run.name,
            mininterval=5,
            smoothing=0.05,
            disable=quiet,
        )

    def _open_interval(self) -> None:
        self._started = self._clock()
        self._waited = self._apart = 0.0
        self._samples = 0
        self._sums: dict[str, tuple[float | Tensor, float | Tensor]] = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the loader: time in which the model has nothing to do."""
        started = self._clock()
        try:
            yield
        finally:
            self._waited += self._clock() - started

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around validation and checkpoints: time that is no part of the pace."""
        started = self._clock()
        try:
            yield
        finally:
            self._apart += self._clock() - started

    def step(self, samples: int, losses: Mapping[str, float | Tensor], rate: float) -> None:
        """One more step of `samples` samples is done. Scalars on a device are summed there and read every `every`
        steps: what a step waits for is the trainer's own look at losses and gradient (training.loop.diagnosis). A value
        that is not finite (a gradient that overflows while fp16's scale is being found) takes no part in the mean."""
        self.at += 1
        self._rate = rate
        self._samples += samples
        for name, value in losses.items():
            before, count = self._sums.get(name, (0.0, 0))
            value, counted = _finite(value)
            self._sums[name] = (before + value, count + counted)
        self._bar.update()
        if self.at % self.every == 0 or self.at == self.total:
            self._close_interval()

    def _close_interval(self) -> None:
        losses = {name: float(value) / float(count) for name, (value, count) in self._sums.items() if count}
        seconds = max(self._clock() - self._started - self._apart, 1e-9)
        pace = self._samples / seconds
        shares = {"wait": min(1.0, self._waited / seconds)}
        if self._share is not None:
            shares["peak"] = pace * self._share
        self._write({"rate": self._rate, f"{self.unit}/s": pace, **shares, **losses}, "train")
        self._bar.set_postfix_str(
            ", ".join(
                (
                    *(f"{name} {value:.3f}" for name, value in losses.items()),
                    f"{pace:.0f} {self.unit}/s",
                    *(f"{name} {share:.0%}" for name, share in shares.items()),
                )
            ),
            refresh=False,
        )
        self._open_interval()

    def validation(self, results: Mapping[str, float]) -> None:
        """Record and say what was measured at this step; what is not finite is said alone."""
        self._write({name: of for name, of in results.items() if math.isfinite(of)}, "validation")
        self.say(f"step {self.at}: " + ", ".join(f"{name} {value:.4f}" for name, value in results.items()))

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self.quiet:
            tqdm.write(text, file=sys.stderr)

    def _write(self, record: dict[str, float], group: str) -> None:
        if self.quiet:
            return
        with writing(self._file), self._file.open("a") as file:
            file.write(json.dumps({"step": self.at, **record}, allow_nan=False) + "\n")
        if self._board is not None:
            with writing(self._events):
                for name, value in record.items():
                    self._board.add_scalar(f"{group}/{name}", value, self.at)

    def close(self) -> None:
        """Write what has been summed since the last record, and end the bar."""
        try:
            if self._samples:
                self._close_interval()
        finally:
            self._bar.close()
            if self._board is not None:
                with writing(self._events):
                    self._board.close()
            threading.excepthook = self._hook

    def _other_than_unwritten(self, failed: threading.ExceptHookArgs) -> None:
        """Leave unsaid what TensorBoard's writing thread could not write: the next call to the writer raises it."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError:
            if error is None:  # else it is most often the same full disk: what failed first is told
                raise


def _finite(value: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """(the value, 1), or (0, 0) where it is not finite, without waiting for a device."""
    if not isinstance(value, Tensor):
        return (value, 1) if math.isfinite(value) else (0.0, 0)
    value = value.detach().float()
    return value.nan_to_num(0, 0, 0), value.isfinite().float()


def _end_line(file: Path) -> None:
    """End a last line that a kill cut short, so that it does not swallow the next."""
    if file.is_file() and file.stat().st_size and not file.read_bytes().endswith(b"\n"):
        with file.open("a") as end:
            end.write("\n")


def _tensorboard(events: Path, initial: int) -> Any:
    """A writer of the run's events, or None, said aloud, where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write(
            "TensorBoard is not installed, metrics.jsonl alone records this run (pip install tensorboard)",
            file=sys.stderr,
        )
        return None
    return SummaryWriter(str(events), purge_step=initial + 1 if initial else None)
