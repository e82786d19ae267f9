"""What models and servers say: a dialect reads it or raises UnreadableAction; an answer is a completion or BadAnswer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail.agent.dialects import DIALECTS
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.served.completion import BadAnswer, parse_json, read_completion
from guiderail.agent.types import Click, Point, Swipe, Type
from tests.fuzz.hostile import LONG, SHORT, fuzz, spoilt, torn, values

SCREEN = ScreenTransform(1000, 2000)
SAID = [
    dialect.say("why", action, SCREEN).encode()
    for dialect in DIALECTS.values()
    for action in (Click(Point(0.5, 0.5)), Swipe(Point(0.5, 0.8), Point(0.5, 0.2)), Type("text"))
]
ANSWER = {
    "choices": [
        {
            "finish_reason": "stop",
            "message": {"content": "hello", "reasoning_content": "why"},
            "token_ids": [1, 2],
            "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1.5}]},
        }
    ]
}


def read_text(name: str, text: str) -> None:
    try:
        reply = DIALECTS[name].read(text, SCREEN)
    except UnreadableAction:
        return
    DIALECTS[name].say(reply.thought, reply.action, SCREEN)


def read_answer(data: bytes) -> None:
    try:
        completion = read_completion(parse_json(data), True)
    except BadAnswer:
        return
    completion.text.encode()
    assert len(completion.token_ids) == len(completion.logprobs)


def dialects(count: int):
    @fuzz(count)
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        whole = data.draw(st.sampled_from(SAID).flatmap(torn)).decode("utf-8", "replace")
        text = data.draw(
            st.sampled_from((whole, whole + "\ud800", whole.replace("500", "1e400"), whole * 3)) | st.text()
        )
        for name in DIALECTS:
            read_text(name, text)

    return run


def servers(count: int):
    @fuzz(count)
    @given(data=spoilt(ANSWER).map(lambda v: json.dumps(v).encode()) | torn(json.dumps(ANSWER).encode()) | values().map(lambda v: json.dumps(v).encode()))  # fmt: skip
    def run(data: bytes) -> None:
        read_answer(data)

    return run


def test_a_dialect_reads_or_says_why_not():
    dialects(SHORT)()


def test_a_servers_answer_is_read_or_named():
    servers(SHORT)()


@pytest.mark.slow
def test_dialects_for_long():
    dialects(LONG)()


@pytest.mark.slow
def test_servers_for_long():
    servers(LONG * 5)()
