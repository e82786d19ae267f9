"""The review queue: telling questions first, each answered once; answers repair rollouts and widen the recording."""

import json
from collections import Counter

import pytest

from guiderail.agent.dialects import BRIEF
from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Click, Point
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.match import judge
from guiderail.envs.recordings.replay import walk
from guiderail.launch.byhand.review import ANSWERS, open_review, reviewed
from guiderail.patch.base import build
from guiderail.patch.person import load_answers
from tests.launch.report.synthetic import sop_run, training_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "train"
    record(folder, 24, seed=3)
    return folder


@pytest.fixture
def run(data, tmp_path):
    return sop_run(data, tmp_path / "run", errs=0.3)


def test_the_first_questions_stand_for_the_most_failures(run):
    questions = open_review(run).questions
    assert len(questions) >= 5
    first = [one.alike for one in questions[: len({(q.gist, q.step.action.name) for q in questions})]]
    assert first[0] == max(one.alike for one in questions)
    assert Counter((q.episode.id, q.index, str(q.content)) for q in questions).most_common(1)[0][1] == 1
    for one in questions:
        assert one.action is None or not judge(one.step, one.action).exact


def test_training_runs_are_reviewed_too(data, tmp_path):
    questions = open_review(training_run(data, tmp_path / "run", generations=2)).questions
    assert questions
    assert {one.episode.id for one in questions} <= {e.id for e in load_episodes(data).episodes}


def test_an_answer_is_on_the_disk_at_once_and_is_not_asked_for_again(run):
    review = open_review(run, by="ann")
    total, question = len(review.questions), next(one for one in review.questions if one.action is not None)
    review.answer(question, "agent")
    (kept,) = load_answers(run / ANSWERS)
    assert (kept.episode, kept.step, kept.verdict) == (question.episode.id, question.index, "agent")
    assert json.loads((run / ANSWERS).read_text())["by"] == "ann"
    assert question not in review.questions
    assert len(open_review(run).questions) == len(review.questions) == total - 1
    with (run / ANSWERS).open("a") as file:
        file.write('{"episode_id": "torn')
    assert len(open_review(run).questions) == total - 1


def test_an_answer_that_nobody_understood_cannot_be_right(run):
    review = open_review(run)
    mute = next(one for one in review.questions if one.action is None)
    with pytest.raises(SetupError, match="could not be read"):
        review.answer(mute, "agent")
    review.answer(mute, "person")
    assert load_answers(run / ANSWERS)[0].action == mute.step.action


def test_accepted_actions_are_exact_in_the_new_recording_and_nowhere_else(run, data, tmp_path):
    review = open_review(run)
    right, wrong, *_ = (one for one in review.questions if one.action is not None)
    review.answer(right, "agent")
    review.answer(wrong, "person", wrong.step.action)
    out = tmp_path / "reviewed.jsonl"
    assert reviewed([run], out) == {"answers": 2, "accepted": 1, "steps": 1}
    before, after = ({e.id: e for e in load_episodes(path).episodes} for path in (data, out))
    assert judge(after[right.episode.id].steps[right.index], right.action).exact
    assert not judge(after[wrong.episode.id].steps[wrong.index], wrong.action).exact
    changed = [
        (name, index)
        for name, episode in before.items()
        for index, step in enumerate(episode.steps)
        if step != after[name].steps[index]
    ]
    assert changed == [(right.episode.id, right.index)]
    with pytest.raises(SetupError, match="exists already"):
        reviewed([run], out)


def test_a_review_without_answers_or_recordings_says_what_to_do(run, data, tmp_path):
    with pytest.raises(SetupError, match="nobody has answered yet; run: guiderail console --review"):
        reviewed([run], tmp_path / "reviewed.jsonl")
    written = (run / "run.json").read_text()
    (run / "run.json").write_text(written.replace(str(data), str(tmp_path / "nowhere")))
    with pytest.raises(SetupError, match=r"no recorded episodes at .*nowhere"):
        open_review(run)
    assert open_review(run, data=str(data)).questions


# ------------------------------------------------------------------------------------------------------ the patch person


def drive(going, answers):
    prompts = [next(going)]
    for text in answers:
        try:
            prompts.append(going.send(type("Said", (), {"text": text, "finish": "stop"})()))
        except StopIteration as stop:
            return stop.value, prompts
    raise AssertionError("the walk wants more answers")


def test_the_patch_puts_a_persons_action_into_the_history_and_declines_elsewhere(tmp_path, episode, brief):
    file = tmp_path / ANSWERS
    row = {"episode_id": "e1", "step": 0, "verdict": "person", "screen": [160, 288], "thought": "there it is"}
    row["action"] = {"action": "click", "coordinate": [80, 72]}
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"step": 1, "verdict": "agent"}) + "\n")
    patch = build("person", None, BRIEF.integrate, answers=load_answers(file))
    wrong = brief.say("hm", Click(Point(0.9, 0.9)), episode.steps[0].screenshot)
    rollout, prompts = drive(walk(episode, dialogue=brief, patch=patch), [wrong, wrong])
    assert (rollout.ended, len(rollout.turns)) == ("mismatch", 2)
    assert rollout.turns[0].repair.strategy == "person"
    told = brief.say("there it is", Click(Point(0.5, 0.25)), episode.steps[0].screenshot)
    assert [m.parts for m in prompts[1].messages if m.role == "assistant"] == [(told,)]
    assert rollout.turns[1].repair is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"episode_id": 1}',
        '{"episode_id": 1, "step": true, "verdict": "person", "action": {}, "screen": [1, 1]}',
    ]
    + [
        json.dumps({"episode_id": 1, "step": 0, "verdict": verdict, "action": action, "screen": screen})
        for verdict, action, screen in (
            ("maybe", {"action": "wait"}, [1, 1]),
            ("person", {"action": "fly"}, [1, 1]),
            ("person", {"action": "wait"}, [0, 1]),
            ("person", "wait", [1, 1]),
        )
    ],
)
def test_broken_answers_are_refused_with_their_line(tmp_path, text):
    (tmp_path / ANSWERS).write_text("\n" + text)
    with pytest.raises(DataError, match=r"review\.jsonl:2"):
        load_answers(tmp_path / ANSWERS)


def test_the_patch_without_answers_says_where_they_come_from():
    with pytest.raises(SetupError, match=r"method\.answers=RUN/review\.jsonl"):
        build("person", None, BRIEF.integrate)
