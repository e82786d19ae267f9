"""The keys of `training`, known without TRL: the list is TRL's own, and mistakes are answered in the user's words."""

import dataclasses
import enum
import types
import typing
from pathlib import Path

import pytest

from guiderail.agent.errors import SetupError
from guiderail.rl.keys import fields
from guiderail.rl.keys.training import checked

RL = {"max_steps": 4}
HEAD = '"""The fields of TRL\'s GRPOConfig and SFTConfig by kind. Made by tests/rl/test_keys.py, which checks it."""\n'


def kind_of(hint: object) -> str:
    """float, int, bool, "a|b" for an enumeration, with ? where None may be given; else other."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = [one for one in options if one is not type(None)]
    optional = "?" if len(plain) < len(options) else ""
    choices = [one for one in plain if isinstance(one, type) and issubclass(one, enum.Enum)]
    if choices and set(plain) == {choices[0], str}:
        return "|".join(one.value for one in choices[0]) + optional
    if len(plain) == 1 and plain[0] in (float, int, bool):
        return plain[0].__name__ + optional
    return "other"


def made() -> str:
    """fields.py as the installed TRL would have it."""
    from trl import GRPOConfig, SFTConfig

    text = HEAD
    for name, config in (("GRPO", GRPOConfig), ("SFT", SFTConfig)):
        hints, kinds = typing.get_type_hints(config), {}
        for field in dataclasses.fields(config):
            if field.init:
                kinds.setdefault(kind_of(hints[field.name]), []).append(field.name)
        text += f"\n_{name} = {{\n"
        for kind, names in sorted(kinds.items()):
            text += f'    "{kind}": """\n' + "".join(f"        {one}\n" for one in sorted(names)) + '    """,\n'
        text += f"}}\n{name} = {{name: kind for kind, names in _{name}.items() for name in names.split()}}\n"
    return text


def test_the_list_is_the_installed_trls():
    pytest.importorskip("trl", reason="needs guiderail[train]")
    assert Path(fields.__file__).read_text() == made(), "run: python tests/rl/test_keys.py"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"learning_rat": 1}, "unknown key training.learning_rat, did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "training.learning_rate is 'fast', expected a number"),
        ({"learning_rate": True}, "expected a number"),
        ({"max_steps": "many"}, "training.max_steps is 'many', expected a whole number"),
        ({"bf16": "yes"}, "training.bf16 is 'yes', expected true or false"),
        ({"lr_scheduler_type": "cosin"}, "training.lr_scheduler_type is 'cosin', did you mean 'cosine'"),
        ({"save_strategy": "stepz"}, "did you mean 'steps'"),
        ({"remove_unused_columns": True}, "is set by the trainer itself"),
        ({"use_vllm": True}, "is set by the trainer itself"),
        ({"top_p": 0.9}, "truncates or reshapes sampling"),
        ({"loss_type": "bnpo"}, "use dapo"),
        ({"gradient_accumulation_steps": 0}, "training.gradient_accumulation_steps is 0, expected 1 or more"),
        ({"steps_per_generation": 6}, "is not a multiple of gradient_accumulation_steps 4"),
        ({"max_steps": 3, "steps_per_generation": 8}, "multiple of 2 updates per generation"),
        ({"max_steps": None}, "training.max_steps is None, expected a whole number"),
        ({"learning_rate": -1e-6}, "training.learning_rate is -1e-06, expected 0 or more"),
        ({"beta": float("nan")}, "training.beta is nan, expected a finite number"),
        ({"weight_decay": -0.1}, "training.weight_decay is -0.1, expected 0 or more"),
        ({"seed": -1}, "training.seed is -1, expected 0 to 4294967295"),
        ({"num_train_epochs": 0}, "training.num_train_epochs is 0, expected more"),
    ],
)
def test_a_mistake_is_named_without_trl(training, message):
    with pytest.raises(SetupError, match=message):
        checked(RL | training, "semi-online")


def test_sft_must_train_on_something():
    with pytest.raises(SetupError, match="max_steps is 0, expected more"):  # TRL would train three epochs
        checked({"max_steps": 0}, "sft")
    with pytest.raises(SetupError, match="per_device_train_batch_size is 0, expected 1 or more"):
        checked({"per_device_train_batch_size": 0}, "sft")
    assert checked({"max_steps": -1, "num_train_epochs": 1.0}, "sft")["max_steps"] == -1


def test_neither_updates_nor_epochs():
    with pytest.raises(SetupError, match="max_steps is missing"):
        checked({}, "offline")
    assert checked({}, "sft") == {}


def test_values_become_what_trl_takes():
    given = {"learning_rate": "1e-6", "save_strategy": False, "max_grad_norm": 1, "top_k": 0, "save_total_limit": None}
    assert checked(RL | given, "semi-online") == RL | given | {"learning_rate": 1e-6, "save_strategy": "no"}


if __name__ == "__main__":
    Path(fields.__file__).write_text(made())
