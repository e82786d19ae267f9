"""Corrected attempts become recordings in which the person's steps are learned and the agent's are their history."""

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Completion, Outcome, Point, Rollout, Swipe, Turn, Wait
from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.tasks import task
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.gate import oracle_gate
from guiderail.envs.recordings.replay import expert_turn
from guiderail.rl.live.journal import images_of, keep_images
from guiderail.rl.runs.corrections import recordings_of
from guiderail.rl.runs.log import run_log
from guiderail.rl.runs.rows import rollout_row

DIALOGUE = Dialogue(ORIGINAL_SIZE, BRIEF, 1)


def attempt(made, who):
    """The expert's moves; who[k]: by whom move k is made. "wrong": an agent that waits; "mute": one that is not understood.
    The last letter is the end of the attempt."""
    device, turns = PhoneInHand(Phone(made.start())), []
    for by in who:
        shot = device.screenshot()
        prompt = DIALOGUE.prompt(
            made.goal, [*(t.screen.screenshot for t in turns), shot], [t.history_text() for t in turns]
        )
        move = made.expert(device.phone, device.answers)
        thought, action = ("let me see", Wait(1.0)) if by == "wrong" else (move.thought, move.action)
        said = DIALOGUE.say(thought, action, shot) if by != "mute" else "what now?"
        turns.append(Turn(len(turns), prompt, Completion(said), thought, None if by == "mute" else action))
        if by != "mute":
            device.act(action)
    outcome = Outcome(made.success(device.phone, device.answers))
    row = rollout_row(Rollout(made.id, 0, tuple(turns), "finished", outcome, made.goal), template=made.template)
    for turn, by in zip(row["turns"], who, strict=True):
        if by == "person":
            turn["by"] = "person"
    return row, images_of(Rollout(made.id, 0, tuple(turns), "finished"))


def run_of(folder, *attempts):
    with run_log(folder, "pocket", {"model": "made"}) as log:
        for row, images in attempts:
            keep_images(folder / "images", images)
            log.line(row)
        log.finish({})
    return folder


AGENT, PERSON = "agent", "person"


def test_the_persons_steps_are_targets_and_the_agents_are_history(tmp_path):
    made = task("alarm", 0)
    run = run_of(tmp_path / "run", attempt(made, [AGENT, "wrong", "mute", PERSON, PERSON, AGENT]))
    assert recordings_of([run], tmp_path / "data") == {"attempts": 1, "episodes": 1, "history": 2, "targets": 2}
    (episode,) = load_episodes(tmp_path / "data").episodes
    assert [step.history for step in episode.steps] == [True, True, False, False]
    assert isinstance(episode.steps[1].action, Wait)
    assert (episode.goal, episode.meta["template"], episode.meta["recorded"]) == (made.goal, "alarm", "corrected")
    gate = oracle_gate(load_episodes(tmp_path / "data"), DIALOGUE)
    assert (gate["steps"], gate["exact"], gate["TSR"]) == (2, 2, 1.0)


def test_what_sft_learns_is_the_prompt_that_the_agent_really_had(tmp_path):
    row, images = attempt(task("alarm", 0), [AGENT, "wrong", PERSON, AGENT])
    recordings_of([run_of(tmp_path / "run", (row, images))], tmp_path / "data")
    (episode,) = load_episodes(tmp_path / "data").episodes
    prompt, said = expert_turn(episode, 2, DIALOGUE)
    history = ["".join(m.parts) for m in prompt.messages if m.role == "assistant"]
    assert history == [turn["text"] for turn in row["turns"][:2]]
    assert said == row["turns"][2]["text"]
    assert prompt.screen.screenshot.digest == row["turns"][2]["screenshot"]


def test_attempts_without_a_person_are_left_out_and_ids_stay_apart(tmp_path):
    with_person, without = (attempt(task("alarm", 0), who) for who in ([AGENT, PERSON], [AGENT, AGENT]))
    runs = [run_of(tmp_path / name, with_person, without) for name in ("a", "b", "c")]
    assert recordings_of(runs, tmp_path / "data")["episodes"] == 3
    ids = [episode.id for episode in load_episodes(tmp_path / "data").episodes]
    assert ids == ["alarm-train-0-0", "b-alarm-train-0-0", "c-alarm-train-0-0"]
    with pytest.raises(SetupError, match=r"no person took part in the attempts of .*take over in: guiderail console"):
        recordings_of([run_of(tmp_path / "none", without)], tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_box_that_the_console_kept_is_the_target(tmp_path):
    row, images = attempt(task("alarm", 0), [PERSON])
    row["turns"][0]["target"] = [0.25, 0.0, 0.75, 1.0]
    recordings_of([run_of(tmp_path / "run", (row, images))], tmp_path / "data")
    (step,) = load_episodes(tmp_path / "data").episodes[0].steps
    assert [(b.box.left, b.box.top, b.box.right, b.box.bottom) for b in step.boxes] == [(0.25, 0, 0.75, 1)]
    assert step.box_origin == "tree"


def test_an_aim_outside_the_screen_is_moved_to_its_edge(tmp_path):
    row, images = attempt(task("alarm", 0), ["wrong", PERSON])
    row["turns"][0]["action"] = {"action": "swipe", "coordinate": [-400, 20], "coordinate2": [80, 4000]}
    recordings_of([run_of(tmp_path / "run", (row, images))], tmp_path / "data")
    action = load_episodes(tmp_path / "data").episodes[0].steps[0].action
    assert action == Swipe(Point(0, 20 / 288), Point(0.5, 1))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("screenshot", "../../etc/passwd", "expected a SHA-256"),
        ("screenshot", "0" * 64, "is missing; a run without --out keeps no screenshots"),
        ("action", {"action": "fly"}, "action 'fly'"),
        ("action", None, "a person's turn has no action"),
        ("target", [0.9, 0, 0.1, 1], "has no area"),
    ],
)
def test_a_broken_run_is_refused_with_its_line(tmp_path, key, value, why):
    row, images = attempt(task("alarm", 0), [AGENT, PERSON])
    row["turns"][1][key] = value
    with pytest.raises(DataError, match=rf"rollouts\.jsonl:1.*{why}"):
        recordings_of([run_of(tmp_path / "run", (row, images))], tmp_path / "data")
    assert not (tmp_path / "data").exists()
