"""Where vLLM samples for the trainer, and how it gets new weights: servers of their own environment, or an engine in this
process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from trl.trainer.utils import ensure_master_addr_port

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.served.vllm.client import Refused, Server
from guiderail.agent.served.vllm.colocated import ColocatedEngine
from guiderail.agent.served.vllm.policy import Engine
from guiderail.agent.served.vllm.servers import OneServer, ServerEngine
from guiderail.agent.served.vllm.setting_up import SPECULATIONS, Start, check_version
from guiderail.agent.served.waiting import Failed
from guiderail.rl.sections import Rollout

ADAPTER = "trained"
"""The name of the trained adapter in vLLM."""


class Sampler(Protocol):
    """An engine whose weights can be changed. shared: all processes sample there, and the main process changes it; else each
    has its own. dtype: of its weights, such as "bfloat16". drafting: whether it speculates. asleep: whether it sleeps, until
    `take`."""

    shared: bool
    dtype: str
    drafting: bool
    asleep: bool

    @property
    def engine(self) -> Engine: ...

    def places(self) -> list[tuple[str, Engine]]:
        """Each program that samples, as an engine of its own."""

    def take(self, folder: Path, adapter: bool, version: str) -> list[str]:
        """Load what is in the folder and forget what was computed before. Returns the places that have it now."""

    def settle(self, version: str, places: list[str], adapter: bool) -> None:
        """Sample with these weights from now on, at these places."""

    def sleep(self) -> None:
        """Give memory back until `take` or `wake`. Raises SetupError."""

    def wake(self) -> None:
        """Answer again, with the weights from before."""

    def lose(self, place: str, crash: EnvCrashed) -> None:
        """Sample there no more. Raises where none is left."""


class Servers:
    """`rollout.server`: one vLLM server or several. start: how they should have been started.

    Raises SetupError for a server that is not there, or was started otherwise.
    """

    shared = True

    def __init__(self, settings: Rollout, trainer: Any, start: Start):
        self.start = start
        servers = [Server(url, settings.deadline) for url in settings.servers]
        said = [self._meet(server, settings.timeout) for server in servers]
        self.dtype = str(said[0]["model_config"]["dtype"]).removeprefix("torch.")
        self.drafting, self.asleep = any(_method(one) != "off" for one in said), False
        if settings.sleep:
            for server in servers:
                _woken(server)
        self._engine = ServerEngine(servers, trainer.encoder, settings.concurrency, trainer.accelerator.process_index)

    @property
    def engine(self) -> ServerEngine:
        return self._engine

    def places(self) -> list[tuple[str, Engine]]:
        """As `Sampler.places`; those that are gone are in it too, so that all processes count alike."""
        return [(server.url, OneServer(self._engine, server)) for server in self._engine.servers]

    def take(self, folder: Path, adapter: bool, version: str) -> list[str]:
        """As `Sampler.take`, all servers at once. Raises SetupError for a server that refuses."""

        def give(server: Server) -> bool:
            try:
                with _awakening(server) if self.asleep else server.paused():
                    if adapter:
                        server.load_adapter(ADAPTER, str(folder))
                    else:
                        server.load_weights(str(folder))
                    server.forget()
                server.name_weights(version)
            except Failed as failed:
                self._engine.lose(server, str(failed))
                return False
            except Refused as refused:
                raise SetupError(
                    f"the vLLM server at {server.url} does not take the weights in {folder} ({refused}); it must see that folder "
                    f"(rollout.weights_folder) and be started with: {self.start.command()}"
                ) from None
            return True

        servers = self._engine.servers
        with ThreadPoolExecutor(len(servers)) as pool:
            took = [*pool.map(give, servers)]
        return [server.url for server, has in zip(servers, took, strict=True) if has]

    def settle(self, version: str, places: list[str], adapter: bool) -> None:
        self.asleep = False
        self._engine.settle(version, places, ADAPTER if adapter else None)
        assert self._engine.alive

    def sleep(self) -> None:
        """As `Sampler.sleep`. A server that is gone meanwhile is met again at the next `take`."""
        for server in self._engine.alive:
            try:
                server.sleep()
            except Failed as failed:
                self._engine.lose(server, str(failed))
            except Refused as refused:
                raise SetupError(
                    f"the vLLM server at {server.url} does not sleep ({refused}); start it with: {self.start.command()}"
                ) from None

    def wake(self) -> None:
        for server in self._engine.servers:
            _woken(server)

    def lose(self, place: str, crash: EnvCrashed) -> None:
        [server] = [server for server in self._engine.servers if server.url == place]
        self._engine.lose(server, str(crash))
        assert self._engine.alive

    def _meet(self, server: Server, seconds: float) -> dict[str, Any]:
        """The server's settings. Raises SetupError, with the command that starts it as it should be."""

        def wrong(why: str) -> SetupError:
            return SetupError(f"vLLM at {server.url}: {why}; start the server with: {self.start.command()}")

        try:
            server.wait_until_up(seconds)
            check_version(server.version(), server.url, self.start)
            said = server.settings()
            server.weights()
        except Failed as failed:
            raise wrong(f"cannot be reached or does not answer: {failed}") from None
        except Refused as refused:
            raise wrong(f"it lacks the routes that training needs ({refused})") from None
        except KeyError as error:
            raise wrong(f"it does not answer as vLLM does (no {error})") from None
        if (why := _misfit(said, self.start)) is not None:
            raise wrong(why)
        return said


