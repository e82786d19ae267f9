"""How the tiny base model learns to read and to point, before it is an agent.

A plain Qwen3-VL on action data alone stalls: "the word in the goal, the same word on the screen, its place" does not form
from one action per picture. Three aids that exist in training only make it form in minutes: the vision tower alone first
learns which word stands in which cell (stage 1), many questions share one picture (`rl.packs`), and two attention heads
of two layers are shown where to look (stage 2): a word that stands on the screen at its cells, and what is about to name a
place, a state or a text at where that is read. Nothing of them is left in the weights that are saved.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from agent.errors import SetupError
from agent.local import load_encoder, load_model
from agent.tiny import build_tiny
from envs.pocket.phone import Phone
from envs.pocket.tasks import demonstrate, draws, task
from envs.questions import Question, questions
from envs.screens import SIZE, Screen, generic_screens, pocket_screens, vocabulary
from rl.packs import IGNORED, KINDS, Batch, Gaze, Pack, Packer, collate

STATE_FILE, LOG_FILE = "pretrain.pt", "pretrain.jsonl"
READING_COST = 1 / 6  # measured on a CPU


@dataclass(frozen=True)
class Recipe:
    """The numbers behind `tiny-base`. generic, pocket: screens per step. reading: the share of all work that is stage 1,
    where a step costs `READING_COST` of a later one.

    errands: agent-format questions per screen at the start and at the end of stage 2. Weights are those of the reading
    and the attention losses beside the loss on answers (1).
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


# ---------------------------------------------------------------------------------------------------------------- data


def build_base(out: Path, seed: int) -> Path:
    """The untrained model, its tokenizer made of the words of screens, goals, thoughts and questions."""
    texts = [*vocabulary(), *_spoken()]
    words = dict.fromkeys(word for text in texts for word in re.findall(r"[^\W\d_]+|\d{1,2}:\d\d", text))
    return build_tiny(out, texts, "qwen3_vl", seed, screen=SIZE, merge=1, vocabulary=1500, words=tuple(words))


def _spoken() -> Iterator[str]:
    """Goals and thoughts of every Pocket template, and what is asked about screens."""
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


def drawn(recipe: Recipe, step: int) -> list[Screen]:
    """The screens of one step; a function of seed and step, so a resumed run sees what an unbroken one does."""
    generic = generic_screens("train", recipe.seed, step * recipe.generic)
    pocket = pocket_screens("train", recipe.seed, step * recipe.pocket)
    return [*itertools.islice(generic, recipe.generic), *itertools.islice(pocket, recipe.pocket)]


def packed(screens: Sequence[Screen], packer: Packer, rng: random.Random, errands: int | None) -> list[Pack]:
    """errands: None asks nothing, for reading alone."""
    asked = [[] if errands is None else questions(screen, rng, errands) for screen in screens]
    return [packer.pack(screen, some) for screen, some in zip(screens, asked, strict=True)]


# -------------------------------------------------------------------------------------------------------------- losses


class Heads(nn.Module):
    """What reads the vision tower's output during training and is then thrown away."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.x, self.y = nn.Linear(width, SIZE[0]), nn.Linear(width, SIZE[1])
        self.look = nn.Linear(width, 2 * len(KINDS))

    def forward(self, cells: Tensor, embedding: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the word in each cell, plus half of each of centre x, centre y and look. cells: (cells, width)."""
        stands = batch.words != IGNORED
        read = self.norm(cells[stands])
        loss = F.cross_entropy(F.linear(read, embedding), batch.words[stands])
        named = batch.x[stands] != IGNORED
        for head, target in ((self.x, batch.x), (self.y, batch.y), (self.look, batch.look)):
            loss = loss + 0.5 * F.cross_entropy(head(read[named]), target[stands][named])
        return loss


def see(model: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The vision tower's output, (cells, width), and what goes into the first layers besides."""
    visual = model.model.visual
    # The same numbers as the convolution over one patch each, whose backward pass is slow on CPUs.
    kernel = visual.patch_embed.proj
    visual.patch_embed.forward = lambda patches: F.linear(patches, kernel.weight.flatten(1), kernel.bias)
    try:
        seen = visual(batch.patches, grid_thw=batch.grid)
    finally:
        del visual.patch_embed.forward
    return seen.pooler_output, list(seen.deepstack_features)


def think(model: Any, batch: Batch, cells: Tensor, deep: list[Tensor]) -> Tensor:
    """Hidden states of all tokens, (batch, tokens, width)."""
    embedded = model.get_input_embeddings()(batch.ids).masked_scatter(batch.pictures[..., None], cells)
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        visual_pos_masks=batch.pictures,
        deepstack_visual_embeds=deep,
        use_cache=False,
    ).last_hidden_state
    return hidden


