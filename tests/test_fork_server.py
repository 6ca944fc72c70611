"""The server that forks the workers: its input, and the modules that it may load."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

from commands import interruptible
from hptransfer.cost.count import count
from hptransfer.spec import Unit
from hptransfer.train.prepare import prepare
from units import data_for, spec

SCRIPT = """
import multiprocessing as mp

if __name__ == "__main__":
    from probe import loaded
    from hptransfer.run import fork_server
    fork_server.start()
    print("started", flush=True)
    ours, theirs = mp.Pipe()
    process = fork_server.context().Process(target=loaded, args=(theirs,))
    process.start()
    print(ours.recv(), flush=True)
"""


PROBE = """
import sys

def loaded(pipe):
    pipe.send([name in sys.modules for name in ("hptransfer.run.workers", "torch._dynamo")])
"""


def script(folder: Path) -> list[str]:
    path = folder / "elsewhere" / "script.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    (path.parent / "probe.py").write_text(PROBE)  # a worker imports nothing from the script
    return [sys.executable, str(path)]


def test_workers_begin_with_torch_loaded_and_nothing_of_the_current_folder(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("torch.py", "hptransfer.py", "random.py"):
        (here / name).write_text("open('loaded', 'w')")
    done = subprocess.run(script(tmp_path), cwd=here, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["started", "[True, False]"], done.stderr
    assert not (here / "loaded").exists()


def test_ctrl_c_while_it_imports_is_the_callers_alone(tmp_path: Path) -> None:
    process = subprocess.Popen(
        script(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    time.sleep(0.3)  # the server is importing torch
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count(b"KeyboardInterrupt") == 1, errors.decode()


LOADED = """
import pickle, sys
from pathlib import Path
import torch
from hptransfer.train import engine
from hptransfer.train.prepare import prepare
unit, data, params, flops = pickle.loads(Path(sys.argv[1]).read_bytes())
prepared = prepare(unit.spec, data, params=params, flops=flops)
for _ in engine.train(unit, data, torch.device("cpu"), prepared=prepared):
    pass
sys.exit("torch._dynamo" in sys.modules)
"""


def test_a_run_whose_parameters_are_known_does_not_load_the_compiler(tmp_path: Path) -> None:
    run, data = spec("scion", "gpt", steps=2), data_for("gpt")
    known = prepare(run, data)
    path = tmp_path / "run.pkl"
    unit = Unit((run, run.point(-5.0, 0)))
    path.write_bytes(pickle.dumps((unit, data, known.params, count(known).flops)))
    subprocess.run([sys.executable, "-c", LOADED, str(path)], check=True)
