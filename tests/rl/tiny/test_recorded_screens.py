"""Pretraining on the screens of recordings: what is asked, where it is read, and that a run repeats itself."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.local.loading import load_encoder, load_model
from guiderail.agent.processor import checkpoint_vision
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.replay import expert_turn
from guiderail.launch.cli import app
from guiderail.rl.tiny.packs import Packer
from guiderail.rl.tiny.pretrain import LOG_FILE, Recipe, packs_of_step, pretrain
from guiderail.rl.tiny.questions import where
from guiderail.rl.tiny.recorded_screens import elements_of, recorded_screens

DIALOGUE = Dialogue(checkpoint_vision("tiny-base"), BRIEF, images=1)
SMALL = Recipe(generic=1, pocket=1, reading=0.1, warm_up=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Pocket's recordings at MiniWoB++'s height: the lower end of each screen is cut off."""
    folder = tmp_path_factory.mktemp("data") / "data"
    record(folder, 30, seed=3)
    for picture in (folder / "images").iterdir():
        with Image.open(picture) as image:
            image.crop((0, 0, 160, 210)).save(picture)
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    keep = [row for row in rows if all(_fits(step) for step in row["steps"])][:3]
    assert len(keep) >= 2
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in keep))
    return folder


def _fits(step) -> bool:
    boxes = [step["action_content"].get("bbox", [0, 0, 1, 1]), *(one["bbox"] for one in step["elements"])]
    step["elements"] = [one for one in step["elements"] if one["bbox"][3] <= 210]
    return boxes[0][3] <= 210 and step["action_content"]["action"] != "swipe"


@pytest.fixture(scope="module")
def screens(data):
    return recorded_screens(load_episodes(data).episodes, DIALOGUE, elements_of(data / "episodes.jsonl"))


@pytest.fixture(scope="module")
def packer():
    model = load_model("tiny-base", "cpu")
    return Packer(load_encoder("tiny-base"), model.model.get_rope_index, (160, 208))


def test_each_step_is_asked_as_an_agent_is_asked_it(data, screens, packer):
    steps = [(episode, t) for episode in load_episodes(data).episodes for t in range(len(episode.steps))]
    assert len(steps) == len(screens)
    for (episode, t), screen in zip(steps, screens, strict=True):
        prompt, said = expert_turn(episode, t, DIALOGUE, True)
        assert screen.step.answer == said
        mine = packer.encoder.prompt(packer.prompt(screen.step, packer.shot))
        assert mine.ids.tolist() == packer.encoder.prompt(prompt).ids.tolist()
        assert torch.equal(packer.patches(screen), packer.encoder.pixels(prompt.screen)[0])


