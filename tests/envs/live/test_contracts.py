"""Every environment keeps the one contract."""

import pytest

from guiderail.envs.pocket.hands import PhoneInHand
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state
from guiderail.envs.pocket.world import PocketTasks
from tests.contracts import DeviceContract, TaskContract, WorldContract

TEMPLATE_THAT_TYPES = "note"


class TestPhoneInHand(DeviceContract):
    @pytest.fixture
    def device(self):
        return PhoneInHand(Phone(new_state(3)))


@pytest.fixture(scope="module")
def pocket():
    pytest.importorskip("android_env")
    world = PocketTasks(60)
    session = world.open(0)
    yield world, session
    session.close()


def named(world, template):
    return next(name for name, groups in world.listed() if f"template:{template}" in groups)


class TestPocketBehindAndroidEnv(DeviceContract):
    @pytest.fixture
    def device(self, pocket):
        world, session = pocket
        task = session.task(named(world, "toggle"))
        yield task.start()
        task.close()


class TestAndroidEnvOnItsFakeSimulator(DeviceContract):
    """No phone behind it: noise for a screen, and no states."""

    still = False
    snapshots = False

    @pytest.fixture
    def device(self):
        pytest.importorskip("android_env")
        from android_env.components.config_classes import FakeSimulatorConfig
        from android_env.components.simulators.fake.fake_simulator import FakeSimulator

        from guiderail.envs.android.device import AndroidDevice
        from guiderail.envs.pocket.simulator import build_env

        device = AndroidDevice(build_env(FakeSimulator(FakeSimulatorConfig(screen_dimensions=(96, 48)))))
        yield device
        device.close()


class TestPocketTasks(TaskContract, WorldContract):
    @pytest.fixture
    def world(self):
        pytest.importorskip("android_env")
        return PocketTasks(4, seed=2, style="free")

    @pytest.fixture
    def task(self, pocket):
        world, session = pocket
        return session.task(named(world, "toggle"))

    @pytest.fixture
    def types(self, pocket):
        world, session = pocket
        return session.task(named(world, TEMPLATE_THAT_TYPES))
