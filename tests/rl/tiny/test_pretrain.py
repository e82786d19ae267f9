"""Packs compute what single questions compute; pretraining learns, repeats itself and resumes; grounding is scored."""

import dataclasses
import itertools
import json
import random

import numpy as np
import pytest
import torch

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.local.encode import Encoded
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.policy import ScriptedPolicy
from guiderail.agent.screen import Vision
from guiderail.envs.live.device import encode_png
from guiderail.rl.tiny.grounding import evaluate_grounding
from guiderail.rl.tiny.losses import run_language_model, run_vision
from guiderail.rl.tiny.packs import IGNORED, Packer, make_batch
from guiderail.rl.tiny.pretrain import LOG_FILE, STATE_FILE, Pretraining, Recipe, build_base, pretrain
from guiderail.rl.tiny.questions import questions, state, where
from guiderail.rl.tiny.screens import generic_screens, pocket_screens

SMALL = Recipe(seed=1, generic=1, pocket=1, reading=0.1, warm_up=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), seed=0)


@pytest.fixture(scope="module")
def model(base):
    return load_model(base, "cpu")


@pytest.fixture(scope="module")
def packer(base, model):
    return Packer(load_encoder(base), model.model.get_rope_index)


def screen_with_history():
    for number, screen in enumerate(generic_screens("train", 5)):
        asked = questions(screen, random.Random(number))
        if {len(q.history) for q in asked} >= {0, 1} and any(q.about == "state" for q in asked):
            return screen, asked
    raise AssertionError


def test_a_packed_question_computes_what_a_single_one_does(model, packer):
    screen, asked = screen_with_history()
    pack = packer.pack(screen, asked)
    other = packer.pack(next(pocket_screens("train", 0)), asked[:1])  # shorter: the batch is padded
    batch = make_batch([other, pack], packer)
    with torch.no_grad():
        hidden = run_language_model(model, batch, *run_vision(model, batch))[1]
        packed = torch.nn.functional.linear(hidden, model.get_input_embeddings().weight)
    shot = encode_png(screen.image)
    for branch, question in enumerate(asked, 1):
        prompt = packer.encoder.prompt(packer.prompt(question, shot))
        target = packer.encoder.target(question.answer)
        row = Encoded(torch.cat([prompt.ids, target]), prompt.pictures)
        with torch.no_grad():
            single = model(**packer.encoder.batch([row])).logits[0, len(prompt.ids) - 1 : -1]
        counted = pack.counted(branch)
        assert pack.labels[counted].tolist() == target.tolist()
        torch.testing.assert_close(packed[counted], single, atol=2e-4, rtol=1e-4)


def test_no_branch_sees_another(model, packer):
    screen, asked = screen_with_history()
    pack = packer.pack(screen, asked)
    own = torch.zeros(len(pack.tree), dtype=torch.bool)
    own[pack.tree.paths[2][len(packer.trunk.keys) :]] = True
    changed = np.where(own, 17, pack.tree.keys)
    with torch.no_grad():
        packs = [pack, dataclasses.replace(pack, tree=dataclasses.replace(pack.tree, keys=changed))]
        batch = make_batch(packs, packer)
        first, second = run_language_model(model, batch, *run_vision(model, batch))
    torch.testing.assert_close(first[~own], second[~own])
    assert not torch.allclose(first[own], second[own])


def test_evidence_points_at_the_words_that_the_answer_needs(packer):
    screen, asked = screen_with_history()
    pack = packer.pack(screen, asked)
    about = {column: asked[k - 1] for k, path in enumerate(pack.tree.paths) if k for column in path.tolist()}
    for token, cells in zip(pack.answers.at.tolist(), pack.answers.cells, strict=True):
        question = about[token]
        assert pack.labels[token] != IGNORED
        rows, columns = torch.nonzero(cells.view(packer.rows, packer.columns)).T
        left, top, right, bottom = question.target.box
        assert (columns * 16 + 15 >= left).all()
        assert (columns * 16 < right).all()
        assert (rows * 16 + 15 >= top).all()
        assert (rows * 16 < bottom).all()


def test_mentions_look_at_the_word_itself(packer):
    screen, asked = screen_with_history()
    pack = packer.pack(screen, asked)
    assert len(pack.mentions.at) > len(asked)
    for token, cells in zip(pack.mentions.at.tolist(), pack.mentions.cells, strict=True):
        word = packer.encoder.text([int(pack.tree.keys[token])]).strip()
        assert {int(i) for i in pack.cells.words[cells]} == {packer.word_id(" " + word)}


