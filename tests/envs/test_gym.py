"""The registered environments pass Gymnasium's own checker and mean what the rest of the project means."""

import random

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("android_env")

import gymnasium
from gymnasium.utils.env_checker import check_env

from agent.errors import EnvCrashed
from agent.scripted import random_action
from agent.types import ACTION_NAMES, Answer, Click, Key, LongPress, Point, Swipe, Terminate, Type, Wait
from envs.gym import LiveEnv, action_space, to_action, to_dict
from envs.pocket.live import PocketTasks

SIZE = (160, 288)


@pytest.mark.filterwarnings("error")
def test_the_checker_of_gymnasium_passes():
    env = gymnasium.make("guiderail/Pocket-v0", tasks=3, render_mode="rgb_array")
    check_env(env.unwrapped)


def test_the_name_can_be_made_with_its_module():
    env = gymnasium.make("envs.gym:guiderail/Pocket-v0", tasks=2)
    observation, info = env.reset(seed=1)
    assert observation["pixels"].shape == (288, 160, 3)
    assert observation["goal"]
    assert info["task"]
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
    env.reset(seed=1)

    class Broken:
        def act(self, action):
            raise EnvCrashed("gone")

    env._device = Broken()
    observation, reward, terminated, truncated, info = env.step(to_dict(Click(Point(0.5, 0.5))))
    assert (reward, terminated, truncated, info["crashed"]) == (0.0, False, True, "gone")
    assert env.observation_space.contains(observation)
    env.close()
