"""torchrun with the exit code of what it starts: its own says only that something failed.

python -m guiderail.launch.torchrun --standalone --nproc_per_node=2 -m guiderail.launch.cli train CONFIG
"""

from __future__ import annotations

import socket
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousConnectionError
from torch.distributed.run import parse_args, run

BAD_SETUP = 2


def main(arguments: list[str]) -> int:
    """Takes torchrun's arguments. The exit code of the process that failed first, 128 and the signal that ended it or this
    launcher, 2 where the first machine cannot be reached, or 0."""
    given = parse_args(arguments)  # type: ignore[no-untyped-call]
    try:
        run(given)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    except RendezvousConnectionError:
        print(
            f"{socket.gethostname()} cannot reach the first machine at {given.rdzv_endpoint}; check that the run was started there, "
            "the address, and that no firewall closes the port (MASTER_ADDR, MASTER_PORT)",
            file=sys.stderr,
        )
        return BAD_SETUP
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
