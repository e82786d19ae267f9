"""Screenshots carry no lines or circles where a finger was, whichever way a phone is reached."""

import shutil

import pytest

from guiderail.envs.pocket.adb.shell import run
from guiderail.envs.pocket.tasks import task


@pytest.mark.parametrize("road", ["android_env", "adb"])
def test_pointer_lines_are_off_when_a_task_starts(road):
    if road == "adb" and shutil.which("adb") is None:
        pytest.skip("no adb client here; apt-get install adb")
    if road == "android_env":
        pytest.importorskip("android_env")
    from guiderail.envs.pocket.world import host

    phones = host(road, (160, 288))
    try:
        for seed in (0, 1):
            phones.start(task("toggle", seed, "train", "easy"))
            for name in ("show_touches", "pointer_location"):
                assert run(phones.phone, ["settings", "get", "system", name]).strip() == "0"
            run(phones.phone, ["settings", "put", "system", "pointer_location", "1"])
    finally:
        phones.close()