def test_the_answer_is_read_off_the_target(data, screens, packer):
    clicks = [s for s in screens if s.step.target is not None]
    assert clicks
    for screen in clicks:
        (evidence,) = screen.step.evidence
        x, y = map(int, re.findall(r"\d+", screen.step.answer[evidence.start : evidence.end]))
        left, top, right, bottom = screen.step.target.box
        assert (left <= x <= right, top <= y <= bottom) == (True, True)
        pack = packer.pack(screen, [screen.step])
        looked = pack.answers.cells.any(0).reshape(packer.rows, packer.columns)
        assert looked[min(packer.rows - 1, y // packer.side), x // packer.side]


def test_elements_and_their_words_are_known_where_they_were_recorded(data, screens):
    assert any(len(screen.named) > 2 for screen in screens)
    for screen in screens:
        for shown in screen.elements:
            assert " ".join(word for word, _ in shown.words) == " ".join(shown.text.split())
            assert all(shown.box[0] <= box[0] < box[2] <= shown.box[2] + 1 for _, box in shown.words)
    bare = recorded_screens(load_episodes(data).episodes, DIALOGUE, {})
    assert [screen.step for screen in bare] == [screen.step for screen in screens]
    assert not any(screen.elements for screen in bare)


def test_episodes_without_an_id_keep_their_elements(data, screens, tmp_path):
    rows = [json.loads(line) for line in (data / "episodes.jsonl").read_text().splitlines()]
    shutil.copytree(data / "images", tmp_path / "images")
    nameless = [json.dumps({key: value for key, value in row.items() if key != "episode_id"}) for row in rows]
    (tmp_path / "episodes.jsonl").write_text("\n" + "\n\n".join(nameless) + "\n")
    episodes = load_episodes(tmp_path).episodes
    found = recorded_screens(episodes, DIALOGUE, elements_of(tmp_path / "episodes.jsonl"))
    assert [screen.elements for screen in found] == [screen.elements for screen in screens]


def test_each_pass_shows_every_screen_once(screens, packer):
    count = len(screens) // 2 * 2
    packs = [pack for step in range(count // 2) for pack in packs_of_step(SMALL, step, None, packer, screens[:count])]
    seen = Counter(pack.patches.numpy().tobytes() for pack in packs)
    assert seen == Counter(packer.patches(screen).numpy().tobytes() for screen in screens[:count])


def test_screens_of_two_sizes_are_refused(data, tmp_path):
    record(tmp_path / "tall", 1)
    episodes = [*load_episodes(data).episodes[:1], *load_episodes(tmp_path / "tall").episodes]
    with pytest.raises(SetupError, match=r"screens of 160x208, 160x288: expected one size"):
        recorded_screens(episodes, DIALOGUE, {})
    record(tmp_path / "big", 1, size=(320, 576))
    with pytest.raises(SetupError, match=r"screens of 320x576: expected one size for all, of at most 160x288"):
        recorded_screens(load_episodes(tmp_path / "big").episodes, DIALOGUE, {})
    with pytest.raises(SetupError, match="screens of none"):
        recorded_screens([], DIALOGUE, {})


def test_one_screen_alone_is_refused(data):
    episode = load_episodes(data).episodes[0]
    with pytest.raises(SetupError, match="one screen, expected two or more"):
        recorded_screens([replace(episode, steps=episode.steps[:1])], DIALOGUE, {})


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        ([-40, -8, 40, 16], (0, 0, 40, 15)),
        ([120, 190, 400, 500], (120, 188, 160, 208)),
        ([158, 207, 160, 210], (158, 205, 160, 208)),
        ([-40, 8, 0, 16], None),
        ([8, 210, 40, 230], None),
        ([40, 8, 8, 16], None),
    ],
)
def test_of_an_element_the_part_on_the_screen_counts(data, packer, box, seen):
    episode = load_episodes(data).episodes[0]
    one = {"text": "milk", "bbox": box, "kind": "row"}
    screen = recorded_screens([episode], DIALOGUE, {(episode.id, 0): [one, one | {"text": " "}]})[0]
    assert [shown.box for shown in screen.elements] == ([] if seen is None else [seen])
    mentions = packer.pack(screen, [where(shown) for shown in screen.elements]).mentions
    assert mentions.cells.any(1).all()
    assert bool(len(mentions.at)) == (seen is not None)


def test_recordings_without_elements_leave_sound_weights(data, tmp_path):
    bare = recorded_screens(load_episodes(data).episodes, DIALOGUE, {})
    row = pretrain(tmp_path, SMALL, steps=2, base="tiny-base", recorded=bare, screens=2, device="cpu")
    assert (row["reading_steps"], row["loss_reading"]) == (1, 0)
    assert all(weight.isfinite().all() for weight in load_model(tmp_path, "cpu").parameters())


@pytest.mark.parametrize("odd", [{"text": None}, {"bbox": [1, 2, 3]}, {"bbox": [1, 2, 3, float("nan")]}, {"kind": 3}])
def test_elements_of_another_form_are_named_with_their_line(data, tmp_path, odd):
    rows = [json.loads(line) for line in (data / "episodes.jsonl").read_text().splitlines()]
    rows[0]["steps"][0]["elements"] = None
    rows[1]["steps"][1]["elements"] = [{"text": "milk", "bbox": [1, 2, 3, 4], "kind": "row"} | odd]
    file = tmp_path / "episodes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"episodes.jsonl:2: step 1: elements: expected a list of \{text, bbox"):
        elements_of(file)


def test_it_goes_on_from_a_base_and_with_a_break_to_the_same_bytes(screens, tmp_path):
    given = {"base": "tiny-base", "recorded": screens, "screens": 2, "device": "cpu", "every": 2}
    recipe = replace(SMALL, reading=0.01)
    row = pretrain(tmp_path / "whole", recipe, steps=4, **given)
    assert {"recorded_step", "loss_words", "loss_answers"} <= set(row)
    assert not any(name.startswith("pocket_") for name in row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guiderail.rl.tiny.pretrain.packs_of_step", _stop_at(3, packs_of_step))
        with pytest.raises(KeyboardInterrupt):
            pretrain(tmp_path / "broken", recipe, steps=4, **given)
    pretrain(tmp_path / "broken", recipe, steps=4, resume=True, **given)
    whole, broken = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken
    assert len((tmp_path / "whole" / LOG_FILE).read_text().splitlines()) == 2


def _stop_at(step, real):
    def packs(recipe, number, *rest):
        if number == step:
            raise KeyboardInterrupt
        return real(recipe, number, *rest)

    return packs


def test_the_command(data, tmp_path):
    said = CliRunner().invoke(
        app,
        [
            "pretrain",
            "tiny",
            "--recordings",
            str(data),
            "--steps",
            "2",
            "--out",
            str(tmp_path / "out"),
            "--device",
            "cpu",
        ],
    )
    assert said.exit_code == 0, said.output
    assert "turns " in said.output
    assert json.loads((tmp_path / "out" / "guiderail.json").read_text())["screens"] == [[160, 210]]
    assert load_encoder(tmp_path / "out").vision == DIALOGUE.vision