def attention_loss(attention: Any, inputs: dict[str, Any], gaze: Gaze, pictures: Tensor, heads: int) -> Tensor:
    """-log of the attention that the first heads of a layer pay, among all cells, to those they shall look at.

    inputs: what the layer was called with: hidden states (batch, tokens, width), and cos and sin of its positions.
    """
    hidden, rotary = inputs["hidden_states"], inputs["position_embeddings"]
    if not len(gaze.at):
        return torch.zeros((), device=hidden.device)
    width, (pack, token) = attention.head_dim, gaze.at.T
    packs = len(hidden)

    def turned(norm: Any, project: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows = norm(F.linear(states, project.weight[: heads * width]).reshape(*states.shape[:-1], heads, width))
        first, second = rows.chunk(2, -1)
        turned: Tensor = rows * cos[..., None, :] + torch.cat([-second, first], -1) * sin[..., None, :]
        return turned

    cos, sin = (part.expand(packs, -1, -1) for part in rotary)
    query = turned(attention.q_norm, attention.q_proj, hidden[pack, token], cos[pack, token], sin[pack, token])
    on = pictures
    keys = turned(attention.k_norm, attention.k_proj, hidden[on], cos[on], sin[on]).reshape(packs, -1, heads, width)
    scores = torch.einsum("nhd,nchd->nhc", query, keys[pack]) * attention.scaling
    there = scores.log_softmax(-1).masked_fill(~gaze.cells[:, None], -torch.inf)
    loss: Tensor = -there.logsumexp(-1).mean()
    return loss


# ------------------------------------------------------------------------------------------------------------ training


class Pretraining:
    """Model, throw-away heads and optimizers; `step` takes packs, `save` and `load` leave and find everything."""

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

    def _gazing(self, layer: int, gaze: Gaze, batch: Batch) -> Tensor:
        attention = self.layers[layer].self_attn
        return attention_loss(attention, self._caught[attention], gaze, batch.pictures, self.recipe.attention_heads)

    def step(self, packs: Sequence[Pack], rate: float, reading_only: bool) -> dict[str, float]:
        """One update at this share of the learning rates; returns the losses."""
        recipe, embedding = self.recipe, self.model.get_input_embeddings().weight
        batch = collate(packs, self.packer, self.model.model).to(self.model.device)
        cells, deep = see(self.model, batch)
        losses = {"reading": self.heads(cells, embedding, batch)}
        if not reading_only:
            hidden = think(self.model, batch, cells, deep)
            asked = batch.labels != IGNORED
            losses["words"] = F.cross_entropy(F.linear(hidden[asked], embedding), batch.labels[asked])
            losses["answers"] = self._gazing(recipe.answer_layer, batch.answers, batch)
            losses["mentions"] = self._gazing(recipe.mention_layer, batch.mentions, batch)
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
        """Raises SetupError when the file belongs to another recipe."""
        state = torch.load(file, map_location=self.model.device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe)):
            raise SetupError(f"{file} was written with another recipe or seed; resume with the same one, or start anew")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        progress: dict[str, float] = state["progress"]
        return progress


