"""How the tiny base model learns to read and to point, before it is an agent.

A plain Qwen3-VL trained on action data only stalls: it does not learn "the word in the goal, the same word on the screen,
its place" from one action per picture. Three aids, used in training only, let it learn this in minutes. In stage 1 the vision
tower alone learns which word stands in which cell. In stage 2 many questions share one picture (`rl.tiny.packs`), and two
attention heads in each of two layers learn where to attend: from a word that is on the screen to the cells that show it,
and from a token before a place, a state or a text to the cells where it is read. The saved weights hold nothing of these
aids.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guiderail.agent.errors import SetupError
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.shipped import shipped
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import demonstrate, draws, task
from guiderail.rl.tiny.losses import Heads, attention_loss, run_language_model, run_vision
from guiderail.rl.tiny.model import build_tiny
from guiderail.rl.tiny.packs import IGNORED, AttentionTargets, Batch, Pack, Packer, make_batch
from guiderail.rl.tiny.questions import Question, questions, where
from guiderail.rl.tiny.recorded_screens import RecordedScreen
from guiderail.rl.tiny.screens import SIZE, DrawnScreen, generic_screens, pocket_screens, vocabulary

STATE_FILE, LOG_FILE = "pretrain.pt", "pretrain.jsonl"
READING_COST = 1 / 6  # measured on a CPU
PLACES = 4
"""Elements that are asked for beside the expert's turn, at most."""


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of `tiny-base`.

    generic, pocket: screens per step. reading: the share of all work that is stage 1; there a step costs `READING_COST` of a
    step of stage 2. errands: agent-format questions per screen at the start and at the end of stage 2. reading_weight,
    attention_weight: weights of these losses beside the loss on answers, which is 1. attention_heads: heads per layer that
    are taught. mention_layer, answer_layer: which layers. muon, adam: learning rates. warm_up: steps at the start of each
    stage. decay_from: the share of all work at which the learning rates begin to fall.
    """

    seed: int = 0
    generic: int = 6
    pocket: int = 2
    reading: float = 0.1
    errands: tuple[int, int] = (3, 8)
    reading_weight: float = 0.3
    attention_weight: float = 0.5
    attention_heads: int = 2
    mention_layer: int = 1
    answer_layer: int = 2
    muon: float = 0.02
    adam: float = 2e-3
    warm_up: int = 100
    decay_from: float = 0.5


ON_RECORDINGS = Recipe(reading=0.01, muon=0.01, adam=1e-3, warm_up=30)
"""For a base that goes on with the screens of recordings."""


# ---------------------------------------------------------------------------------------------------------------- data


def build_base(out: Path, seed: int) -> Path:
    """Write the untrained model to `out`, with a tokenizer trained on the words of screens, goals, thoughts and questions."""
    texts = [*vocabulary(), *_texts()]
    words = dict.fromkeys(word for text in texts for word in re.findall(r"[^\W\d_]+|\d{1,2}:\d\d", text))
    return build_tiny(out, texts, "qwen3_vl", seed, screen=SIZE, merge=1, vocabulary=1500, words=tuple(words))


def _texts() -> Iterator[str]:
    """Goals, thoughts and turns of every Pocket template, and questions about screens with their answers."""
    for split in ("train", "heldout"):
        for name, seed in draws(100, 0, split):
            made = task(name, seed, split)
            yield made.goal
            for index, (_, step) in enumerate(demonstrate(made, Phone(made.start(), *SIZE))):
                yield step.thought
                yield made.say(step.thought, index)
    for screen in itertools.islice(generic_screens("train", 0), 100):
        for question in questions(screen, random.Random(0)):
            yield question.goal
            yield question.answer


def screens_of_step(recipe: Recipe, step: int) -> list[DrawnScreen]:
    """A function of seed and step, so that a resumed run sees the same screens as an uninterrupted one."""
    generic = generic_screens("train", recipe.seed, step * recipe.generic)
    pocket = pocket_screens("train", recipe.seed, step * recipe.pocket)
    return [*itertools.islice(generic, recipe.generic), *itertools.islice(pocket, recipe.pocket)]


def pack_all(screens: Sequence[DrawnScreen], packer: Packer, rng: random.Random, errands: int | None) -> list[Pack]:
    """Each screen with its questions. errands: None for no questions, as stage 1 has it."""
    asked = [[] if errands is None else questions(screen, rng, errands) for screen in screens]
    return [packer.pack(screen, some) for screen, some in zip(screens, asked, strict=True)]


def packs_of_step(
    recipe: Recipe, step: int, errands: int | None, packer: Packer, recorded: Sequence[RecordedScreen]
) -> list[Pack]:
    """As many of the recorded screens as a step takes, where there are any; else drawn ones."""
    rng = random.Random(f"questions-{recipe.seed}-{step}")
    if not recorded:
        return pack_all(screens_of_step(recipe, step), packer, rng, errands)
    count = recipe.generic + recipe.pocket
    places = [_place(recipe.seed, visit, len(recorded)) for visit in range(step * count, (step + 1) * count)]
    asked = [[] if errands is None else _asked(recorded[place], rng) for place in places]
    return [packer.pack(recorded[place], some) for place, some in zip(places, asked, strict=True)]


def _place(seed: int, visit: int, screens: int) -> int:
    """Each pass over the screens has an order of its own."""
    return _order(seed, visit // screens, screens)[visit % screens]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, screens: int) -> list[int]:
    order = list(range(screens))
    random.Random(f"recorded-{seed}-{epoch}").shuffle(order)
    return order


def _asked(screen: RecordedScreen, rng: random.Random) -> list[Question]:
    """The expert's turn, and the places of a few elements."""
    return [screen.step, *(where(shown) for shown in rng.sample(screen.named, min(PLACES, len(screen.named))))]


