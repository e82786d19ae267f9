"""Online groups on Pocket: attempts, forks, faults, curriculum, replay, mixed updates."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from statistics import fmean

import pytest

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.agent.policy import Sampling
from guiderail.agent.types import Completion, Outcome, Prompt, Rollout
from guiderail.envs.live.attempts import Patience
from guiderail.envs.pocket.state import Dialog
from guiderail.envs.pocket.world import PocketTasks
from guiderail.envs.recordings.match import GUIDERAIL
from guiderail.envs.recordings.replay import walk
from guiderail.rl.credit.named import credit_named
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.live.journal import keep_screenshots
from guiderail.rl.rollout.curriculum import OTHER_BANDS, Curriculum, band
from guiderail.rl.rollout.drive import drive
from guiderail.rl.rollout.generation import Collector, episode_units, generation
from guiderail.rl.rollout.live import Heard, Site, live_units
from guiderail.rl.rollout.mix import MixedCollector, share_of
from guiderail.rl.rollout.plan import Group, Plan, Shown
from guiderail.rl.rollout.recorded import RECORDED, RecordedTurns
from guiderail.rl.rollout.successes import Successes
from guiderail.rl.rollout.worlds import world_of
from guiderail.rl.runs.metrics import METRICS
from guiderail.rl.sections import Fork
from tests.rl.rollout.pocket import TALK, Coin, TellingTasks

SAMPLING = Sampling()
WORLD = TellingTasks(8, seed=5, split="train", device="hand")
NAMES = [name for name, _ in WORLD.listed()]


@pytest.fixture
def site():
    session = WORLD.open(0)
    yield Site(session, TALK, expert=GUIDERAIL)
    session.close()


def plan_of(site, credit="outcome", fork=None, **more):
    units = live_units(NAMES, site.begin, fork)
    rules = CreditRules(eta=0.0, gamma=0.95)
    return Plan(units, credit_named(credit, rules), **{"groups": 4, "rollouts": 6, "sampling": SAMPLING, **more})


# ------------------------------------------------------------------------------------------------------ whole attempts


def test_a_turn_knows_its_state_and_what_the_expert_would_have_done(site):
    made = generation(plan_of(site, tries=1), Coin(0.8), 0, 0)
    turns = [turn for group in made.groups for one in group.rollouts for turn in one.turns]
    assert all(len(turn.state) == 16 and turn.verdict is not None for turn in turns)
    assert 0.6 < fmean(turn.exact for turn in turns) < 0.95
    for group in made.groups:
        assert len({one.turns[0].state for one in group.rollouts}) == 1, "a group starts in one state"
        assert all(one.start == 0 for one in group.rollouts)


def test_equal_states_have_equal_keys_on_other_phones_and_another_state_has_another(site):
    task, other = (site.session.task(NAMES[0]) for _ in range(2))
    device, _ = task.start(), other.start()
    first = task.state_key()
    assert first == other.state_key()
    thought, action = task.expert()
    del thought
    device.act(action)
    assert task.state_key() != first
    task.close()
    other.close()


def test_the_order_in_which_things_are_shown_is_part_of_the_state(site):
    task = site.session.task(NAMES[0])
    task.start()
    state = task._started()[0].phone.state
    keys = set()
    for basket in ({"milk": 1, "nuts": 1}, {"nuts": 1, "milk": 1}):
        state.basket = basket
        keys.add(task.state_key())
    assert len(keys) == 2
    task.close()


def test_how_long_a_wait_still_takes_is_part_of_the_state(site):
    task = site.session.task(NAMES[0])
    task.start()
    state = task._started()[0].phone.state
    state.dialog = Dialog("Please wait", [], until=state.clock + 1.5)
    first = task.state_key()
    state.clock += 1.0
    assert task.state_key() != first
    state.dialog.until += 1.0
    assert task.state_key() == first
    task.close()


def test_gigpo_compares_turns_of_one_state(site):
    made = generation(plan_of(site, credit="gigpo", tries=1), Coin(0.8), 0, 0)
    kept = [group for group in made.groups if group.signal == "kept"]
    assert kept
    first = [row[0] for group in kept for row in group.samples]
    assert any(sample.advantage_step for sample in first)
    for group in kept:
        assert sum(row[0].advantage_step for row in group.samples) == pytest.approx(0, abs=1e-6) or any(
            turn.state == group.rollouts[0].turns[0].state for one in group.rollouts for turn in one.turns[1:]
        )


# ---------------------------------------------------------------------------------------------- the expert's own answers


def test_the_expert_shows_its_answer_where_no_sample_is_right(site):
    session = site.session
    shown = Shown(0.5, lambda text: [len(text), 7])
    plan = plan_of(Site(session, TALK, expert=GUIDERAIL, shown=True), tries=1, shown=shown)
    made = generation(plan, Coin(0.0), 0, 0)
    assert not any(group.signal == "kept" for group in made.groups), "always wrong: nothing to compare"
    turns = [turn for group in made.groups for one in group.rollouts for turn in one.turns]
    assert len(made.samples) == len(turns), "one shown answer per turn, and no answer of the agent"
    for sample in made.samples:
        assert (sample.advantage, sample.completion.logprobs) == (0.5, ())
        assert sample.completion.token_ids == (len(sample.completion.text), 7)


def test_a_shown_answer_is_right_where_it_is_shown(site):
    plan = plan_of(Site(site.session, TALK, expert=GUIDERAIL, shown=True), tries=1)
    made = generation(plan, Coin(0.6), 0, 0)
    turns = [turn for group in made.groups for one in group.rollouts for turn in one.turns]
    right = [turn for turn in turns if turn.exact]
    assert 0 < len(right) < len(turns)
    for turn in right:
        said = TALK.read(Completion(turn.shown), turn.screen)
        assert type(said.action) is type(turn.action), turn.shown
        assert said.thought


def test_shown_answers_come_beside_the_agents_own_and_off_means_none(site):
    with_all = plan_of(
        Site(site.session, TALK, expert=GUIDERAIL, shown=True), tries=1, shown=Shown(1.0, lambda text: [99])
    )
    without = plan_of(site, tries=1)
    made, bare = generation(with_all, Coin(0.8), 0, 0), generation(without, Coin(0.8), 0, 0)
    own = [s for s in made.samples if s.completion.token_ids != (99,)]
    assert len(own) < len(made.samples)
    assert sorted((s.unit, s.sample, s.index, s.advantage) for s in own) == sorted(
        (s.unit, s.sample, s.index, s.advantage) for s in bare.samples
    )
    assert not any(group.shown for group in bare.groups)


# -------------------------------------------------------------------------------------------------------- forked groups


def test_a_forked_group_begins_at_one_screen_state_and_history(site):
    made = generation(plan_of(site, fork=Fork(), tries=1, groups=8), Coin(0.85), 0, 0)
    starts = set()
    for group in made.groups:
        first = [one.turns[0] for one in group.rollouts]
        assert len({turn.prompt for turn in first}) == 1, "same goal, history and screen"
        assert len({turn.state for turn in first}) == 1
        assert {one.start for one in group.rollouts} == {first[0].index}
        starts.add(first[0].index)
        for one in group.rollouts:
            assert [turn.index for turn in one.turns] == [*range(one.start, one.start + len(one.turns))]
        assert group.spent >= first[0].index
    assert len(starts) > 2, "in the middle of tasks, at different places"


def test_every_sampled_turn_is_counted(site):
    for fork in (None, Fork(), Fork(continuations=3, train="answer")):
        policy = Coin(0.85)
        collect = Collector(plan_of(site, fork=fork, groups=2, rollouts=3))
        collect(policy, 0)
        assert collect.sampled_turns == policy.asked


def test_an_answer_is_worth_the_mean_of_its_continuations(site):
    plan = plan_of(site, fork=Fork(continuations=4, train="answer"), tries=1)
    made = generation(plan, Coin(0.8), 0, 0)
    rollouts = [one for group in made.groups for one in group.rollouts]
    assert {len(one.turns) for one in rollouts} == {1}
    values = {
        one.outcome.progress if one.outcome.progress is not None else float(one.outcome.success) for one in rollouts
    }
    assert values <= {0, 0.25, 0.5, 0.75, 1}
    assert len(values) > 2


def test_the_expert_values_short_branches(site):
    plan = plan_of(site, credit="ui-s1", fork=Fork(most=2), tries=1, groups=8)
    made = generation(plan, Coin(0.7), 0, 0)
    rollouts = [one for group in made.groups for one in group.rollouts]
    assert max(len(one.turns) for one in rollouts) == 2
    assert any(group.signal == "kept" for group in made.groups)
    assert {one.ended for one in rollouts if one.outcome is None} <= {"finished", "mismatch"}


def test_a_world_that_restores_nothing_says_so(site):
    class Plain:
        def __init__(self, task):
            self.start, self.check, self.close = task.start, task.check, task.close
            self.id, self.goal, self.max_steps = task.id, task.goal, task.max_steps

    class Session:
        def task(self, name):
            return Plain(site.session.task(name))

    bare = Site(Session(), TALK)
    with pytest.raises(SetupError, match=r"restores no states; remove online.fork"):
        generation(plan_of(bare, fork=Fork()), Coin(0.9), 0, 0)


# ---------------------------------------------------------------------------------------------------------------- faults


def told(group):
    return [(one.sample, one.ended, one.outcome, one.goal, one.turns) for one in group.rollouts]


ONCE = Site._once


def faulty(fails, retries):
    return Site(TellingTasks(8, seed=5, split="train", device="hand", fails=fails).open(0), TALK, retries=retries)


@pytest.mark.parametrize(
    ("credit", "groups", "generations"), [("outcome", 2, 1), pytest.param("gigpo", 4, 2, marks=pytest.mark.slow)]
)
def test_a_world_that_fails_a_fifth_of_its_calls_gives_the_same_groups(site, credit, groups, generations):
    """Start, screenshot, action and check, each with probability 0.2: most tries fail. Rollouts, credit and the number of sampled
    turns are those of a sound world."""
    size = {"groups": groups, "rollouts": 4, "tries": generations}
    broken, sound = faulty(0.2, retries=2000), replace(site, expert=None)
    policies = Coin(0.9), Coin(0.9)
    with_faults, without = [], []
    first = Collector(plan_of(broken, credit=credit, **size), record=with_faults.append)
    second = Collector(plan_of(sound, credit=credit, **size), record=without.append)
    for number in range(generations):
        samples = first(policies[0], number)
        assert samples
        assert samples == second(policies[1], number)
        assert first.metrics["ends/infrastructure"] > 5 * groups * 4
    for one, other in zip(with_faults, without, strict=True):
        assert [told(group) for group in one.groups] == [told(group) for group in other.groups]
    same = first.metrics.keys() - {"ends/infrastructure", "rollout/turns_per_second"}
    assert {key: first.metrics[key] for key in same} == {key: second.metrics[key] for key in same}
    assert set(first.metrics) <= set(METRICS)
    assert policies[0].asked == policies[1].asked == first.sampled_turns, "no turn was sampled twice"
    broken.session.close()


@pytest.mark.parametrize("retries", [0, 2000])
def test_faults_of_every_part_of_a_forked_group_are_counted(retries, monkeypatch):
    """Of the attempt that goes ahead, of the answers, and of their further continuations."""
    broken, crashes = faulty(0.1, retries=retries), [0]

    def once(self, *arguments):
        made = yield from ONCE(self, *arguments)
        crashes[0] += made.ended == "crashed"
        return made

    monkeypatch.setattr(Site, "_once", once)
    plan = plan_of(broken, fork=Fork(continuations=3, train="answer"), groups=2, rollouts=3, tries=1)
    made = generation(plan, Coin(0.9), 0, 0)
    assert sum(group.faults for group in made.groups) == crashes[0] > 0
    broken.session.close()


def test_attempts_that_ran_out_of_tries_are_missing_and_change_nothing_else(site):
    """What comes through is what a sound world gives, and its credit is that of the group without the lost ones."""
    broken, plan = faulty(0.05, retries=1), plan_of(replace(site, expert=None), tries=1)
    made = generation(replace(plan, units=live_units(NAMES, broken.begin)), Coin(0.9), 0, 0)
    sound = generation(plan, Coin(0.9), 0, 0)
    lost = 0
    for ours, theirs in zip(made.groups, sound.groups, strict=True):
        here = {one.sample for one in ours.rollouts}
        left = tuple(one for one in theirs.rollouts if one.sample in here)
        lost += len(ours.lost)
        assert len(ours.lost) == 6 - len(here)
        assert all(one.ended != "crashed" and one.outcome is not None for one in ours.rollouts)
        assert told(ours) == told(replace(theirs, rollouts=left))
        credited = plan.credit(left)
        assert (ours.signal, [*map(list, ours.samples)]) == (credited.signal, credited.samples)
    assert 0 < lost < 20
    broken.session.close()


def test_a_fault_at_the_check_samples_nothing_again(site):
    """The second try gives the answers of the first; only the world works again."""
    session = site.session

    class Once:
        def __init__(self, task):
            self.task = task

        def __getattr__(self, name):
            return getattr(self.task, name)

        def check(self):
            checked.append(self.task.id)
            if len(checked) == 1:
                raise EnvCrashed("the check failed")
            return self.task.check()

    class Opened:
        def task(self, name):
            return Once(session.task(name))

    checked, policy = [], Coin(1.0)
    [made] = drive([((0,), Site(Opened(), TALK).attempt(NAMES[0], 0))], policy, SAMPLING)
    assert (made.tries, made.spent, len(checked)) == (1, 0, 2)
    assert made.outcome.success
    assert policy.asked == len(made.turns)


def test_a_changed_screen_is_asked_about_again(site):
    """Up to the first screen that differs from that of the try before, the answers are known."""
    heard, asked = Heard(), []

    def walk(prompts, crashed):
        said = []
        for prompt in prompts:
            said.append((yield prompt))
        return Rollout("task", 0, (), "crashed" if crashed else "finished", reason=" ".join(said))

    def answered(walk):
        try:
            prompt = next(walk)
            while True:
                asked.append(prompt)
                prompt = walk.send(f"{prompt}{len(asked)}")
        except StopIteration as stop:
            return stop.value.reason

    assert answered(heard.again(walk("abc", True))) == "a1 b2 c3"
    assert answered(heard.again(walk("abxc", True))) == "a1 b2 x4 c5"
    assert answered(heard.again(walk("abxc", False))) == "a1 b2 x4 c5"
    assert answered(heard.again(walk("ax", False))) == "a1 x6"
    assert heard.asked == 6


def test_a_world_that_always_fails_gives_no_sample_and_says_why():
    session = TellingTasks(8, seed=5, split="train", device="hand", fails=1.0).open(0)
    collect = Collector(plan_of(Site(session, TALK, retries=1), tries=1))
    assert collect(Coin(0.9), 0) == []
    assert collect.metrics["ends/infrastructure"] == 4 * 6 * 2, "every try counts"
    made = generation(plan_of(Site(session, TALK, retries=1), tries=1), Coin(0.9), 0, 0)
    assert all(group.lost == ("start: an injected fault",) * 6 for group in made.groups)
    session.close()


def test_the_check_has_a_deadline_of_its_own(site, monkeypatch):
    take, given = site.session.task, []

    class Session:
        def task(self, name):
            task = take(name)
            task.check, check = lambda: time.sleep(0.3) or check(), task.check
            return task

    slow = Site(Session(), TALK, Patience(step=100, check=0.1), retries=0)
    [made] = drive([((0,), slow.attempt(NAMES[0], 0))], Coin(0.0), SAMPLING)
    assert (made.ended, made.reason) == ("crashed", "checking took longer than 0.1 s")

    monkeypatch.setattr("guiderail.envs.live.attempts.within", lambda *limit: given.append(limit) or nullcontext())
    for patience in (Patience(step=5, check=60), Patience(step=5)):
        drive([((0,), Site(site.session, TALK, patience).attempt(NAMES[0], 0))], Coin(0.0), SAMPLING)
    limits = [dict(map(reversed, one)) for one in (given[: len(given) // 2], given[len(given) // 2 :])]
    assert [one["checking"] for one in limits] == [60, 5]
    assert [one["acting"] for one in limits] == [5, 5]


# ------------------------------------------------------------------------------------------------------------ curriculum


def group_of(unit, visit, wins, of=4, generation=0):
    rollouts = tuple(Rollout(unit, i, (), "finished", Outcome(i < wins)) for i in range(of))
    return Group(generation, visit, unit, "kept", rollouts, ((),) * of)


def test_bands_prefer_easy_tasks_first_and_hard_ones_last():
    curriculum = Curriculum("abcde", generations=8, cooling=False)
    curriculum.learn([group_of("a", 0, 4), group_of("b", 1, 2), group_of("c", 2, 1), group_of("d", 3, 0)], 0)
    assert [band(rate) for rate in (0, 0.24, 0.25, 0.5, 0.75, 1)] == [0, 0, 1, 2, 3, 3]

    def weights():
        return [curriculum.weight(curriculum.known.get(name), 9) for name in "abcde"]

    o = OTHER_BANDS
    assert (curriculum.stage, weights()) == (0, [1, o, o, o, 1])
    for generation_, stage, expected in ((1, 1, [o, 1, o, o, 1]), (3, 2, [o, o, 1, o, 1]), (7, 3, [o, o, o, 1, 1])):
        curriculum.learn([], generation_)
        assert (curriculum.stage, weights()) == (stage, expected)


def test_a_hopeless_task_cools_and_then_leaves():
    """Two failed groups, three passes of two tasks with weight exp(-2), then one more failure."""
    curriculum = Curriculum("ab", generations=100, bands=False)
    curriculum.learn([group_of("a", 0, 0)], 0)
    assert curriculum.weight(curriculum.known["a"], 1) == 1
    curriculum.learn([group_of("a", 5, 0)], 1)
    assert curriculum.weight(curriculum.known["a"], 6) == pytest.approx(0.1353352832)
    curriculum.learn([group_of("a", 8, 0)], 2)  # drawn while it cools: counted, but not its last chance
    assert curriculum.weight(curriculum.known["a"], 9) == pytest.approx(0.0497870684)
    assert curriculum.weight(curriculum.known["a"], 11) == 1
    solved = Curriculum("ab", 100, bands=False)
    solved.load_state_dict(json.loads(json.dumps(curriculum.state_dict())))
    curriculum.learn([group_of("a", 11, 0)], 3)
    assert curriculum.weight(curriculum.known["a"], 12) == 0
    assert {curriculum(visit) for visit in range(40)} == {1}
    solved.learn([group_of("a", 11, 1)], 3)
    assert solved.weight(solved.known["a"], 12) == 1


def test_what_is_drawn_depends_on_the_state_alone():
    first, second = Curriculum(NAMES, 10), Curriculum(NAMES, 10)
    for curriculum in (first, second):
        curriculum.learn([group_of(NAMES[0], 0, 0), group_of(NAMES[1], 1, 4)], 0)
    assert [first(v) for v in range(50)] == [second(v) for v in range(50)]


# ---------------------------------------------------------------------------------------------------------------- replay


def test_an_own_success_takes_the_place_of_a_failure(site, tmp_path):
    """First a good policy succeeds, then a hopeless one: its groups learn from what succeeded, with the log-probabilities of
    then, and what is replayed survives a checkpoint."""
    successes = Successes(TALK, tmp_path / "images", keep=2)
    plan = plan_of(site, groups=8, tries=1, fill=successes.fill, memories=(successes,))
    collect = Collector(plan, record=lambda made: keep_screenshots(tmp_path, made, ()))
    collect(Coin(0.97), 0)
    assert successes.kept
    assert all(len(rows) <= 2 for rows in successes.kept.values())
    state = json.loads(json.dumps(collect.state_dict()))

    again = Successes(TALK, tmp_path / "images", keep=2)
    resumed = Collector(plan_of(site, groups=8, tries=1, fill=again.fill, memories=(again,)))
    resumed.load_state_dict(state)
    for one in (collect, resumed):
        before, hopeless = one.sampled_turns, Coin(0.0)
        samples = one(hopeless, 3)
        assert one.sampled_turns - before == hopeless.asked, "replayed turns were not sampled again"
        assert one.metrics["ends/replayed"] == one.metrics["groups/kept"] > 0
        old = [sample for sample in samples if sample.behind]
        assert {sample.behind for sample in old} == {3}
        assert all(sample.advantage > 0 for sample in old)
        assert all(sample.advantage < 0 for sample in samples if not sample.behind)
        assert all(sample.completion.logprobs == (-0.5,) for sample in old)
        assert one.metrics["rollout/success"] == one.metrics["ends/success"] == 0, (
            "what is replayed is not a new success"
        )
    unit, rows = next(iter(again.kept.items()))
    verdicts = [turn.verdict for turn in again._again(unit, 0, rows[0]).turns]
    assert any(verdict is not None and verdict.exact for verdict in verdicts), "judged as when it was sampled"
    assert [s.prompt for s in collect(Coin(0.0), 4)] == [s.prompt for s in resumed(Coin(0.0), 4)]


def test_a_task_that_only_replay_solves_cools():
    curriculum = Curriculum("ab", generations=100, bands=False)
    failed = group_of("a", 0, 0)
    kept = replace(failed.rollouts[0], outcome=Outcome(True), sampled=0)
    curriculum.learn([replace(failed, rollouts=(kept, *failed.rollouts[1:]))], 0)
    assert (curriculum.known["a"].rate, curriculum.known["a"].failed) == (0, 1)


# ----------------------------------------------------------------------------------------------------------------- mixed


def test_a_mixed_update_has_both_kinds(site, episode):
    def collector():
        units = episode_units([episode], lambda e, i: walk(e, dialogue=TALK, sample=i))
        along = Plan(units, credit_named("ui-s1", CreditRules(eta=0.0)), groups=1, rollouts=6, sampling=SAMPLING)
        return MixedCollector(Collector(plan_of(site, groups=3)), Collector(along))

    mixed = collector()
    policy = Coin(0.9)
    samples = mixed(policy, 0)
    assert {sample.unit == episode.id for sample in samples} == {True, False}
    assert 0 < mixed.metrics["recordings/exact"] < 1
    assert set(mixed.metrics) <= set(METRICS)
    assert mixed.sampled_turns == policy.asked == mixed.metrics["rollout/turns_total"]
    resumed = collector()
    resumed.load_state_dict(json.loads(json.dumps(mixed.state_dict())))
    assert [s.completion for s in mixed(Coin(0.9), 1)] == [s.completion for s in resumed(Coin(0.9), 1)]


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_recorded_turns_are_a_share_of_the_whole_mixed_update(site, episode, share):
    units = episode_units([episode], lambda e, i: walk(e, dialogue=TALK, sample=i))
    along = Plan(units, credit_named("ui-s1", CreditRules(eta=0.0)), groups=1, rollouts=6, sampling=SAMPLING)
    steps = [(episode.id, episode, t % len(episode.steps)) for t in range(1000)]
    told = RecordedTurns(steps, lambda e, t: (Prompt(()), "said", (1,)), share, seed=0)
    mixed = MixedCollector(Collector(plan_of(site, groups=3)), Collector(along, beside=told))
    samples = mixed(Coin(0.9), 0)
    recorded = [sample for sample in samples if sample.sample == RECORDED]
    assert len(recorded) == round((len(samples) - len(recorded)) * share / (1 - share))


@pytest.mark.parametrize(("groups", "mix", "share"), [(8, 0.5, 4), (8, 0.01, 1), (8, 0.99, 7), (2, 0.5, 1)])
def test_the_share_leaves_a_group_of_each_kind(groups, mix, share):
    assert share_of(groups, mix) == share


# ---------------------------------------------------------------------------------------------------------------- worlds


def test_worlds_are_found_by_name_and_their_options_checked(tmp_path):
    assert world_of("pocket", {"n": 3, "split": "train"}) == PocketTasks(3, split="train")
    for options, words in (({"tasks": 3}, "unknown key world.options.tasks"), ({"n": "many"}, "world.options.n: ")):
        with pytest.raises(SetupError, match=words):
            world_of("pocket", options)
    with pytest.raises(SetupError, match=r"did you mean|those of the package: pocket"):
        world_of("pockets", {})
    assert drive([], Coin(1), SAMPLING) == []
