"""The registered environments pass Gymnasium's own checker and mean what the rest of the project means."""

import random
from functools import partial

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("android_env")

import gymnasium
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from guiderail.agent.errors import EnvCrashed
from guiderail.agent.scripted import random_action
from guiderail.agent.types import ACTION_NAMES, Answer, Click, Key, LongPress, Point, Swipe, Terminate, Type, Wait
from guiderail.envs.gym import LONGEST_GOAL, LiveEnv, action_space, goal_bytes, goal_text, to_action, to_dict
from guiderail.envs.pocket.world import PocketTasks

SIZE = (160, 288)


@pytest.mark.filterwarnings("error")
def test_the_checker_of_gymnasium_passes():
    env = gymnasium.make("guiderail/Pocket-v0", tasks=3, render_mode="rgb_array")
    check_env(env.unwrapped)


def test_the_name_can_be_made_with_its_module():
    env = gymnasium.make("guiderail.envs.gym:guiderail/Pocket-v0", tasks=2)
    observation, info = env.reset(seed=1)
    assert observation["pixels"].shape == (288, 160, 3)
    assert goal_text(observation["goal"]) == info["goal"] != ""
    assert info["task"]
    env.close()


def test_style_phone_has_its_own_size_and_wordings():
    env = gymnasium.make("guiderail/Pocket-v0", tasks=2, style="phone", seed=4)
    observation, info = env.reset(seed=0)
    assert observation["pixels"].shape == (800, 360, 3)
    assert info["task"].endswith("-phone-live")
    assert np.unique(observation["pixels"].reshape(-1, 3), axis=0).shape[0] > 500, "a wallpaper has many colours"
    env.close()


def test_actions_survive_the_way_there_and_back():
    rng = random.Random(0)
    actions = [random_action(rng) for _ in range(50)] + [Key("enter"), Answer("x"), Terminate("failure")]
    for action in actions:
        given = to_dict(action)
        again = to_action(given)
        assert type(again) is type(action)
        match action:
            case Click(point) | LongPress(point, _):
                assert (again.point.x, again.point.y) == pytest.approx((point.x, point.y))
            case Swipe(_, end):
                assert (again.end.x, again.end.y) == pytest.approx((end.x, end.y))
            case _:
                assert again == action
    assert action_space().contains(to_dict(Type("milk")) | {"seconds": np.array([0.5], np.float32)})
    assert {to_action(action_space().sample(mask=None)).name for _ in range(200)} == {*ACTION_NAMES}


def test_the_expert_is_rewarded_once_and_at_the_end():
    env = LiveEnv(PocketTasks(3), SIZE)
    env.reset(seed=0)
    rewards, terminated = [], False
    while not terminated:
        _, action = env._task.expert()
        _, reward, terminated, truncated, _ = env.step(to_dict(action))
        rewards.append(reward)
        assert not truncated
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
    env.close()


def test_steps_run_out_and_a_broken_machine_truncates():
    env = LiveEnv(PocketTasks(3), SIZE)
    env.reset(seed=0)
    for _ in range(env._task.max_steps):
        _, reward, terminated, truncated, info = env.step(to_dict(Wait(0.0)))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "crashed" not in info
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
        env.step(to_dict(Wait(0.0)))
    env.reset(seed=1)

    class Broken:
        def act(self, action):
            raise EnvCrashed("gone")

    env._device = Broken()
    observation, reward, terminated, truncated, info = env.step(to_dict(Click(Point(0.5, 0.5))))
    assert (reward, terminated, truncated, info["crashed"]) == (0.0, False, True, "gone")
    assert env.observation_space.contains(observation)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(to_dict(Wait(0.0)))
    env.close()


def test_a_start_that_fails_leaves_no_device_of_the_episode_before(monkeypatch):
    env = LiveEnv(PocketTasks(3), SIZE)
    env.reset(seed=0)

    def broken(self):
        raise EnvCrashed("gone")

    monkeypatch.setattr("guiderail.envs.pocket.world.LivePocketTask.start", broken)
    with pytest.raises(EnvCrashed):
        env.reset(seed=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(to_dict(Wait(0.0)))
    env.close()


def test_goals_survive_as_bytes():
    for goal in ("", "Buy milk.", "Öffne „Café“ 日本 🙂", "é" * LONGEST_GOAL):
        again = goal_text(goal_bytes(goal))
        assert again == goal or (goal.startswith(again) and len(again) == LONGEST_GOAL // 2)
    assert goal_bytes("x" * 5000).shape == (LONGEST_GOAL,)
    assert goal_text(goal_bytes("a" + "é" * LONGEST_GOAL)) == "a" + "é" * (LONGEST_GOAL // 2 - 1)


@pytest.mark.parametrize("kind", ["sync", "shared", pytest.param("pipes", marks=pytest.mark.slow)])
def test_vector_environments_give_every_goal(kind):
    """In Gymnasium's default AsyncVectorEnv, too, which keeps observations in shared memory."""
    makers = [partial(LiveEnv, PocketTasks(6), SIZE) for _ in range(2)]
    asynchronous = partial(AsyncVectorEnv, makers, context="forkserver")
    made = {
        "sync": partial(SyncVectorEnv, makers),
        "shared": asynchronous,
        "pipes": partial(asynchronous, shared_memory=False),
    }
    alone = LiveEnv(PocketTasks(6), SIZE)
    goals = [alone.reset(seed=seed)[1]["goal"] for seed in (2, 3)]
    many = made[kind]()
    observation, info = many.reset(seed=2)
    assert [goal_text(one) for one in observation["goal"]] == [*info["goal"]] == goals
    assert observation["pixels"].shape == (2, SIZE[1], SIZE[0], 3)
    done = batch_actions(many, [Terminate("failure"), Wait(0.0)])
    observation, _, terminated, _, info = many.step(done)
    assert [*terminated] == [True, False]
    observation, *_ = many.step(done)  # the first one begins its next task by itself
    following = alone.reset(seed=3)[1]["goal"]
    assert [goal_text(one) for one in observation["goal"]] == [following, goals[1]]
    many.close()
    alone.close()


def batch_actions(many, actions):
    return concatenate(
        many.single_action_space, [*map(to_dict, actions)], create_empty_array(many.single_action_space, len(actions))
    )