# ------------------------------------------------------------------------------------------------------------ training


class Pretraining:
    """The model with its training heads and optimizers. `save` and `load` keep all state."""

    def __init__(self, model: Any, packer: Packer, recipe: Recipe):
        self.model, self.packer, self.recipe = model, packer, recipe
        torch.manual_seed(recipe.seed)
        self.heads = Heads(model.config.text_config.hidden_size).to(model.device)
        inner, outer = _split(model)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(inner, lr=recipe.muon, weight_decay=0.0),
            torch.optim.AdamW([*outer, *self.heads.parameters()], lr=recipe.adam, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.rates = [recipe.muon, recipe.adam]
        self.layers = model.model.language_model.layers
        self._caught: dict[Any, dict[str, Any]] = {}
        for layer in (recipe.mention_layer, recipe.answer_layer):
            self.layers[layer].self_attn.register_forward_pre_hook(self._catch, with_kwargs=True)

    def _catch(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self._caught[module] = kwargs

    def _attention_loss(self, layer: int, targets: AttentionTargets, batch: Batch) -> Tensor:
        attention = self.layers[layer].self_attn
        return attention_loss(attention, self._caught[attention], targets, batch.pictures, self.recipe.attention_heads)

    def step(self, packs: Sequence[Pack], rate: float, reading_only: bool) -> dict[str, float]:
        """One update; returns the losses by name. rate: factor on the learning rates. reading_only: stage 1."""
        recipe, embedding = self.recipe, self.model.get_input_embeddings().weight
        batch = make_batch(packs, self.packer).to(self.model.device)
        cells, deep = run_vision(self.model, batch)
        losses = {"reading": self.heads(cells, embedding, batch)}
        if not reading_only:
            hidden = run_language_model(self.model, batch, cells, deep)
            asked = batch.labels != IGNORED
            losses["words"] = F.cross_entropy(F.linear(hidden[asked], embedding), batch.labels[asked])
            losses["answers"] = self._attention_loss(recipe.answer_layer, batch.answers, batch)
            losses["mentions"] = self._attention_loss(recipe.mention_layer, batch.mentions, batch)
        attending = recipe.attention_weight
        weights = {"answers": attending, "mentions": attending}
        weights |= {} if reading_only else {"reading": recipe.reading_weight}
        total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.heads.parameters()], 1.0)
        for optimizer, full in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * full
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._caught.clear()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def save(self, file: Path, progress: dict[str, float]) -> None:
        """All state into one file, which appears whole or not at all."""
        state = {
            "progress": progress,
            "recipe": json.dumps(asdict(self.recipe)),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)

    def load(self, file: Path) -> dict[str, float]:
        """All state of `save`; returns the progress. Raises SetupError when the file belongs to another recipe, or is
        broken."""
        try:
            state = torch.load(file, map_location=self.model.device, weights_only=True)
            if state["recipe"] != json.dumps(asdict(self.recipe)):
                raise SetupError(
                    f"{file} was written with another recipe or seed; resume with the same one, or start anew"
                )
            self.model.load_state_dict(state["model"])
            self.heads.load_state_dict(state["heads"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            progress: dict[str, float] = state["progress"]
        except (OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, UnpicklingError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SetupError(
                f"{file} does not hold a whole state of this recipe ({said}); start again in another --out"
            ) from None
        return progress


def _split(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Weight matrices, for Muon; the rest (embeddings, convolutions, norms, biases), for Adam."""
    inner: list[Tensor] = []
    outer: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (inner if parameter.ndim == 2 and "embed" not in name else outer).append(parameter)
    return inner, outer


def pretrain(
    out: Path,
    recipe: Recipe,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    resume: bool = False,
    every: int = 100,
    screens: int = 32,
    base: str | None = None,
    recorded: Sequence[RecordedScreen] = (),
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Train into the folder `out`, which then loads like any checkpoint; returns the last line of its log.

    steps or minutes: give exactly one. With steps, equal arguments give equal bytes on equal machines. With minutes of
    training time, the schedule follows the clock. Every `every` steps the folder is saved, `screens` held-out screens of
    each source are scored, and one line goes to LOG_FILE and to `report`. resume: go on from the last such point of the same
    recipe. base, recorded: goes on from this model, on these screens but for up to `screens` of them, a tenth at most, which are
    scored instead of drawn ones. Raises SetupError for arguments or a folder that do not fit.
    """
    if (steps is None) == (minutes is None):
        raise SetupError(f"pretrain: give exactly one of steps and minutes, got {steps} and {minutes}")
    state = out / STATE_FILE
    if resume and not state.is_file():
        raise SetupError(f"{out} has no {STATE_FILE} to resume from; start without --resume")
    if not resume:
        if (out / "model.safetensors").is_file():
            raise SetupError(f"{out} holds a model already; give an empty folder, or --resume")
        _begin(out, recipe.seed, base)
    model = load_model(out, device, "float32").train()
    size = (recorded[0].picture.width, recorded[0].picture.height) if recorded else SIZE
    packer = Packer(load_encoder(out), model.model.get_rope_index, size)
    shuffled = random.Random(f"held-out-{recipe.seed}").sample(recorded, len(recorded))
    apart = min(screens, -(-len(shuffled) // 10))
    held, recorded = shuffled[:apart], shuffled[apart:]
    work = Pretraining(model, packer, recipe)
    progress = work.load(state) if resume else {"step": 0, "minutes": 0.0, "reading_steps": 0}
    row, losses = _last_line(out) if resume else {}, dict[str, float]()
    begun = time.perf_counter() - 60 * progress["minutes"]
    while (share := _share(progress, recipe, steps, minutes)) < 1:
        step, reading = int(progress["step"]), share < recipe.reading
        in_stage = step - (0 if reading else int(progress["reading_steps"]))
        errands = round(recipe.errands[0] + (recipe.errands[1] - recipe.errands[0]) * share)
        packs = packs_of_step(recipe, step, None if reading else errands, packer, recorded)
        losses = work.step(packs, _rate(recipe, share, in_stage), reading)
        progress["step"] += 1
        progress["reading_steps"] += reading
        progress["minutes"] = (time.perf_counter() - begun) / 60
        if progress["step"] % every == 0 or progress["step"] == steps:
            row = _save_point(out, work, progress, losses, screens, held, report)
    if not row or row["step"] != progress["step"]:
        row = _save_point(out, work, progress, losses, screens, held, report)
    return row


def _begin(out: Path, seed: int, base: str | None) -> None:
    """The model that training starts from, in `out`."""
    if base is None:
        build_base(out, seed)
        return
    out.mkdir(parents=True, exist_ok=True)
    for file in Path(shipped(base)).iterdir():
        if file.suffix in (".json", ".jinja", ".txt", ".safetensors"):
            shutil.copy(file, out / file.name)


def _share(progress: dict[str, float], recipe: Recipe, steps: int | None, minutes: float | None) -> float:
    """The share of the work that is done; 1 ends the training."""
    if steps is None:
        return progress["minutes"] / (minutes or 1.0)
    if progress["step"] >= steps:
        return 1.0
    work = steps / (recipe.reading / READING_COST + 1 - recipe.reading)
    done = progress["step"] - (1 - READING_COST) * progress["reading_steps"]
    return min(done / work, 0.999)


def _rate(recipe: Recipe, share: float, in_stage: int) -> float:
    """Factor on the learning rates: each stage warms up; from `decay_from` on it falls to 1/50."""
    fall = 1 - 0.98 * max(0.0, share - recipe.decay_from) / (1 - recipe.decay_from)
    return fall * min(1.0, (in_stage + 1) / recipe.warm_up)


def _last_line(out: Path) -> dict[str, Any]:
    """The last whole line of the log; empty where it has none."""
    file = out / LOG_FILE
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    row: dict[str, Any] = json.loads(lines[-2]) if len(lines) > 1 else {}
    return row


def _save_point(
    out: Path,
    work: Pretraining,
    progress: dict[str, float],
    losses: dict[str, float],
    screens: int,
    held: Sequence[RecordedScreen],
    report: Callable[..., None],
) -> dict[str, Any]:
    work.model.save_pretrained(out)
    work.save(out / STATE_FILE, progress)
    scores = quick_score(work.model, work.packer, screens, held)
    row = {**progress, **{f"loss_{name}": round(value, 4) for name, value in losses.items()}, **scores}
    with (out / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    report(row)
    return row


# ------------------------------------------------------------------------------------------------------ quick scoring


@torch.no_grad()
def quick_score(model: Any, packer: Packer, screens: int = 32, held: Sequence[RecordedScreen] = ()) -> dict[str, float]:
    """Share of right answers on held-out screens, by source and kind of question, teacher-forced.

    A click is right inside the element's box, every other answer when all its tokens are right. For watching a run; the
    score that counts is free-running, see `rl.tiny.grounding`.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    for source, screen, asked in _scored(screens, held):
        pack = packer.pack(screen, asked)
        batch = make_batch([pack], packer).to(model.device)
        hidden = run_language_model(model, batch, *run_vision(model, batch))
        said = F.linear(hidden[0], model.get_input_embeddings().weight).argmax(-1).cpu()
        for branch, question in enumerate(asked, 1):
            at = pack.counted(branch)
            found[f"{source}_{question.about}"].append(_right(question, said[at], pack.labels[at], packer))
    return {name: round(sum(right) / len(right), 3) for name, right in sorted(found.items())}


def _scored(
    screens: int, held: Sequence[RecordedScreen]
) -> Iterator[tuple[str, DrawnScreen | RecordedScreen, list[Question]]]:
    if held:
        yield from (("recorded", screen, [screen.step]) for screen in held)
        return
    streams: Iterable[tuple[str, Iterator[DrawnScreen]]] = (
        ("generic", generic_screens("glance", 0)),
        ("pocket", pocket_screens("glance", 0)),
    )
    for source, stream in streams:
        for number, screen in enumerate(itertools.islice(stream, screens)):
            yield source, screen, questions(screen, random.Random(number))


def _right(question: Question, said: Tensor, wanted: Tensor, packer: Packer) -> bool:
    if question.about not in ("where", "step") or question.target is None:
        return bool((said == wanted).all())
    numbers = re.findall(r"\d+", packer.encoder.text(said.tolist()).rpartition("[")[2])
    if len(numbers) != 2:
        return False
    (x, y), (left, top, right, bottom) = map(int, numbers), question.target.box
    return left <= x < right and top <= y < bottom