def test_every_word_is_one_token_wherever_it_stands(packer):
    tokenizer = packer.encoder.tokenizer
    for text in ("milk", " milk", " 5:30", "Wifi", " Bluetooth", " alarm"):
        assert len(tokenizer.encode(text, add_special_tokens=False)) == 1, text
    said = '<think>done milk tap sea salt</think>\n<action>\n{"action": "type", "text": "sea salt"}\n</action>'
    ids = packer.encoder.target(said).tolist()
    assert packer.encoder.text(ids) == said
    assert len(ids) == 11


def test_steps_lower_the_loss(base, packer):
    work = Pretraining(load_model(base, "cpu").train(), packer, SMALL)
    screens = [next(generic_screens("train", 0)), next(pocket_screens("train", 0))]
    packs = [packer.pack(screen, questions(screen, random.Random(0), errands=1)[:8]) for screen in screens]
    losses = [work.step(packs, 0.5, reading_only=False) for _ in range(10)]
    assert losses[-1]["words"] < 0.5 * losses[0]["words"]
    assert losses[-1]["reading"] < 0.8 * losses[0]["reading"]
    assert losses[-1]["answers"] + losses[-1]["mentions"] < losses[0]["answers"] + losses[0]["mentions"]


def test_equal_seeds_give_equal_bytes_with_and_without_a_break(tmp_path):
    def run(name, steps, resume=False):
        pretrain(tmp_path / name, SMALL, steps=steps, every=2, screens=1, resume=resume, device="cpu")
        return (tmp_path / name / "model.safetensors").read_bytes()

    class Died(Exception):
        pass

    def die(row):
        if row["step"] == 4:
            raise Died

    whole = run("a", 6)
    with pytest.raises(Died):
        pretrain(tmp_path / "b", SMALL, steps=6, every=2, screens=1, device="cpu", report=die)
    assert run("b", 6, resume=True) == whole
    rows = [json.loads(line) for line in (tmp_path / "b" / LOG_FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"pocket_where", "generic_where", "loss_mentions"} <= set(rows[-1])
    with pytest.raises(SetupError, match="another recipe or seed"):
        pretrain(tmp_path / "b", dataclasses.replace(SMALL, seed=2), steps=6, resume=True, device="cpu")
    again = pretrain(tmp_path / "b", SMALL, steps=6, every=2, screens=1, resume=True, device="cpu")
    assert again == rows[-1], "a finished run is left as it is"
    assert len((tmp_path / "b" / LOG_FILE).read_text().splitlines()) == 3
    (tmp_path / "b" / LOG_FILE).write_text("")  # a kill came between the state and its line
    assert pretrain(tmp_path / "b", SMALL, steps=6, screens=1, resume=True, device="cpu")["step"] == 6
    state = tmp_path / "b" / STATE_FILE
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(SetupError, match="does not hold a whole state of this recipe"):
        run("b", 8, resume=True)
    with pytest.raises(SetupError, match="holds a model already"):
        pretrain(tmp_path / "b", SMALL, steps=6, device="cpu")


def scripted(seed, screens, say):
    """Answers every question of the evaluation's own streams as `say(question, screen)` has it."""
    answers = {}
    for source in (generic_screens, pocket_screens):
        for screen in itertools.islice(source("eval", seed), screens):
            shot = encode_png(screen.image)
            asked = [where(shown) for shown in screen.named] + [state(shown) for shown in screen.named if shown.mark]
            answers |= {(shot.digest, question.goal): say(question) for question in asked}

    def answer(request):
        picture, goal = request.prompt.messages[-1].parts
        return answers[picture.screenshot.digest, goal]

    return ScriptedPolicy(answer, vision=Vision(factor=16, min_pixels=1024, max_pixels=10**6))


def score(policy, seed, screens):
    return evaluate_grounding(policy, Dialogue(policy.vision, BRIEF, 1), seed=seed, screens=screens)


def test_the_expert_scores_one_and_a_fixed_place_little():
    result = score(scripted(3, 60, lambda question: question.answer), 3, 60)
    for source in ("generic", "pocket"):
        for what in ("element", "state"):
            rate = result[source][what]
            assert rate["accuracy"] == 1.0
            assert rate["right"] == rate["n"] > 10
            assert rate["interval"][0] < 1.0
    pooled = [result["probe"][source] for source in ("generic", "pocket")]
    assert sum(rate["right"] for rate in pooled) / sum(rate["n"] for rate in pooled) < 0.15


def test_wrong_answers_score_nothing():
    swapped = {"on": "off", "off": "on", "yes": "no", "no": "yes"}
    result = score(scripted(4, 30, lambda question: swapped.get(question.answer, "somewhere")), 4, 30)
    assert {result[s][w]["right"] for s in ("generic", "pocket") for w in ("element", "state")} == {0}
