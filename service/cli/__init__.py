"""The command `facet`: serves, and talks to a running service through its REST API.

    arguments    what can be typed
    client       the REST API as calls, over a transport
    transport    HTTP to a running service, or (`--offline`) the same application inside this process
    enroll       facet enroll DIR
    identify     facet identify IMAGE…
    keys         facet keys create|list|revoke
    maintenance  facet bundle check · migrate · gallery rebuild

Rule: every failure is one line on standard error and an exit code of `EXITS`; a traceback is a defect.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from bundle.folder import BundleError
from service.cli.arguments import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, parse
from service.errors import FacetError, StartFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the answer."""
    from service.cli.client import Refused
    from service.cli.transport import Unreachable

    command = parse(arguments)
    try:
        code: int = command.run(command)
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `facet … | head`: say nothing, and let the interpreter flush into nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Unreachable as error:
        return _failed(str(error), EXIT_UNREACHABLE)
    except Refused as error:
        return _failed(f"{error.message} ({error.code})", EXIT_REFUSED)
    except (StartFailed, BundleError) as error:
        return _failed(str(error), EXIT_USAGE)
    except FacetError as error:
        return _failed(f"{error.message} ({error.code})", EXIT_REFUSED)


def _failed(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"facet: {line}", file=sys.stderr)
    return code
