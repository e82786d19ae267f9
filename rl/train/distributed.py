"""The processes of a training run: whether they are those that were asked for, and how they exchange what they sampled."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from typing import Any, cast

import torch.distributed
from accelerate.utils import DistributedType  # type: ignore[import-untyped]
from transformers import TrainingArguments

from guiderail.agent.errors import SetupError
from guiderail.rl.rollout.processes import ALONE, Processes


def processes(apart: bool = False) -> Processes:
    """As torchrun's environment says; one process without it. apart: they exchange over a group of their own, made at the first
    exchange, which another thread may use while this one trains."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    numbers = count()
    return Processes(int(os.environ.get("RANK", "0")), world, _Gather(apart), lambda: StoreLedger(next(numbers)))


class _Gather:
    def __init__(self, apart: bool):
        self.apart, self.group = apart, None

    def __call__(self, item: Any) -> list[Any]:
        if self.apart and self.group is None:
            self.group = torch.distributed.new_group(backend="gloo")
        everyone: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, item, group=self.group)
        return everyone


class StoreLedger:
    """A `rl.rollout.dispatch.Ledger` in the key-value store over which the processes found each other. number: of the ledger in
    this run. Making one removes the ledger before the last, which every process has left."""

    def __init__(self, number: int):
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        for key in ("taken", "settled"):
            store.delete_key(f"guiderail/{number - 2}/{key}")
        self._store = cast(Any, torch.distributed.distributed_c10d.PrefixStore(f"guiderail/{number}", store))
        self._store.append("settled", "")

    def take(self) -> int:
        return int(self._store.add("taken", 1)) - 1

    def settle(self, place: int, learned: bool) -> None:
        self._store.append("settled", f"{place}{'+' if learned else '-'} ")

    def settled(self) -> dict[int, bool]:
        said = self._store.get("settled").decode().split()
        return {int(one[:-1]): one[-1] == "+" for one in said}


def wait_for_the_others() -> None:
    """The last thing that each process of a run does, so that none leaves while another still needs its answer. Collective.

    The process groups are not destroyed: their threads live on where parameters of ZeRO-3 hold them, and `rl.runs.ending`
    ends a process that has groups without stumbling over them.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def free_at_the_end() -> None:
    """Take the names off DeepSpeed's exchange buffers, 69 MB a process in /dev/shm, which nobody else ever removes. Their
    memory then goes with the processes, however these end. Collective, after all have opened them."""
    place = [os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")]
    name = "_".join(["deepspeed_allreduce_buffer", str(os.getuid()), *place, str(torch.distributed.get_rank())])
    torch.distributed.barrier()
    Path("/dev/shm", name).unlink(missing_ok=True)


def check_launch(accelerator: Any, args: TrainingArguments, processes: int | None) -> None:
    """Launchers fall back to one process or to no DeepSpeed without a word; this turns it into a SetupError."""
    wanted = processes if processes is not None else int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        raise SetupError(
            f"{accelerator.num_processes} process(es) run, {wanted} were asked for; start with "
            f"`torchrun --nproc_per_node {wanted}` (not `accelerate launch --cpu`)"
        )
    deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    if deepspeed != bool(args.deepspeed):
        raise SetupError(
            f"DeepSpeed is {'on' if deepspeed else 'off'}, but the run asks for {args.deepspeed or 'none'}; "
            "start with torchrun and pass the DeepSpeed config to this program only"
        )
    if deepspeed:
        asked = json.loads(Path(str(args.deepspeed)).read_text())["zero_optimization"]["stage"]
        runs = accelerator.state.deepspeed_plugin.zero_stage
        if asked != runs:
            raise SetupError(f"ZeRO stage {runs} runs, {args.deepspeed} asks for {asked}; unset ACCELERATE_* variables")
        free_at_the_end()
