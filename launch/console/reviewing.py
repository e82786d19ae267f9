"""The page of `guiderail console --review RUN`: where agent and expert part, one question after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.types import Screenshot
from guiderail.launch.byhand.review import Divergence, Review
from guiderail.launch.console.asked import routes, sides, text_of
from guiderail.launch.console.server import Page
from guiderail.launch.console.talk import action_of
from guiderail.launch.console.view import cut, drawn
from guiderail.launch.sheet import said


@dataclass
class Desk:
    """The questions in order; those that were passed over come last. answered: by this page."""

    review: Review
    answered: int = 0

    def do(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """{"do": "show", "pass", "agent", "expert", or "person" with an action}. Raises SetupError."""
        name = said.get("do")
        if name != "show":
            question = self._asked(said)
            if name == "pass":
                self.review.questions.remove(question)
                self.review.questions.append(question)
            elif name in ("agent", "expert", "person"):
                action = action_of(said.get("action")) if name == "person" else None
                verdict = "agent" if name == "agent" else "person"
                self.review.answer(question, verdict, action, text_of(said, "thought"))  # type: ignore[arg-type]
                self.answered += 1
            else:
                raise SetupError(f"the review knows no {str(name)[:40]!r}")
        return self.view()

    def _asked(self, said: Mapping[str, Any]) -> Divergence:
        """The question that the page shows; another page may have answered it meanwhile."""
        if not self.review.questions:
            raise SetupError("everything has been answered")
        question = self.review.questions[0]
        if said.get("place") != [question.episode.id, question.index]:
            raise SetupError("this question is not the first any more; look at the page again")
        return question

    def view(self) -> dict[str, Any]:
        left = len(self.review.questions)
        row: dict[str, Any] = {"run": self.review.run.name, "left": left, "answered": self.answered, "question": None}
        if left:
            row["question"] = _question(self.review.questions[0])
        return row

    def image(self, digest: str) -> bytes | None:
        """A screen of the question that is shown."""
        for shot in _shots(self.review.questions[0]) if self.review.questions else ():
            if shot.digest == digest:
                return shot.encoded()
        return None


def _shots(one: Divergence) -> list[Screenshot]:
    return [one.step.screenshot, *([one.following.screenshot] if one.following else [])]


def _question(one: Divergence) -> dict[str, Any]:
    return {
        "place": [one.episode.id, one.index],
        "goal": cut(one.episode.goal),
        "steps": len(one.episode.steps),
        "before": [cut(said(step.action)) for step in one.episode.steps[: one.index]][-4:],
        "screen": _shown(one.step.screenshot),
        "next": one.following and _shown(one.following.screenshot),
        "agent": one.action and drawn(one.action),
        "thought": cut(one.thought or ""),
        "expert": drawn(one.step.action),
        "boxes": [sides(target.box) for target in sorted(one.step.boxes, key=lambda target: target.box.area)[:1]],
        "why": cut(one.why),
        "alike": one.alike,
    }


def _shown(shot: Screenshot) -> dict[str, Any]:
    return {"src": shot.digest, "w": shot.width, "h": shot.height}


def review_page(review: Review) -> Page:
    desk = Desk(review)
    return Page("", "Review", "review.html", routes(desk.do, desk.image))
