"""Run a module in a process that ends with its parent: `python -m tasks.attached MODULE ARGUMENT…`.

The process reads its standard input, a pipe that the parent holds and writes nothing to. When the pipe closes, the
parent has ended, however it ended, and so does the process; what the module had committed stays.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module = sys.argv[1]
    del sys.argv[1]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
