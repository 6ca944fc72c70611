"""`hptransfer validate` on the torch optimizers of public packages, as a table in docs/zoo.md.

Every class is tried as it is. One that asks for more than parameters and a learning rate is tried
again through a function of the model, as a suite's `build` takes it. Each has a process of its own,
on one thread.

    pip install schedulefree prodigyopt lion-pytorch pytorch-optimizer
    python tests/benchmarks/zoo.py [--only pytorch_optimizer:Ada] [--missing] [--seconds 120]

--only: names that contain this. --missing: those without a result. The others stay as measured.
"""

import argparse
import importlib
import inspect
import json
import multiprocessing
import re
import tempfile
import warnings
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.testing import validate
from hptransfer.testing.optimizers import clauses

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results" / "reference" / "zoo.json"
PAGE = ROOT / "docs" / "zoo.md"
PACKAGES = {
    "torch.optim": "torch",
    "schedulefree": "schedulefree",
    "prodigyopt": "prodigyopt",
    "lion_pytorch": "lion-pytorch",
    "pytorch_optimizer": "pytorch-optimizer",
}
FLAGS = 'Class([{"params": hidden, "use_muon": True}, {"params": rest, "use_muon": False}], lr=lr)'
WRAPS = "Class(torch.optim.SGD(model.parameters(), lr=lr))"
CALLS = {  # how a class is called that takes more than the parameters
    "Muon": "[Class(hidden, lr=lr), torch.optim.AdamW(rest, lr=lr)]",
    **dict.fromkeys(("AdaGO", "AdaMuon", "DistributedMuon", "MuonClip", "NorMuon"), FLAGS),
    **dict.fromkeys(
        ("BSAM", "FriendlySAM", "LookSAM", "SAM"),
        "Class(model.parameters(), torch.optim.SGD, lr=lr)",
    ),
    "WSAM": "Class(model, model.parameters(), torch.optim.SGD, lr=lr)",
    **dict.fromkeys(("Lookahead", "Magma", "OrthoGrad", "ScheduleFreeWrapper", "TRAC"), WRAPS),
}
BUILD = """
import torch
from {package} import {name} as Class


def make(model, lr):
    \"\"\"{name} as its documentation calls it.\"\"\"
    hidden, rest = [], []
    for name, p in model.named_parameters():
        end = p.ndim < 2 or name.startswith(("embedding", "first", "head"))
        (rest if end else hidden).append(p)
    return {call}
"""


def optimizers(package: str) -> list[str]:
    """Names of the optimizers that a package holds or takes from its own modules."""
    module = importlib.import_module(package)
    home = package.partition(".")[0]
    return sorted(
        name
        for name, value in inspect.getmembers(module, inspect.isclass)
        if (issubclass(value, torch.optim.Optimizer) or name == "ScheduleFreeWrapper")
        and value.__module__.partition(".")[0] == home
        and not inspect.isabstract(value)
        and name not in ("Optimizer", "BaseOptimizer")
    )


def validated(target: str, seconds: float) -> dict[str, Any]:
    """Whether every clause holds, else the first that fails and what it says.

    In a process of its own, a copy of this one, which has the packages imported.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_validate, args=(target, seconds, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(8 * seconds) else failed("", f"over {8 * seconds:g} s")
    except EOFError:
        return failed("", "its process died")
    finally:
        process.terminate()
        process.join()


def _validate(target: str, seconds: float, pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    try:
        for check in validate(target, "optimizer", seconds=seconds):
            if not check.passed:
                pipe.send(failed(check.name, told(check.detail)))
                return
    except InputError as error:
        pipe.send(failed("", told(str(error))))
        return
    pipe.send({"holds": True, "clause": "", "why": ""})


def failed(clause: str, why: str) -> dict[str, Any]:
    return {"holds": False, "clause": clause, "why": why}


def told(text: str) -> str:
    """The cause alone: no path, no name of the class, no hint."""
    text = re.sub(r"^optimizer '[^']*': ", "", text)
    text = re.sub(r" at /\S*/site-packages/(\S+?):\d+", r" in \1", text)
    text = re.sub(r" at /\S+:\d+", "", text)
    return re.sub(r" \((docs/zoo.md|a class is called with).*", "", text)


def measured(package: str, name: str, seconds: float) -> dict[str, Any]:
    as_it_is = validated(f"{package}:{name}", seconds)
    call = FLAGS if (package, name) == ("pytorch_optimizer", "Muon") else CALLS.get(name)
    if as_it_is["holds"] or call is None:
        return {"by": "use", **as_it_is}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "zoo_build.py"
        path.write_text(BUILD.format(package=package, name=name, call=call))
        return {"by": "build", **validated(f"{path}:make", seconds)}


def page(results: dict[str, Any]) -> str:
    """The tables, one per package, under a sentence that counts."""
    rows = [row for package in results.values() for row in package["classes"].values()]
    holds = sum(row["holds"] for row in rows)
    built = sum(row["holds"] and row["by"] == "build" for row in rows)
    left = sum(package["known"] - len(package["classes"]) for package in results.values())
    lines = [
        f"Of {len(rows)} classes {holds} hold every clause, {built} of them through a function of "
        f"the model.{f' {left} more are not tried yet.' if left else ''}",
    ]
    for package, found in results.items():
        own = found["classes"]
        good = {name: row for name, row in own.items() if row["holds"]}
        lines += ["", f"### {package}", ""]
        lines += [f"Version {found['version']}: {len(good)} of {len(own)} hold every clause.", ""]
        lines += ["| class | by | holds | why not |", "|---|---|---|---|"]
        for name, row in own.items():
            why = f"{row['clause']}: {row['why']}" if row["clause"] else row["why"]
            why = why.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_")
            answer = "yes" if row["holds"] else "no"
            lines.append(f"| `{name}` | `{row['by']}` | {answer} | {why} |")
    return "\n".join(lines)


def written(text: str, results: dict[str, Any]) -> str:
    """A page with the tables between its two marks."""
    head, _, rest = text.partition("<!-- zoo -->\n")
    _, _, tail = rest.partition("<!-- /zoo -->")
    return f"{head}<!-- zoo -->\n{page(results)}\n<!-- /zoo -->{tail}"


def _import_all() -> None:
    """Import here what every class needs, so that no process of a class has to."""
    part = registry.describe("optimizer", "torch.optim:SGD")
    next(clauses(part, part.target, 64))  # prepares the runs; a backward pass would forbid the fork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--missing", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    _import_all()
    for package, distribution in PACKAGES.items():
        own = results.setdefault(package, {"version": "", "known": 0, "classes": {}})
        names = optimizers(package)
        own |= {"version": version(distribution), "known": len(names)}
        for name in names:
            known = options.missing and name in own["classes"]
            if options.only in f"{package}:{name}" and not known:
                own["classes"][name] = measured(package, name, options.seconds)
                print(f"{package}:{name} {own['classes'][name]}", flush=True)
                own["classes"] = dict(sorted(own["classes"].items()))
                MEASURED.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