@contextmanager
def _awakening(place: Server | ColocatedEngine) -> Iterator[None]:
    """A sleeper's weights are back inside, and its caches after it: until then there is room for both kinds of weights."""
    place.wake("weights")
    yield
    place.wake("kv_cache")


def _woken(server: Server) -> None:
    """Wake a server that sleeps. One that does not answer is met where it is needed."""
    with suppress(Failed, Refused):
        if server.sleeping():
            with _awakening(server):
                """Nothing to load."""


def _method(said: dict[str, Any]) -> str:
    """How a server with these settings drafts."""
    return str((said.get("speculative_config") or {}).get("method") or "off")


def _misfit(said: dict[str, Any], start: Start) -> str | None:
    """What is wrong with a server's settings."""
    model, lora = said["model_config"], said.get("lora_config") or {}
    if model["logprobs_mode"] != "raw_logprobs":
        return f"it reports {model['logprobs_mode']}, the trainer needs raw_logprobs"
    if (most := model.get("max_model_len")) is not None and most < start.context:
        return f"it takes {most} tokens, the longest prompt and answer have {start.context}"
    if start.rank and not lora:
        return "it takes no adapters, and this run trains one"
    if start.rank and lora["max_lora_rank"] < start.rank:
        return f"it takes adapters of rank {lora['max_lora_rank']}, this run trains one of rank {start.rank}"
    if start.tower and not lora.get("enable_tower_connector_lora"):
        return "it ignores an adapter's part in the vision tower, and this run trains that part"
    wanted = start.speculation
    if wanted not in (None, "auto") and wanted != _method(said):
        return f"its speculation is {_method(said)}, this run's is {wanted}"
    if start.sleep and not model.get("enable_sleep_mode"):
        return "it cannot sleep, and this run has rollout.sleep=true"
    return None


class Colocated:
    """An engine in each process of the trainer, which takes the share `rollout.memory` of its GPU."""

    shared = False

    def __init__(self, settings: Rollout, trainer: Any, start: Start):
        from vllm import LLM

        accelerator = trainer.accelerator
        os.environ["RANK"] = str(accelerator.process_index)
        os.environ["LOCAL_RANK"] = str(accelerator.local_process_index)
        os.environ["WORLD_SIZE"] = str(accelerator.num_processes)
        ensure_master_addr_port()
        lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": start.rank} if start.rank else {}
        if start.tower:
            lora["enable_tower_connector_lora"] = True
        drafts = SPECULATIONS.get(start.speculation or "off")
        self.drafting, self.asleep = drafts is not None, False
        try:
            llm = LLM(
                model=start.model,
                gpu_memory_utilization=settings.memory,
                max_model_len=start.context,
                max_num_seqs=trainer.max_batch,
                limit_mm_per_prompt={"image": start.images, "video": 0},
                distributed_executor_backend="external_launcher",
                seed=accelerator.process_index,
                logprobs_mode="raw_logprobs",
                enable_prefix_caching=True,
                enable_sleep_mode=start.sleep,
                speculative_config=drafts,
                **lora,
            )
        except (RuntimeError, ValueError, OSError) as error:
            said = " ".join(str(error).split())[:300]
            raise SetupError(f"vLLM in this process: {said}; set rollout.engine=vllm-server") from error
        self._engine = ColocatedEngine(llm, trainer.encoder)
        self.dtype = str(llm.llm_engine.model_config.dtype).removeprefix("torch.")
        accelerator.wait_for_everyone()

    @property
    def engine(self) -> ColocatedEngine:
        return self._engine

    def places(self) -> list[tuple[str, Engine]]:
        return [("this process", self._engine)]

    def take(self, folder: Path, adapter: bool, version: str) -> list[str]:
        with _awakening(self._engine) if self.asleep else nullcontext():
            if adapter:
                self._engine.load_adapter(ADAPTER, str(folder))
            else:
                self._engine.load_weights(str(folder))
            self._engine.forget()
        self.asleep = False
        return ["this process"]

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        with _awakening(self._engine):
            """Nothing to load."""

    def settle(self, version: str, places: list[str], adapter: bool) -> None:
        """Nothing: the engine samples with what it has."""

    def lose(self, place: str, crash: EnvCrashed) -> None:
        raise crash
