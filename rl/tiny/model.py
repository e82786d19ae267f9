"""A tiny vision-language model of a standard class with random weights: the same code path as the 7B, seconds on a CPU.

`agent.local.policy.load_policy` loads its folder like any downloaded checkpoint.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from guiderail.agent.codec import say
from guiderail.agent.errors import SetupError
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
    Type,
    Wait,
)

Family = Literal["qwen3_vl", "qwen2_5_vl"]

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
LARGEST_NUMBER = 999
_PIECE = r" ?\d{1,2}:\d{2}(?!\d)|\d{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def build_tiny(
    out: Path,
    texts: Iterable[str],
    family: Family = "qwen3_vl",
    seed: int = 0,
    *,
    screen: tuple[int, int] = (160, 288),
    merge: int | None = None,
    width: int = 128,
    layers: int = 4,
    vision_width: int = 96,
    vision_layers: int = 3,
    vocabulary: int = 2048,
    words: Sequence[str] = (),
) -> Path:
    """Write weights, config, tokenizer, chat template and image processor to `out`; returns `out`.

    texts: training text of the tokenizer; give prompts and answers of the kind that the model will see. screen: the usual
    (width, height) in pixels, for the size of the position table. merge: patches per image token and side, by default 1 for
    Qwen3-VL (180 image tokens for 160x288 px; with one 16-px cell each, reading can be learned at this size) and 2 for
    Qwen2.5-VL (patch 14). width, layers, vision_width, vision_layers: sizes of language model and vision tower. vocabulary:
    upper bound on tokens, of which 1263 are bytes, numbers and specials. words: additional; each is one token after a space
    and another one elsewhere, and the two embeddings start close together, which makes copying a word from a sentence into
    a quoted string easy to learn. The same arguments give the same bytes. Raises SetupError for a word of several tokens.
    """
    tokenizer = build_tokenizer(texts, vocabulary, words)
    merge = merge or (1 if family == "qwen3_vl" else 2)
    torch.manual_seed(seed)
    make = _qwen3_vl if family == "qwen3_vl" else _qwen2_5_vl
    model, patch = make(tokenizer, screen, merge, width, layers, vision_width, vision_layers)
    if words:
        spaced, plain = (_word_ids(tokenizer, words, prefix) for prefix in (" ", ""))
        with torch.no_grad():
            rows = model.get_input_embeddings().weight
            rows[spaced] = 0.9 * rows[plain] + math.sqrt(1 - 0.9**2) * rows[spaced]
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    cell = (patch * merge) ** 2
    processor = Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=merge, size={"shortest_edge": 4 * cell, "longest_edge": 4096 * cell}
    )
    for part in (model, tokenizer, processor):
        part.save_pretrained(out)
    return out


def build_tokenizer(texts: Iterable[str], vocabulary: int = 2048, words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's special tokens.

    Every integer from 0 to 999 is one token, and so is every fixed piece of an answer: a click takes 7 tokens besides its
    thought instead of 30, in every answer and in every turn of the history. Each of `words` (letters, or a time such as
    5:30) is one token too, with and without a space before it.
    """
    number = r"\d{1,3}"
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = byte_level
    trainer = trainers.BpeTrainer(
        vocab_size=max(256, vocabulary - LARGEST_NUMBER + 9 - len(SPECIAL_TOKENS)),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator((piece for text in texts for piece in re.split(number, text) if piece), trainer)

    vocab, merges = learner.get_vocab(), _merges(learner)
    for n in range(10, LARGEST_NUMBER + 1):
        vocab.setdefault(str(n), len(vocab))
    merges += [(str(n)[0], str(n)[1]) for n in range(10, 100)]
    for abc in map(str, range(100, LARGEST_NUMBER + 1)):
        merges += [(abc[:2], abc[2])] + ([(abc[0], abc[1:])] if abc[1] != "0" else [])
    for word in words:
        for form in (word, f"Ġ{word}"):  # Ġ is how byte-level vocabularies write a space
            vocab.setdefault(form, len(vocab))
    # Pieces that are in the vocabulary as a whole are taken as they are; merges apply to all others.
    fast = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[t for t in SPECIAL_TOKENS if t not in (TURN_END, END_OF_TEXT)],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in fixed_pieces()])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _word_ids(tokenizer: PreTrainedTokenizerFast, words: Sequence[str], prefix: str) -> list[int]:
    ids = [tokenizer.encode(prefix + word, add_special_tokens=False) for word in words]
    if torn := [word for word, pieces in zip(words, ids, strict=True) if len(pieces) != 1]:
        raise SetupError(f"words {torn} are not one token each; give letters, or times such as 5:30")
    return [pieces[0] for pieces in ids]


