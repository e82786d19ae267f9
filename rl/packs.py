"""Many questions behind one screenshot, as one sequence: a tree with the picture as its trunk.

Each branch is what a single question would be, token by token, with positions that go on from the picture. A token sees the
picture and its own branch, so a packed question computes what a single one computes, and the picture is paid for once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.dialects import BRIEF
from agent.dialogue import Dialogue
from agent.encode import Encoder
from agent.types import Prompt, Screenshot
from envs.questions import Question
from envs.screens import SIZE, PixelBox, Screen, Shown

IGNORED = -100
KINDS = ("text", "title", "row", "button", "toggle", "check", "field", "icon")


@dataclass(frozen=True, eq=False)
class Pack:
    """One screen and its questions.

    patches: (cells, patch values). ids, branch, positions: (tokens,); branch 0 is the trunk, positions count from the
    trunk's end. labels: (tokens,), the token to come where the loss counts, else IGNORED. answers: the tokens that predict
    something read off the screen, and where it stands. mentions: the tokens that are a word of this screen, likewise.
    """

    patches: Tensor
    ids: Tensor
    branch: Tensor
    positions: Tensor
    labels: Tensor
    answers: Gaze
    mentions: Gaze
    reading: Reading


@dataclass(frozen=True, eq=False)
class Gaze:
    """at: (n,) tokens, in a batch (n, 2) = pack, token. cells: (n, cells), true where they shall look."""

    at: Tensor
    cells: Tensor

    def to(self, device: str | torch.device) -> Gaze:
        return Gaze(self.at.to(device), self.cells.to(device))


@dataclass(frozen=True, eq=False)
class Reading:
    """What the vision tower shall know of each cell: all (cells,), IGNORED where nothing stands.

    words: the token of the word (after a space), or of the state where a mark is. x, y: the element's centre in pixels.
    look: its kind and whether it is checked (or focused), as 2 x kind + checked.
    """

    words: Tensor
    x: Tensor
    y: Tensor
    look: Tensor


class Packer:
    """Turns screens and questions into packs, with the encoder that agents are run with."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.dialogue = Dialogue(encoder.vision, BRIEF, images=1)
        self.shot = Screenshot(*SIZE)
        picture = encoder.vision.picture(self.shot)
        if (picture.width, picture.height) != SIZE:
            raise ValueError(f"this model sees screens of {SIZE} as {picture.width}x{picture.height}")
        self.side = encoder.vision.factor
        self.columns, self.rows = SIZE[0] // self.side, SIZE[1] // self.side
        empty = self._prompt(Question("where", "", ""))
        self.trunk = empty[: int((empty == encoder.image_pad).nonzero()[-1]) + 2]  # with the end-of-vision token
        self.branch_ids = lru_cache(maxsize=1 << 16)(self._branch_ids)
        self.word_id = lru_cache(maxsize=1 << 12)(self._word_id)

    def prompt(self, question: Question, shot: Screenshot) -> Prompt:
        return self.dialogue.prompt(question.goal, [shot] * (len(question.history) + 1), question.history)

    def pack(self, screen: Screen, questions: Sequence[Question]) -> Pack:
        trunk = len(self.trunk)
        ids, branch, positions = [self.trunk], [torch.zeros(trunk, dtype=torch.long)], [torch.arange(trunk) - trunk]
        labels, read = [torch.full((trunk,), IGNORED)], list[tuple[int, Tensor]]()
        start = trunk
        for number, question in enumerate(questions, 1):
            asked, answer, spans = self.branch_ids(question.goal, question.history, question.answer)
            both = torch.cat([asked, answer])
            ids.append(both[:-1])  # the end of the turn is predicted, and nothing comes after it
            branch.append(torch.full((len(both) - 1,), number))
            positions.append(torch.arange(len(both) - 1))
            target = torch.full((len(both) - 1,), IGNORED)
            target[len(asked) - 1 :] = answer
            labels.append(target)
            for look in question.looks:
                at = [i for i, (a, b) in enumerate(spans) if a < look.end and b > look.start]
                read += [(start + len(asked) - 1 + i, self._covered(look.boxes)) for i in at]
            start += len(both) - 1
        standing, tokens = self._standing(screen), torch.cat(ids)
        mentioned = [(i, standing[token]) for i, token in enumerate(tokens.tolist()) if token in standing]
        return Pack(
            self.patches(screen),
            tokens,
            torch.cat(branch),
            torch.cat(positions),
            torch.cat(labels),
            self._gaze(read),
            self._gaze(mentioned),
            self.reading(screen),
        )

    def patches(self, screen: Screen) -> Tensor:
        """What `Encoder.pixels` returns for the screenshot of this screen, without the detour through a PNG."""
        features = self.encoder.image_processor(images=[screen.image], do_resize=False, return_tensors="pt")
        patches: Tensor = features["pixel_values"]
        return patches

    def reading(self, screen: Screen) -> Reading:
        shape = (self.rows, self.columns)
        words, x, y, look = (np.full(shape, IGNORED, dtype=np.int64) for _ in range(4))
        for shown in _uncovered(screen):
            for word, box in shown.words:
                where = self._grid(box)
                words[where] = self.word_id(" " + word)
                x[where], y[where] = shown.centre
                look[where] = 2 * KINDS.index(shown.kind) + bool(shown.checked if shown.mark else shown.focused)
            if shown.mark:
                said = ("off", "on") if shown.kind == "toggle" else ("no", "yes")
                words[self._grid(shown.mark)] = self.word_id(" " + said[bool(shown.checked)])
        return Reading(*(torch.from_numpy(a).flatten() for a in (words, x, y, look)))

    def _standing(self, screen: Screen) -> dict[int, Tensor]:
        """Tokens of this screen's words, after a space and plain, and the cells where each stands."""
        boxes = defaultdict[str, list[PixelBox]](list)
        for shown in _uncovered(screen):
            for word, box in shown.words:
                boxes[word].append(box)
        single = {word: self._covered(found) for word, found in boxes.items() if not word.isdigit()}
        return {self.word_id(form): cells for word, cells in single.items() for form in (" " + word, word)}

    def _gaze(self, found: Sequence[tuple[int, Tensor]]) -> Gaze:
        if not found:
            return Gaze(torch.zeros(0, dtype=torch.long), torch.zeros(0, self.rows * self.columns, dtype=torch.bool))
        return Gaze(torch.tensor([at for at, _ in found]), torch.stack([cells for _, cells in found]))

    def _prompt(self, question: Question) -> Tensor:
        return self.encoder.prompt(self.prompt(question, self.shot)).ids

    def _branch_ids(
        self, goal: str, history: tuple[str, ...], answer: str
    ) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Tokens after the trunk up to the answer, the answer's tokens, and the characters that each of those covers."""
        asked = self._prompt(Question("errand", goal, answer, history=history))[len(self.trunk) :]
        spans = self.encoder.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return asked, self.encoder.target(answer), spans

    def _word_id(self, text: str) -> int:
        """A word's one token; the last one of what is not in the vocabulary."""
        return int(self.encoder.tokenizer.encode(text, add_special_tokens=False)[-1])

    def _grid(self, box: PixelBox) -> tuple[slice, slice]:
        """The cells that a box covers by more than a few pixels."""
        side, slack = self.side, 3
        left, top = (box[0] + slack) // side, (box[1] + slack) // side
        right, bottom = max(left, (box[2] - slack) // side), max(top, (box[3] - slack) // side)
        return slice(top, bottom + 1), slice(left, right + 1)

    def _covered(self, boxes: Sequence[PixelBox]) -> Tensor:
        found = torch.zeros(self.rows, self.columns, dtype=torch.bool)
        for box in boxes:
            found[self._grid(box)] = True
        return found.flatten()


def _uncovered(screen: Screen) -> list[Shown]:
    """What is painted and not hidden by a dialog."""
    panel, elements = screen.scene.panel, screen.elements
    return [shown for shown in screen.drawn if not panel or shown in elements or not _overlap(shown.box, panel)]


def _overlap(a: PixelBox, b: PixelBox) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True, eq=False)
class Batch:
    """Packs side by side, padded on the right. As in Pack, with mask (batch, 1, tokens, tokens), true where a row's token
    sees a column's, and positions (3, batch, tokens) as the model counts them."""

    patches: Tensor
    grid: Tensor
    ids: Tensor
    mask: Tensor
    positions: Tensor
    pictures: Tensor
    labels: Tensor
    answers: Gaze
    mentions: Gaze
    words: Tensor
    x: Tensor
    y: Tensor
    look: Tensor

    def to(self, device: str | torch.device) -> Batch:
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def collate(packs: Sequence[Pack], packer: Packer, model: Any) -> Batch:
    """model: anything with Qwen3-VL's `get_rope_index`, which tells the trunk's positions."""
    encoder, trunk = packer.encoder, packer.trunk
    ids = _padded([p.ids for p in packs], encoder.pad)
    branch = _padded([p.branch for p in packs], -1)
    order = torch.arange(ids.shape[1])
    sees = (branch[:, None] == branch[:, :, None]) | (branch[:, None] == 0)
    grid = torch.tensor([[1, packer.rows, packer.columns]] * len(packs))
    positions, shift = model.get_rope_index(
        trunk[None], mm_token_type_ids=(trunk[None] == encoder.image_pad).long(), image_grid_thw=grid[:1]
    )
    following = len(trunk) + int(shift)  # where the trunk's text would go on
    spread = (_padded([p.positions for p in packs], 0) + following)[None].repeat(3, 1, 1)
    spread[:, :, : len(trunk)] = positions
    return Batch(
        patches=torch.cat([p.patches for p in packs]),
        grid=grid,
        ids=ids,
        mask=(sees & (order[None] <= order[:, None]))[:, None],
        positions=spread,
        pictures=ids == encoder.image_pad,
        labels=_padded([p.labels for p in packs], IGNORED),
        answers=_together([p.answers for p in packs]),
        mentions=_together([p.mentions for p in packs]),
        **{name: torch.cat([getattr(p.reading, name) for p in packs]) for name in ("words", "x", "y", "look")},
    )


def _together(gazes: Sequence[Gaze]) -> Gaze:
    at = [torch.stack([torch.full_like(gaze.at, i), gaze.at], 1) for i, gaze in enumerate(gazes)]
    return Gaze(torch.cat(at), torch.cat([gaze.cells for gaze in gazes]))


def _padded(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
