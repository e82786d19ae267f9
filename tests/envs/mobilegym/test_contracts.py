"""MobileGym keeps the contracts of live worlds, on the stand-in and, with GUIDERAIL_MOBILEGYM, on a real checkout."""

import pytest

from guiderail.envs.mobilegym.tasks import MobileGym
from tests.contracts import DeviceContract, TaskContract, WorldContract
from tests.envs.mobilegym.conftest import NAMES


class TestGymPhone(DeviceContract):
    @pytest.fixture
    def device(self, session):
        task = session.task("wechat.OpenNewFriends/0")
        yield task.start()
        task.close()


class TestMobileGym(TaskContract, WorldContract):
    @pytest.fixture
    def world(self, checkout):
        return MobileGym(checkout, "train", NAMES, seeds=2, scale=1)

    @pytest.fixture
    def task(self, session):
        return session.task("wechat.ToggleFriendConfirmation/0")

    @pytest.fixture
    def types(self, session):
        return session.task("notes.CreateNewNote/0")
