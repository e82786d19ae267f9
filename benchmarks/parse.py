"""How long it takes to read one noisy model answer, in each dialect.

python benchmarks/parse.py [--turns 20000] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator

from guiderail.agent.dialects import DIALECTS, Dialect
from guiderail.agent.errors import UnreadableAction
from guiderail.agent.screen import ScreenTransform
from guiderail.agent.types import (
    BUTTONS,
    Action,
    Answer,
    Click,
    Key,
    LongPress,
    Open,
    Point,
    Swipe,
    SystemButton,
    Terminate,
    Wait,
)
from guiderail.agent.types import Type as Write

SCREEN = ScreenTransform(1092, 2408)
TEXTS = ("milk", "don't stop", 'say "hi" (now)', "a, b=c", "naïve ☕", "[x]", "two\nlines", "C:\\dir", "", "</action>")
THOUGHTS = (
    None,
    "",
    "The list (see below) is empty; it's time to search, isn't it?",
    "First click(start_box='(1,2)'), then wait.\nAction: none yet",
    'A JSON {"action": "wait"} stands here. 50% [done]',
    "行动：点击搜索",
)
SYNTAX = """<think> </think> <action> </action> <tool_call> </tool_call> Thought: Action: actions: action: thoughts: { } [ ]
( ) " ' \\ , : = POINT to duration STATUS TYPE PRESS CLICK SCROLL [UP] coordinate action_type x y null true NaN 1e999 -1
99999999999999999999 pyautogui.click( mobile.swipe( click(start_box=' <|box_start|> <point> </point> <|im_end|>"""
LONG = ("x" * 300, "[" * 200, "{" * 200, "(" * 200, "'" * 200, "\\" * 201)
SOUP = (*SYNTAX.split(), *LONG, " ", "\n", "\n\n", "\0", "\ud800", "\u2028")


def random_action(rng: random.Random) -> Action:
    here, there = Point(rng.random(), rng.random()), Point(rng.random(), rng.random())
    text = rng.choice(TEXTS)
    return rng.choice(
        (
            Click(here),
            LongPress(here, rng.random() * 5),
            Swipe(here, there),
            Write(text),
            Open(text),
            Answer(text),
            Key(text),
            SystemButton(rng.choice(BUTTONS)),
            Wait(rng.random() * 5),
            Terminate(rng.choice(("success", "failure"))),
        )
    )


def said(dialect: Dialect, rng: random.Random) -> str:
    """A well-formed answer."""
    while not dialect.says(action := random_action(rng)):
        pass
    return dialect.say(rng.choice(THOUGHTS), action, SCREEN)


def noisy_turns(dialect: Dialect, count: int, seed: int = 0) -> Iterator[str]:
    """Answers as a model writes them. A quarter is well formed, half is damaged, a quarter is random pieces of the syntax."""
    rng = random.Random(seed)
    for number in range(count):
        kind = number % 4
        if kind == 3:
            yield "".join(rng.choices(SOUP, k=rng.randrange(1, 25)))
            continue
        text = said(dialect, rng)
        for _ in range(rng.randrange(1, 5) if kind else 0):
            text = _damaged(text, dialect, rng)
        yield text


def _damaged(text: str, dialect: Dialect, rng: random.Random) -> str:
    start, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    match rng.randrange(6):
        case 0:
            return text[:start] + text[min(end, start + rng.randrange(1, 12)) :]
        case 1:
            return text[:start] + rng.choice(SOUP) + text[start:]
        case 2:
            return text[:end]
        case 3:
            return text[:end] + text[start:]
        case 4:
            return text[:start] + said(dialect, rng)[start:]
    return text[:start] + chr(rng.randrange(32, 0x2FF)) + text[start + 1 :]


def measure(dialect: Dialect, count: int) -> dict[str, float]:
    """Microseconds per answer, and the share of answers that held an action."""
    turns = list(noisy_turns(dialect, count))
    times, readable = [], 0
    for turn in turns:
        start = time.perf_counter_ns()
        try:
            dialect.read(turn, SCREEN)
            readable += 1
        except UnreadableAction:
            pass
        times.append((time.perf_counter_ns() - start) / 1000)
    cuts = statistics.quantiles(times, n=100)
    return {
        "median_us": statistics.median(times),
        "p99_us": cuts[98],
        "max_us": max(times),
        "readable": readable / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = {name: measure(dialect, options.turns) for name, dialect in DIALECTS.items()}
    if options.json:
        print(json.dumps({"turns": options.turns, "dialects": result}))
        return
    for name, row in result.items():
        print(
            f"{name:12} median {row['median_us']:6.1f} us   p99 {row['p99_us']:6.1f} us   readable {row['readable']:.0%}"
        )


if __name__ == "__main__":
    main()
