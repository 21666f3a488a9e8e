"""How a training's command ends: in one line for whoever started it, and in a status for whoever waits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training.config import BadConfig
from training.loop.agreement import FirstFailed
from training.loop.checkpoint import FULL, REMEDY, UnreadableCheckpoint, UnsoundState
from training.loop.diagnosis import Diverged
from training.loop.loader import LoaderFailed

EXPECTED = (BadConfig, UnreadableCheckpoint, UnsoundState, Diverged, LoaderFailed, OSError)
ALONE_WITH = (LoaderFailed, OSError)  # what one rank may meet alone, and says itself
SPEAKING_S = 10  # torchrun ends all as soon as one has ended: the others let the first say why


def in_words(error: Exception) -> str:
    """What `error` says; of a full disk that did not say what to do, that too."""
    full = isinstance(error, OSError) and error.errno in FULL and REMEDY not in str(error)
    return f"{error}; {REMEDY}" if full else str(error)


def ended(
    act: Callable[[], object],
    last: Path,
    expected: tuple[type[Exception], ...],
    alone_with: tuple[type[Exception], ...] = (),
) -> int:
    """`act`, and the status of its process: 0; 1 with one line that says what is wrong; 130 or 143 where Ctrl-C or
    SIGTERM stopped it. Of many ranks the first speaks.

    last: the checkpoint that a stopped run goes on from. expected: what may be wrong besides EXPECTED; alone_with: what
    of that one rank may meet alone.
    """
    first = os.environ.get("RANK", "0") == "0"
    known: tuple[type[Exception], ...] = (FirstFailed, *EXPECTED, *expected)
    try:
        act()
    except (KeyboardInterrupt, SystemExit) as stopped:  # SystemExit: SIGTERM, see training.loop.stop
        if first:
            begun = f"goes on from {last}" if last.is_file() else "begins anew: there is no checkpoint yet"
            print(f"stopped; the same command {begun}", file=sys.stderr)
        return int(stopped.code or 1) if isinstance(stopped, SystemExit) else 130
    except known as error:
        if first or isinstance(error, (*ALONE_WITH, *alone_with)):
            sound = isinstance(error, Diverged) and last.is_file()
            kept = f". The last checkpoint, {last}, is from before this step" if sound else ""
            print(f"failed: {in_words(error)}{kept}", file=sys.stderr)
        else:
            time.sleep(SPEAKING_S)
        return 1
    return 0
