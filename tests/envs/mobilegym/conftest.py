"""One checkout for all tests: that which GUIDERAIL_MOBILEGYM names, or else the stand-in beside this file."""

import os
from pathlib import Path

import pytest

pytest.importorskip("selenium")

from guiderail.agent.errors import SetupError
from guiderail.envs.live.chromium import find_browser
from guiderail.envs.mobilegym import page
from guiderail.envs.mobilegym.checkout import VARIABLE
from guiderail.envs.mobilegym.tasks import MobileGym

STANDIN = Path(__file__).parent / "standin"
REAL = os.environ.get(VARIABLE)
NAMES = ("notes.CreateNewNote", "notes.ReadNotesCount", "wechat.OpenNewFriends", "wechat.ToggleFriendConfirmation")


@pytest.fixture(scope="session", autouse=True)
def browser():
    try:
        find_browser()
    except SetupError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def checkout():
    return REAL or str(STANDIN)


@pytest.fixture(scope="session", autouse=True)
def quick():
    """The stand-in moves at once, so a screen need not be watched for long."""
    with pytest.MonkeyPatch.context() as patch:
        if not REAL:
            patch.setattr(page, "STILL_MS", 30)
        yield


@pytest.fixture(scope="session")
def session(checkout):
    """Of one browser, with the four tasks that checkout and stand-in share."""
    session = MobileGym(checkout, "train", NAMES, seeds=2, scale=1).open(0)
    yield session
    session.close()
