"""Many questions about one screenshot in one sequence: a prefix tree (agent/local/prefix.py) with the picture as its trunk.

Each branch holds the tokens of a single question with its answer. A token sees the picture and its own branch, so a packed
question computes what a single one computes, and the picture is computed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.local.encode import Encoded, Encoder
from guiderail.agent.local.prefix import Branch, Rope, Tree, extend, rope_positions, side_by_side, visible
from guiderail.agent.types import Prompt, Screenshot
from guiderail.rl.tiny.questions import Question
from guiderail.rl.tiny.recorded_screens import RecordedScreen
from guiderail.rl.tiny.screens import SIZE, DrawnScreen, PixelBox, Shown

IGNORED = -100
KINDS = ("text", "title", "row", "button", "toggle", "check", "field", "icon")


@dataclass(frozen=True, eq=False)
class Pack:
    """One screen and its questions.

    patches: (patches, values), the screen's pixels as the vision tower takes them. tree: branch 0 is the trunk, branch k
    the trunk with question k, counted from 1. labels: (columns,), the next token where the loss counts, else IGNORED.
    answers: for the columns that predict something read off the screen, where it stands. mentions: likewise for the
    columns that are a word of this screen. cells: what the vision tower learns to tell about each cell.
    """

    patches: Tensor
    tree: Tree
    labels: Tensor
    answers: AttentionTargets
    mentions: AttentionTargets
    cells: CellLabels

    def counted(self, branch: int) -> Tensor:
        """The columns of this branch where the loss counts."""
        columns = torch.from_numpy(self.tree.paths[branch])
        return columns[self.labels[columns] != IGNORED]


@dataclass(frozen=True, eq=False)
class AttentionTargets:
    """at: (n,), columns; in a batch (n, 2), pack and column. cells: (n, cells), True where they should attend."""

    at: Tensor
    cells: Tensor

    def to(self, device: str | torch.device) -> AttentionTargets:
        """A copy on `device`."""
        return AttentionTargets(self.at.to(device), self.cells.to(device))


@dataclass(frozen=True, eq=False)
class CellLabels:
    """Labels of each cell of the picture; all (cells,), IGNORED in cells that show nothing.

    words: the token of the word (with a space before it), or of the state in a cell with a switch or tick box. x, y: the
    element's centre in pixels. looks: 2 * index of its kind in KINDS + whether it is checked or focused.
    """

    words: Tensor
    x: Tensor
    y: Tensor
    looks: Tensor


class Packer:
    """Turns screens and questions into packs, with the encoder that agents are run with.

    rope: the model's `get_rope_index`. size: of all screens. Raises ValueError for a model that resizes screens of this size.
    """

    def __init__(self, encoder: Encoder, rope: Rope, size: tuple[int, int] = SIZE):
        self.encoder = encoder
        self.dialogue = Dialogue(encoder.vision, BRIEF, images=1)
        self.shot = Screenshot(*size)
        picture = encoder.vision.picture(self.shot)
        if (picture.width, picture.height) != size:
            raise ValueError(f"this model sees screens of {size} as {picture.width}x{picture.height}")
        self.side = encoder.vision.factor
        self.columns, self.rows = size[0] // self.side, size[1] // self.side
        empty = self._prompt(Question("where", "", ""))
        trunk = empty[: int((empty == encoder.image_pad).nonzero()[-1]) + 2]  # with the end-of-vision token
        positions = rope_positions(Encoded(trunk, (picture,)), encoder, rope)
        self.trunk = Branch(trunk.masked_fill(trunk == encoder.image_pad, -1).numpy(), positions, ())
        self.branch_ids = lru_cache(maxsize=1 << 16)(self._branch_ids)
        self.word_id = lru_cache(maxsize=1 << 12)(self._word_id)

    def prompt(self, question: Question, shot: Screenshot) -> Prompt:
        """The question as a prompt of its own."""
        return self.dialogue.prompt(question.goal, [shot] * (len(question.history) + 1), question.history)

    def pack(self, screen: DrawnScreen | RecordedScreen, questions: Sequence[Question]) -> Pack:
        """The screen with its questions; without questions the trunk alone."""
        trunk = len(self.trunk.keys)
        tree = Tree()
        tree.add(0, self.trunk, 0)
        labels, answers = [torch.full((trunk,), IGNORED)], list[tuple[int, Tensor]]()
        for number, question in enumerate(questions, 1):
            asked, answer, spans = self.branch_ids(question.goal, question.history, question.answer)
            start = len(tree) + len(asked) - 1  # the column that predicts the answer's first token
            # The end of the turn is predicted, and nothing comes after it.
            keys = np.concatenate([self.trunk.keys, asked.numpy(), answer.numpy()[:-1]])
            tree.add(number, Branch(keys, extend(self.trunk.positions, len(keys)), ()), trunk)
            labels += [torch.full((len(asked) - 1,), IGNORED), answer]
            for evidence in question.evidence:
                at = [i for i, (a, b) in enumerate(spans) if a < evidence.end and b > evidence.start]
                answers += [(start + i, self._covered(evidence.boxes)) for i in at]
        standing = self._standing(screen)
        mentions = [(i, standing[key]) for i, key in enumerate(tree.keys.tolist()) if key in standing]
        return Pack(
            self.patches(screen),
            tree,
            torch.cat(labels),
            self._targets(answers),
            self._targets(mentions),
            self.cells(screen),
        )

    def patches(self, screen: DrawnScreen | RecordedScreen) -> Tensor:
        """What `Encoder.pixels` returns for the screenshot of this screen, without encoding a PNG."""
        if isinstance(screen, RecordedScreen):
            return self.encoder.pixels(screen.picture)[0]
        features = self.encoder.image_processor(images=[screen.image], do_resize=False, return_tensors="pt")
        patches: Tensor = features["pixel_values"]
        return patches

    def cells(self, screen: DrawnScreen | RecordedScreen) -> CellLabels:
        """Labels of the cells; a dialog hides what is below it."""
        shape = (self.rows, self.columns)
        words, x, y, looks = (np.full(shape, IGNORED, dtype=np.int64) for _ in range(4))
        for shown in _uncovered(screen):
            for word, box in shown.words:
                where = self._grid(box)
                words[where] = self.word_id(" " + word)
                x[where], y[where] = shown.centre
                looks[where] = 2 * KINDS.index(shown.kind) + bool(shown.checked if shown.mark else shown.focused)
            if shown.mark:
                said = ("off", "on") if shown.kind == "toggle" else ("no", "yes")
                words[self._grid(shown.mark)] = self.word_id(" " + said[bool(shown.checked)])
        return CellLabels(*(torch.from_numpy(a).flatten() for a in (words, x, y, looks)))

    def _standing(self, screen: DrawnScreen | RecordedScreen) -> dict[int, Tensor]:
        """Tokens of this screen's words, with and without a space before them, and the cells where each stands."""
        boxes = defaultdict[str, list[PixelBox]](list)
        for shown in _uncovered(screen):
            for word, box in shown.words:
                boxes[word].append(box)
        single = {word: self._covered(found) for word, found in boxes.items() if not word.isdigit()}
        return {self.word_id(form): cells for word, cells in single.items() for form in (" " + word, word)}

    def _targets(self, found: Sequence[tuple[int, Tensor]]) -> AttentionTargets:
        if not found:
            nowhere = torch.zeros(0, self.rows * self.columns, dtype=torch.bool)
            return AttentionTargets(torch.zeros(0, dtype=torch.long), nowhere)
        return AttentionTargets(torch.tensor([at for at, _ in found]), torch.stack([cells for _, cells in found]))

    def _prompt(self, question: Question) -> Tensor:
        return self.encoder.prompt(self.prompt(question, self.shot)).ids

    def _branch_ids(
        self, goal: str, history: tuple[str, ...], answer: str
    ) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Tokens after the trunk up to the answer, the answer's tokens, and the characters that each of those covers."""
        asked = self._prompt(Question("errand", goal, answer, history=history))[len(self.trunk.keys) :]
        spans = self.encoder.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return asked, self.encoder.target(answer), spans

    def _word_id(self, text: str) -> int:
        """A word's token; of a word that takes several, the last one."""
        return int(self.encoder.tokenizer.encode(text, add_special_tokens=False)[-1])

    def _grid(self, box: PixelBox) -> tuple[slice, slice]:
        """The cells that a box on the screen covers by more than a few pixels; at least one."""
        side, slack = self.side, 3
        left = min((box[0] + slack) // side, self.columns - 1)
        top = min((box[1] + slack) // side, self.rows - 1)
        right, bottom = max(left, (box[2] - slack) // side), max(top, (box[3] - slack) // side)
        return slice(top, bottom + 1), slice(left, right + 1)

    def _covered(self, boxes: Sequence[PixelBox]) -> Tensor:
        found = torch.zeros(self.rows, self.columns, dtype=torch.bool)
        for box in boxes:
            found[self._grid(box)] = True
        return found.flatten()


def _uncovered(screen: DrawnScreen | RecordedScreen) -> list[Shown]:
    """Elements that are drawn and not hidden by a dialog."""
    panel, elements = screen.panel, screen.elements
    return [shown for shown in screen.drawn if not panel or shown in elements or not _overlap(shown.box, panel)]


def _overlap(a: PixelBox, b: PixelBox) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True, eq=False)
class Batch:
    """Packs as one batch, padded on the right.

    patches, and words, x, y, looks: those of all packs, one after the other. grid: (packs, 3). ids, labels: (packs,
    columns). mask: (packs, 1, columns, columns), True where column i sees column j. positions: (3, packs, columns).
    pictures: (packs, columns), True on image pads. answers, mentions: see AttentionTargets.
    """

    patches: Tensor
    grid: Tensor
    ids: Tensor
    mask: Tensor
    positions: Tensor
    pictures: Tensor
    labels: Tensor
    answers: AttentionTargets
    mentions: AttentionTargets
    words: Tensor
    x: Tensor
    y: Tensor
    looks: Tensor

    def to(self, device: str | torch.device) -> Batch:
        """A copy on `device`."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def make_batch(packs: Sequence[Pack], packer: Packer) -> Batch:
    """Any number of packs, at least one."""
    ids, positions, ends = side_by_side([[pack.tree] for pack in packs], packer.encoder)
    return Batch(
        patches=torch.cat([p.patches for p in packs]),
        grid=torch.tensor([[1, packer.rows, packer.columns]] * len(packs)),
        ids=ids,
        mask=visible(ends)[:, None],
        positions=positions,
        pictures=ids == packer.encoder.image_pad,
        labels=pad_sequence([p.labels for p in packs], batch_first=True, padding_value=IGNORED),
        answers=_together([p.answers for p in packs]),
        mentions=_together([p.mentions for p in packs]),
        **{name: torch.cat([getattr(p.cells, name) for p in packs]) for name in ("words", "x", "y", "looks")},
    )


def _together(targets: Sequence[AttentionTargets]) -> AttentionTargets:
    at = [torch.stack([torch.full_like(one.at, i), one.at], 1) for i, one in enumerate(targets)]
    return AttentionTargets(torch.cat(at), torch.cat([one.cells for one in targets]))
