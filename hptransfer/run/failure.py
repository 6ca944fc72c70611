"""The record of a run that failed."""

import time

import torch

from hptransfer.run.workers import Ended
from hptransfer.spec import RunRecord, RunSpec
from hptransfer.train import engine


def failure(spec: RunSpec, ended: Ended, device: torch.device) -> RunRecord:
    """The record of a run that failed where its unit was placed."""
    nan, unit, placement = float("nan"), ended.unit, ended.placement
    assert placement is not None, "a unit that a worker of this session trained"
    env = engine.environment(device, unit.lanes, placement.micro_batch or spec.batch)
    env |= {"threads": placement.threads, "recompute": placement.recompute and unit.lanes == 1}
    return RunRecord(
        spec=spec,
        status="failed",
        loss=nan,
        loss_init=nan,
        train_loss=nan,
        train_mean=nan,
        curve=[],
        seconds=0.0,
        flops=0.0,
        peak_memory=0,
        env=env,
        finished=time.time(),
        error=ended.traceback or ended.error,
    )
