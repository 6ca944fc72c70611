"""Processes that run one suite at the same time: each run is trained once, and all finish.

python tests/campaign/writers.py [--writers 12] [--rounds 5]
"""

import tempfile
import time
from pathlib import Path

from places import Place, ended, parser, table


def together(place: Place, count: int) -> list[str]:
    """What is wrong after so many processes have finished the suite at once."""
    commands = [place.start("run", "tiny.toml", "--workers", "1", "--quiet") for _ in range(count)]
    return [fault for command in commands for fault in place.faults(command.end())]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--writers", type=int, default=12)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    rows: list[list[object]] = []
    faults = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(chosen.rounds):
            place = Place.make(Path(name) / str(number))
            began = time.monotonic()
            own = together(place, chosen.writers)
            seconds = time.monotonic() - began
            lines = place.lines()
            litter = len(place.litter())
            rows.append(
                [chosen.writers, len(lines), lines.total(), len(own), litter, f"{seconds:.0f}"]
            )
            faults += own
    table(["writers", "runs", "times trained", "faults", "litter", "seconds"], rows)
    ended(faults)


if __name__ == "__main__":
    main()
