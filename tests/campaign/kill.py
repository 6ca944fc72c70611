"""Kill -9 a process group at random times, then run the command again: it must finish.

    python tests/campaign/kill.py [--kills 200] [--jobs 2] [--seed 0]

Half of the kills fall on `run` while it trains, a quarter on `report` at any time, and a quarter
on `report` from its first file on.
"""

import random
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from places import Place, delay, ended, parser, rest, stoppable, table, tell

PHASES = ("train", "train", "report", "write")
WRITTEN = ("metrics.json", "runs.csv", "alignment.svg", "report.html")
RUN = ("run", "tiny.toml", "--workers", "1", "--quiet")
REPORT = ("report", "tiny")


@dataclass(frozen=True)
class Usual:
    """Seconds that the phases take, and a place where all is trained."""

    train: float
    report: float
    write: float
    trained: Place


@dataclass(frozen=True)
class Trial:
    """A kill, and what the next run of the command made of its remains."""

    phase: str
    partly: bool  # some runs were recorded, and some were not
    torn: int
    litter: int
    faults: list[str]


def at_work(place: Place) -> bool:
    return any(place.results.glob("running-*"))


def written(place: Place) -> bool:
    return any(path.name.startswith((".metrics", "metrics")) for path in place.results.glob("*"))


def measure(folder: Path) -> Usual:
    """The phases of a run and of a report, undisturbed."""
    place = Place.make(folder / "trained")
    assert place.command(*RUN).code == 0  # fills the cache of costs
    shutil.rmtree(place.results)
    running = place.start(*RUN)
    assert running.until(lambda: at_work(place))
    began = time.monotonic()
    assert running.until(lambda: not at_work(place))
    train = time.monotonic() - began
    faults = place.faults(running.end())
    assert not faults, faults
    clear_report(place)
    began = time.monotonic()
    reporting = place.start(*REPORT)
    assert reporting.until(lambda: written(place))
    first = time.monotonic()
    assert reporting.end().code == 0
    return Usual(train, time.monotonic() - began, time.monotonic() - first, place)


def clear_report(place: Place) -> None:
    for name in WRITTEN:
        (place.results / name).unlink(missing_ok=True)


def killed(place: Place, phase: str, usual: Usual, generator: random.Random) -> bool:
    """Start the phase's command and kill it; False where it ended before."""
    if phase == "train":
        command = place.start(*RUN)
        alive = command.until(lambda: at_work(place))
        delay(generator, usual.train)
    else:
        command = place.start(*REPORT)
        alive = phase == "report" or command.until(lambda: written(place))
        delay(generator, usual.report if phase == "report" else usual.write)
    alive = alive and command.process.poll() is None
    text = command.kill()
    assert "Traceback" not in text, text
    return alive


def attempt(folder: Path, usual: Usual, seed: int, number: int) -> Trial:
    """One kill: again until it hits a command that is still at work."""
    generator = random.Random(f"{seed} {number}")
    phase = PHASES[number % len(PHASES)]
    hit = False
    place = usual.trained
    while not hit:
        shutil.rmtree(folder / str(number), ignore_errors=True)
        place = Place.make(folder / str(number))
        if phase != "train":
            shutil.copytree(usual.trained.results, place.results)
            clear_report(place)
        hit = killed(place, phase, usual, generator)
    before = place.lines()
    torn, partly = place.torn(), 0 < len(before) < len(usual.trained.lines())
    faults = [f"{key} twice before the rerun" for key, count in before.items() if count > 1]
    faults += place.faults(place.command(*(RUN if phase == "train" else REPORT)), before)
    litter = len(place.litter())
    shutil.rmtree(place.folder)
    return Trial(phase, partly, torn, litter, [f"kill {number} ({phase}): {f}" for f in faults])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(chosen.jobs) as pool:
        began = time.monotonic()
        usual = measure(Path(name))
        do = partial(attempt, Path(name), usual, chosen.seed)
        with stoppable():
            for trial in pool.map(do, range(chosen.kills)):
                trials.append(trial)
                tell(len(trials), chosen.kills, trial.faults)
        pool.shutdown(cancel_futures=True)
    rows: list[list[object]] = []
    for phase in dict.fromkeys(PHASES):
        own = [trial for trial in trials if trial.phase == phase]
        finished = sum(not trial.faults for trial in own)
        torn, litter = sum(t.torn for t in own), sum(t.litter for t in own)
        partly = sum(trial.partly for trial in own)
        rows.append([phase, len(own), partly, torn, finished, len(own) - finished, litter])
    table(
        ["killed", "kills", "some runs recorded", "torn lines", "finished", "faults", "litter"],
        rows,
    )
    print(
        f"\n{time.monotonic() - began:.0f} s; undisturbed: training {usual.train:.2f} s, ", end=""
    )
    print(f"report {usual.report:.2f} s, its files {usual.write:.2f} s")
    faults = [fault for trial in trials for fault in trial.faults]
    ended(faults + rest(len(trials), chosen.kills))


if __name__ == "__main__":
    main()
