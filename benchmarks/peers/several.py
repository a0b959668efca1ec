"""Run a command several times at once, for workers whose way to more jobs at once is more processes.

``python -m benchmarks.peers.several NUMBER COMMAND ...`` ends them all when it is told to stop.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType


def main() -> None:
    """Start them, and wait until they have ended."""
    number, *command = sys.argv[1:]
    processes = [subprocess.Popen(command) for _ in range(int(number))]

    def stop(signum: int, frame: FrameType | None) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    sys.exit(max(abs(process.wait()) for process in processes))


if __name__ == "__main__":
    main()