def fixed_pieces() -> list[str]:
    """The texts that our dialect writes around thought and arguments, cut out of one rendered example per action."""
    here, text = Point(0.0, 0.0), "\0"
    examples: list[Action] = [Click(here), LongPress(here, 0), Swipe(here, here), Type(text), Open(text), Answer(text)]
    examples += [Key(text), Wait(0), Terminate("success"), Terminate("failure"), *map(SystemButton, BUTTONS)]
    turns = [say(thought, action, ScreenTransform(1, 1)) for thought in (text, None) for action in examples]
    pieces = {piece for turn in turns for piece in re.split(r"\\u0000|\0|\d+", turn)}
    return sorted({*pieces, "user\n", "assistant\n"} - {""})


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(a, b) for a, b in merges]


def _token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    image, video, start, end = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END])
    return {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "tie_word_embeddings": True,
    }


def _text_values(tokenizer: PreTrainedTokenizerFast, width: int, layers: int, section: list[int]) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "num_key_value_heads": width // 32,
        "max_position_embeddings": 8192,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": section},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _qwen3_vl(
    tokenizer: PreTrainedTokenizerFast,
    screen: tuple[int, int],
    merge: int,
    width: int,
    layers: int,
    vision_width: int,
    vision_layers: int,
) -> tuple[PreTrainedModel, int]:
    patch = 16
    side = math.ceil(max(screen) / patch)
    text = _text_values(tokenizer, width, layers, [6, 5, 5]) | {"head_dim": 32}
    text["rope_parameters"] |= {"mrope_interleaved": True}
    vision = {
        "depth": vision_layers,
        "hidden_size": vision_width,
        "intermediate_size": 3 * vision_width,
        "num_heads": vision_width // 32,
        "patch_size": patch,
        "spatial_merge_size": merge,
        "out_hidden_size": width,
        "num_position_embeddings": side * side,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.05,
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_token_ids(tokenizer))
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        # With a random table the row of a cell cannot be read for a long time; with sin-cos of amplitude 1 it can.
        model.model.visual.pos_embed.weight.copy_(_sin_cos_2d(side, vision_width))
    return model, patch


def _qwen2_5_vl(
    tokenizer: PreTrainedTokenizerFast,
    screen: tuple[int, int],
    merge: int,
    width: int,
    layers: int,
    vision_width: int,
    vision_layers: int,
) -> tuple[PreTrainedModel, int]:
    patch = 14
    vision = {
        "depth": vision_layers,
        "hidden_size": vision_width,
        "intermediate_size": 3 * vision_width,
        "num_heads": vision_width // 32,
        "patch_size": patch,
        "spatial_merge_size": merge,
        "out_hidden_size": width,
        "window_size": 8 * patch,
        "fullatt_block_indexes": [vision_layers - 1],
        "initializer_range": 0.05,
    }
    text = _text_values(tokenizer, width, layers, [6, 5, 5])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_token_ids(tokenizer))
    return Qwen2_5_VLForConditionalGeneration(config), patch


def _sin_cos_2d(side: int, dims: int) -> torch.Tensor:
    """Shape (side * side, dims), row-major: a quarter of the dims each for sin and cos of y and of x."""
    quarter = dims // 4
    angles = torch.arange(side)[:, None] / 100 ** (torch.arange(quarter) / quarter)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, dims)
