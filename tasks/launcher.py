"""`torchrun`, ended as its processes end: `python -m tasks.launcher ARGUMENT…`, with torchrun's arguments.

By itself torchrun exits with 1 whatever ended a process. Here it ends by the signal that ended one of them, as where
memory runs out, so that whoever started it can tell that from an error which would come again.
"""

import os
import signal
import sys
import traceback

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        signals = {-failure.exitcode for failure in error.failures.values() if failure.exitcode < 0}
        signals -= {signal.SIGTERM}  # what the launcher ends the others with
        if not signals:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os.kill(os.getpid(), signals.pop())


if __name__ == "__main__":
    main()
