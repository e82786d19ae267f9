"""The lines of a shipped model's card work as they stand there, without torchvision: they answer what our policy answers."""

import importlib.util
import re
from pathlib import Path

import pytest
from transformers import AutoProcessor

from guiderail.agent.dialects import BRIEF
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.local.policy import load_policy
from guiderail.agent.policy import GREEDY, Request
from guiderail.agent.shipped import SHIPPED
from guiderail.agent.types import Message
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.envs.recordings.replay import expert_prompt


def from_card(folder: Path) -> dict:
    """What the card's three lines define, for this folder."""
    card = (folder / "README.md").read_text().split("## Load it with transformers")[1]
    lines = re.findall(r"^    ((?:from|model|images)\b.*)$", card, re.MULTILINE)
    assert len(lines) == 3
    found: dict = {"folder": folder}
    exec("\n".join(lines), found)
    return found


def plain(message: Message) -> dict:
    parts = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message.parts]
    return {"role": message.role, "content": parts}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_cards_lines_answer_what_our_policy_answers(name, tmp_path):
    record(tmp_path / "data", 1, 5)
    (episode,) = load_episodes(tmp_path / "data").episodes
    policy = load_policy(name, "cpu")
    prompt = expert_prompt(episode, 0, Dialogue(policy.vision, BRIEF, 1))
    (expected,) = policy.complete([Request(prompt)], GREEDY)

    card = from_card(SHIPPED[name])
    pixels = card["images"]([prompt.screen.screenshot.image()], return_tensors="pt")
    text = card["tokenizer"].apply_chat_template(
        [plain(message) for message in prompt.messages], tokenize=False, add_generation_prompt=True
    )
    patches = int(pixels["image_grid_thw"].prod())  # these models merge none: a token per patch
    ids = card["tokenizer"](text.replace("<|image_pad|>", "<|image_pad|>" * patches), return_tensors="pt")
    shown = (ids["input_ids"] == card["model"].config.image_token_id).int()
    answer = card["model"].generate(**ids, **pixels, mm_token_type_ids=shown, max_new_tokens=32, do_sample=False)
    said = card["tokenizer"].decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said.strip() == expected.text.strip() != ""


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_what_the_card_warns_of_is_still_so():
    with pytest.raises(ImportError, match=r"[Tt]orchvision"):
        AutoProcessor.from_pretrained(SHIPPED["tiny-sft"])
