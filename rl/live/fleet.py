"""Live worlds in worker processes, the policy here: workers send prompts and receive answers.

Whoever is ready goes into the next batch, so a slow device delays its own attempt alone; while the policy answers, the workers
act. A worker's orders are leases: they end when it dies, or owes something and is silent for longer than one action may take.
It is then killed with its children, its orders go to others, and a new worker starts. A spare, which has its world open already,
takes the place at once, and the new worker is the next spare. A worker is also replaced after `recycle` orders, because
emulators die after some dozens of resets.

What is sampled depends on a walk's key alone, not on the worker or on the batch, up to the rounding of batched arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import Policy, Request, Sampling
from guiderail.agent.types import Completion, Prompt, Rollout
from guiderail.rl.live.process import Here, Start, Supervised
from guiderail.rl.live.site import SiteSpec, serve
from guiderail.rl.live.wire import Wire
from guiderail.rl.rollout.drive import Asking, Key, Waiting, Walks, answers, seed_of
from guiderail.rl.rollout.live import Order, opening
from guiderail.rl.rollout.plan import Opened

T = TypeVar("T")
MOST_DEATHS = 3
"""Workers that may die in a row without a finished order, per worker, before the run is given up."""
GRACE = 30.0
"""Seconds that a worker may be silent beyond what one action may take."""
LINGER = 0.005
"""Seconds without a new prompt after which a batch goes to the policy, however small it is."""


class Placed(Generator[Prompt, Completion, Any]):
    """An order for the fleet. It stands in a plan where a walk in this process would stand, and cannot be run here."""

    def __init__(self, order: Order):
        self.order = order

    def send(self, value: Any) -> Prompt:
        raise RuntimeError("an order for the fleet is run by Fleet.drive")

    def throw(self, *error: Any) -> Prompt:
        raise RuntimeError("an order for the fleet is run by Fleet.drive")


@dataclass
class _Walk:
    """asked: answers in the present try. tries, spent: workers that died over it, and answers that went with them."""

    place: int
    key: Key
    order: Order
    asked: int = 0
    tries: int = 0
    spent: int = 0


class _Todo:
    """Walks that no worker has been given yet. over: there are no more."""

    def __init__(self, walks: Walks[Any]):
        self._waiting, self._count = Waiting(walks), 0

    @property
    def over(self) -> bool:
        return self._waiting.over

    def take(self) -> _Walk | None:
        pair = self._waiting.take()
        if pair is None:
            return None
        self._count += 1
        return _Walk(self._count - 1, pair[0], cast(Placed, pair[1]).order)


@dataclass
class _Worker(Supervised):
    """orders: under way there, by number. waiting: those of them for whose answer it waits. given: since it started. said: why
    it ended. spare: it gets no orders yet. open: its world is."""

    orders: dict[int, _Walk] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    given: int = 0
    wire: Wire | None = None
    said: str = ""
    spare: bool = False
    open: bool = False

    def send(self, message: Any) -> None:
        """A closed pipe is left for `failure` to find."""
        try:
            if self.wire is not None:
                self.wire.send(message)
        except OSError:
            self.disconnect()


class Fleet:
    """workers, spares: processes. recycle: orders after which a worker is replaced; None: never. first: the number of the
    first worker. start: what starts a worker, on this machine or on another. `drive` stands in for `rl.rollout.drive.drive`."""

    def __init__(
        self,
        spec: SiteSpec,
        workers: int,
        recycle: int | None = None,
        first: int = 0,
        spares: int = 0,
        start: Start = Here,
    ):
        self.spec, self.recycle = spec, recycle
        self.silence = spec.patience.longest + GRACE
        numbers = range(workers + spares)
        self.workers = [_Worker(n, serve, (spec, first + n), start=start, spare=n >= workers) for n in numbers]
        self._number = self._deaths = 0
        self._waited = self._answered = 0.0
        self.replaced = self.recycled = 0
        self.closed = False

    # --------------------------------------------------------------------------------------------------- what is run

    def begin(self, order: Order) -> Asking[Any]:
        """An order as a walk of a plan."""
        return Placed(order)

    def drive(
        self,
        walks: Walks[T],
        policy: Policy,
        sampling: Sampling,
        *,
        width: int = 64,
        on_finished: Callable[[int, T], None] | None = None,
    ) -> list[T]:
        """Raises SetupError when a worker does, and when workers keep dying."""
        todo = _Todo(walks)
        again: list[_Walk] = []
        results: dict[int, T] = {}
        ready: list[tuple[_Worker, int, Prompt]] = []

        def finish(walk: _Walk, result: Any) -> None:
            results[walk.place] = _tried(result, walk)
            if on_finished is not None:
                on_finished(walk.place, results[walk.place])

        while True:
            more = self._assign(todo, again, width)
            under_way = sum(len(worker.orders) for worker in self.workers)
            if not under_way and not again and not more:
                break
            if not under_way:  # every worker is still starting, or no walk may begin yet
                time.sleep(LINGER)
            self._listen(ready, under_way, finish)
            self._replace_failed(again, finish, ready)
            if ready:
                self._answer(ready, policy, sampling)
                ready.clear()
        return [results[place] for place in sorted(results)]

    def _assign(self, todo: _Todo, again: list[_Walk], width: int) -> bool:
        """Orders to the workers with the fewest, as long as fewer than `width` are under way. Returns whether more may be left
        in `todo`. Raises EnvCrashed when another thread has closed the fleet."""
        if self.closed:
            raise EnvCrashed("the fleet was closed")
        for worker in self.workers:
            if worker.start_if_due() and worker.connection is not None:
                worker.wire, worker.given, worker.open = Wire(worker.connection, self.silence), 0, False
        starting = any(w.process is not None and not w.opened for w in self.workers if not w.spare)
        if starting and not any(worker.orders for worker in self.workers):
            return True  # or the first to open would get everything
        while sum(len(worker.orders) for worker in self.workers) < width:
            free = [w for w in self.workers if w.wire is not None and not w.spare and not self._full(w)]
            if not free:
                return True
            walk = again.pop() if again else todo.take()
            if walk is None:
                return not todo.over
            worker = min(free, key=lambda w: len(w.orders))
            walk.asked = 0
            self._number += 1
            worker.orders[self._number] = walk
            worker.given += 1
            if len(worker.orders) == len(worker.waiting) + 1:
                worker.heard = time.monotonic()
            worker.send(("begin", self._number, walk.order))
        return True

    def _full(self, worker: _Worker) -> bool:
        return self.recycle is not None and worker.given >= self.recycle

    def _listen(
        self, ready: list[tuple[_Worker, int, Prompt]], under_way: int, finish: Callable[[_Walk, Any], None]
    ) -> None:
        """Take what workers say until half of all walks wait for an answer, or nobody says anything for a moment."""
        started = time.monotonic()
        while 2 * len(ready) < under_way:
            open_ = {w.connection: w for w in self.workers if w.connection is not None}
            heard = wait([*open_], timeout=LINGER if ready else 0.5)
            for connection in heard:
                self._hear(open_[cast(Connection, connection)], ready, finish)
            under_way = sum(len(worker.orders) for worker in self.workers)
            if not heard or not open_:
                break
        self._waited += time.monotonic() - started

    def _hear(
        self, worker: _Worker, ready: list[tuple[_Worker, int, Prompt]], finish: Callable[[_Walk, Any], None]
    ) -> None:
        assert worker.wire is not None
        try:
            message = worker.wire.receive()
        except (EOFError, OSError):
            worker.disconnect()
            return
        worker.heard = time.monotonic()
        match message:
            case ("open",):
                worker.open = True
            case ("asks", int(number), prompt):
                worker.waiting.add(number)
                ready.append((worker, number, prompt))
            case ("done", int(number), result):
                self._deaths = 0
                finish(worker.orders.pop(number), result)
            case ("setup", text):
                raise SetupError(str(text))
            case ("died", text):
                worker.said = str(text)

    def _answer(self, ready: list[tuple[_Worker, int, Prompt]], policy: Policy, sampling: Sampling) -> None:
        started = time.monotonic()
        asked = [(w, number, w.orders[number], prompt) for w, number, prompt in ready if number in w.orders]
        requests = [
            Request(prompt, seed_of(*walk.key, walk.asked), started + self.spec.patience.attempt)
            for _, _, walk, prompt in asked
        ]
        for (worker, number, walk, _), said in zip(asked, answers(policy, requests, sampling), strict=True):
            walk.asked += 1
            worker.waiting.discard(number)
            if len(worker.orders) == len(worker.waiting) + 1:
                worker.heard = time.monotonic()
            worker.send(("fault", number, str(said)) if isinstance(said, EnvCrashed) else ("said", number, said))
        self._answered += time.monotonic() - started

    # ------------------------------------------------------------------------------------------------- who is replaced

    def _replace_failed(
        self, again: list[_Walk], finish: Callable[[_Walk, Any], None], ready: list[tuple[_Worker, int, Prompt]]
    ) -> None:
        for worker in self.workers:
            idle = len(worker.orders) == len(worker.waiting)
            reason = worker.failure(self.silence, idle)
            if reason is None:
                if self._full(worker) and not worker.orders:
                    self.recycled += 1
                    worker.stop(2)
                    worker.wire, worker.given = None, 0
                    self._stand_in(worker)
                continue
            reason = f"worker {worker.number} died: {worker.said}" if worker.said else reason
            self._deaths += 1
            self.replaced += 1
            if self._deaths > MOST_DEATHS * len(self.workers):
                raise SetupError(f"workers keep dying ({reason}); repair that, then go on with --resume")
            while worker.connection is not None and worker.connection.poll():
                self._hear(worker, [], finish)
            worker.stop(0)
            for walk in worker.orders.values():
                walk.spent += walk.asked
                if walk.tries < self.spec.retries:
                    walk.tries += 1
                    again.append(walk)
                else:
                    finish(walk, lost(walk.order, reason))
            ready[:] = [one for one in ready if one[0] is not worker]
            worker.orders, worker.waiting, worker.wire, worker.given, worker.said = {}, set(), None, 0, ""
            worker.start_at = time.monotonic() + min(30.0, 2.0 ** (self._deaths - 2))
            self._stand_in(worker)

    def _stand_in(self, gone: _Worker) -> None:
        """A spare, if there is one, takes the place of a worker that has ended."""
        spare = next((w for w in self.workers if w.spare and w.open and w.wire is not None), None)
        if spare is not None and not gone.spare:
            spare.spare, gone.spare = False, True

    def take_metrics(self) -> dict[str, float]:
        """Since they were last taken."""
        waited, answered = self._waited, self._answered
        self._waited = self._answered = 0.0
        return {
            "fleet/policy_waits": waited / max(1e-9, waited + answered),
            "fleet/workers_replaced": float(self.replaced),
            "fleet/workers_recycled": float(self.recycled),
        }

    def close(self) -> None:
        self.closed = True
        for worker in self.workers:
            worker.stop(0 if worker.orders else 5)


def lost(order: Order, reason: str) -> Rollout | Opened:
    """What stands for an order of which machines left nothing."""
    function, arguments = order
    if function is opening:
        return Opened(faults=1)
    name, sample = (arguments[0], arguments[1]) if len(arguments) == 2 else (arguments[1], arguments[3])
    return Rollout(name, sample, (), "crashed", reason=reason)


def _tried(result: Any, walk: _Walk) -> Any:
    """The result with the tries and answers that were lost before it."""
    if isinstance(result, Rollout):
        return replace(result, tries=result.tries + walk.tries, spent=result.spent + walk.spent)
    if isinstance(result, Opened):
        return replace(result, turns=result.turns + walk.spent, faults=result.faults + walk.tries)
    return result