def _split(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Weight matrices, for Muon; and embeddings, convolutions, norms and biases."""
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
    glances: int = 32,
    told: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Train into the folder `out`, which then loads like any checkpoint; returns the last line of its log.

    steps or minutes: exactly one. With steps, equal arguments give equal bytes on equal machines; minutes is training time,
    and the schedule follows the clock. Every `every` steps the folder is saved, `glances` held-out screens of each source
    are scored, one line goes to LOG_FILE and to `told`. resume: go on from the last such point of the same recipe.
    """
    if (steps is None) == (minutes is None):
        raise SetupError("give exactly one of steps and minutes")
    state = out / STATE_FILE
    if resume and not state.is_file():
        raise SetupError(f"nothing to resume in {out}; start without --resume")
    if not resume:
        if (out / "model.safetensors").is_file():
            raise SetupError(f"{out} holds a model already; give an empty folder, or --resume")
        build_base(out, recipe.seed)
    model = load_model(out, device, "float32").train()
    packer = Packer(load_encoder(out))
    work = Pretraining(model, packer, recipe)
    progress = work.load(state) if resume else {"step": 0, "minutes": 0.0, "reading_steps": 0}
    row: dict[str, Any] = {}
    begun = time.perf_counter() - 60 * progress["minutes"]
    while (share := _share(progress, recipe, steps, minutes)) < 1:
        step, reading = int(progress["step"]), share < recipe.reading
        in_stage = step - (0 if reading else int(progress["reading_steps"]))
        errands = round(recipe.errands[0] + (recipe.errands[1] - recipe.errands[0]) * share)
        rng = random.Random(f"questions-{recipe.seed}-{step}")
        packs = packed(drawn(recipe, step), packer, rng, None if reading else errands)
        losses = work.step(packs, _rate(recipe, share, in_stage), reading)
        progress["step"] += 1
        progress["reading_steps"] += reading
        progress["minutes"] = (time.perf_counter() - begun) / 60
        if progress["step"] % every == 0 or progress["step"] == steps:
            row = _mark(out, work, progress, losses, glances, told)
    if not row or row["step"] != progress["step"]:
        row = _mark(out, work, progress, losses, glances, told)
    return row


def _share(progress: dict[str, float], recipe: Recipe, steps: int | None, minutes: float | None) -> float:
    """How much of the work is done; 1 ends it."""
    if steps is None:
        return progress["minutes"] / (minutes or 1.0)
    if progress["step"] >= steps:
        return 1.0
    work = steps / (recipe.reading / READING_COST + 1 - recipe.reading)
    done = progress["step"] - (1 - READING_COST) * progress["reading_steps"]
    return min(done / work, 0.999)


def _rate(recipe: Recipe, share: float, in_stage: int) -> float:
    """Each stage warms up; from `decay_from` on the rates fall to a fiftieth."""
    fall = 1 - 0.98 * max(0.0, share - recipe.decay_from) / (1 - recipe.decay_from)
    return fall * min(1.0, (in_stage + 1) / recipe.warm_up)


def _mark(
    out: Path,
    work: Pretraining,
    progress: dict[str, float],
    losses: dict[str, float],
    glances: int,
    told: Callable[..., None],
) -> dict[str, Any]:
    work.model.save_pretrained(out)
    work.save(out / STATE_FILE, progress)
    scores = glance(work.model, work.packer, glances)
    row = {**progress, **{f"loss_{name}": round(value, 4) for name, value in losses.items()}, **scores}
    with (out / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    told(row)
    return row


# ------------------------------------------------------------------------------------------------------ quick scoring


@torch.no_grad()
def glance(model: Any, packer: Packer, screens: int = 32) -> dict[str, float]:
    """Share of right answers on held-out screens by source and kind of question, true earlier tokens given.

    A click is right inside the element's box, every other answer when all its tokens are. For a look at a run; the score
    that counts is free-running, see `rl.grounding`.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    streams: Iterable[tuple[str, Iterator[Screen]]] = (
        ("generic", generic_screens("glance", 0)),
        ("pocket", pocket_screens("glance", 0)),
    )
    for source, stream in streams:
        for number, screen in enumerate(itertools.islice(stream, screens)):
            asked = questions(screen, random.Random(number))
            pack = packer.pack(screen, asked)
            batch = collate([pack], packer, model.model).to(model.device)
            hidden = think(model, batch, *see(model, batch))
            said = F.linear(hidden[0], model.get_input_embeddings().weight).argmax(-1).cpu()
            for branch, question in enumerate(asked, 1):
                where = (pack.branch == branch) & (pack.labels != IGNORED)
                found[f"{source}_{question.about}"].append(_right(question, said[where], pack.labels[where], packer))
    return {name: round(sum(right) / len(right), 3) for name, right in sorted(found.items())}


def _right(question: Question, said: Tensor, wanted: Tensor, packer: Packer) -> bool:
    if question.about != "where" or question.target is None:
        return bool((said == wanted).all())
    numbers = re.findall(r"\d+", packer.encoder.text(said.tolist()))
    if len(numbers) != 2:
        return False
    (x, y), (left, top, right, bottom) = map(int, numbers), question.target.box
    return left <= x < right and top <= y < bottom


def parameters(model: Any) -> int:
    """How many numbers the model has, tied ones once."""
    return sum(math.prod(parameter.shape) for parameter in model.parameters())
