"""The expert: it follows the way that `ways` has for a task, one action at a time."""

from __future__ import annotations

from collections.abc import Mapping

from guiderail.agent.types import Action, Terminate
from guiderail.envs.android_world.ways import media, messages, questions, storage, system, tables
from guiderail.envs.android_world.ways.steps import Params, Seen, Way, Ways

WAYS: Ways = {**system.WAYS, **storage.WAYS, **messages.WAYS, **tables.WAYS, **questions.WAYS, **media.WAYS}
"""AndroidWorld's task name -> a way through it on a pocket phone. Other tasks can be started, but not be solved here."""

WITHOUT: Mapping[str, str] = dict.fromkeys(
    ("BrowserDraw", "BrowserMaze", "BrowserMultiply"), "its page needs a browser that runs JavaScript"
)
"""Tasks without a way -> why. They start and are checked."""

UNSEEN: Mapping[str, str] = {
    "ExpenseAddMultipleFromGallery": "pictures are not drawn",
    "RecipeAddMultipleRecipesFromImage": "pictures are not drawn",
    "MarkorTranscribeReceipt": "pictures are not drawn",
    "MarkorTranscribeVideo": "videos are not played",
}
"""Tasks whose content a pocket phone does not show -> why. The expert has it from the parameters; no one else can."""


class Expert:
    """The way through one task. `act` takes what is visible now; where the way does not get on, it gives up."""

    def __init__(self, task: str, params: Params):
        self._make, self._params = WAYS[task], params
        self._way: Way | None = None

    def act(self, seen: Seen) -> Action:
        try:
            if self._way is None:
                self._way = self._make(seen, self._params)
                return next(self._way)
            return self._way.send(seen)
        except StopIteration:
            return Terminate("success")
        except (LookupError, ValueError, RuntimeError):  # an element, a day or a row that is not there
            return Terminate("failure")
