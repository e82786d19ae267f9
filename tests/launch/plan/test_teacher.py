"""What a distillation teacher takes: memory in each process, and a pass over each turn that is trained on."""

import json

import pytest

from guiderail.agent.errors import SetupError
from guiderail.launch.plan import flops, memory
from guiderail.launch.plan.machines import GIB
from guiderail.launch.plan.memory import Rows
from guiderail.launch.plan.setting import setting_of, teacher_of
from guiderail.launch.plan.shape import shape_of
from tests.launch.plan.settings import setting
from tests.launch.plan.test_planned import command, config, the_plan

EIGHT, TWO = "Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"
DISTILL = ("method.algorithm=distill", f"model.path={TWO}")


def test_a_teacher_is_whole_in_every_process():
    alone = the_plan(config("full_8gpus", f"model.path={TWO}"), count=8)
    taught = the_plan(config("full_8gpus", f"model.path={TWO}", f"teacher.path={EIGHT}"), count=8)
    parameters = shape_of(EIGHT).parameters()
    assert "teacher" not in alone.memory.parts
    assert taught.memory.parts["teacher"] == 2 * parameters
    assert {k: v for k, v in taught.memory.static.items() if k != "teacher"} == alone.memory.static
    assert taught.memory.peak - alone.memory.peak == pytest.approx(1.06 * 2 * parameters, rel=0.02)
    wide = the_plan(
        config("full_8gpus", f"model.path={TWO}", f"teacher.path={EIGHT}", "teacher.dtype=float32"), count=8
    )
    assert wide.memory.parts["teacher"] == 4 * parameters
    assert wide.memory.parts["teacher"] / GIB > 30


def test_a_teacher_behind_a_server_costs_the_trainer_nothing():
    served = the_plan(config("lora_80g", *DISTILL, "teacher.server=http://127.0.0.1:8000", "teacher.model=x"))
    here = the_plan(config("lora_80g", *DISTILL, f"teacher.path={EIGHT}"))
    assert "teacher" not in served.memory.parts
    assert "teacher" not in served.spent.seconds
    assert here.spent.seconds["teacher"] > served.spent.seconds["forward"]
    assert {k: v for k, v in here.spent.seconds.items() if k != "teacher"} == served.spent.seconds


def test_its_seconds_are_a_forward_of_each_trained_turn():
    eight, two = (the_plan(config("lora_80g", *DISTILL, f"teacher.path={path}")) for path in (EIGHT, TWO))
    assert 3 < eight.spent.seconds["teacher"] / two.spent.seconds["teacher"] < 5  # 8.2 to 1.7 billion text weights
    assert two.spent.seconds["teacher"] == pytest.approx(two.spent.seconds["forward"], rel=0.35)
    more = the_plan(config("lora_80g", *DISTILL, f"teacher.path={EIGHT}", "method.max_rows=1"))
    assert more.spent.rows < eight.spent.rows
    assert more.spent.seconds["teacher"] < eight.spent.seconds["teacher"]


def test_the_pass_makes_its_scores_twice_and_keeps_nothing():
    shape, rows = shape_of(TWO), Rows(2, 3000, 100, (9000,))
    s = setting(shape)
    once = flops.forward(shape, s, rows)
    assert flops.teaching(shape, s, rows) == once["text"].total + 2 * once["head"].total
    student = setting(shape, lora=True)
    assert flops.divergence(shape, student, rows) == 3 * flops.forward(shape, student, rows)["head"].total
    assert memory.total(memory.teaching(shape, s, rows)) < memory.layer(shape, s, rows) * shape.layers


def test_expert_turns_are_trained_on_beside_the_sampled_ones():
    plain = the_plan(config("lora_80g", *DISTILL, f"teacher.path={EIGHT}", "method.groups=2"))
    mixed = the_plan(config("lora_80g", *DISTILL, f"teacher.path={EIGHT}", "method.groups=2", "teacher.recorded=0.5"))
    assert mixed.spent.turns == plain.spent.turns
    assert mixed.spent.rows == pytest.approx(2 * plain.spent.rows)


def test_no_group_is_dropped_without_a_filter_and_a_falling_budget_shortens_rollouts():
    free = the_plan(config("lora_80g", *DISTILL, f"teacher.path={EIGHT}", "method.patch_budget=unlimited"))
    falling = the_plan(config("lora_80g", *DISTILL, f"teacher.path={EIGHT}", "method.patch_budget=falling"))
    assert free.spent.turns == 16 * 8 * 6  # groups, rollouts and steps, each sampled once
    assert falling.spent.turns < free.spent.turns


def test_its_numbers_on_a_cpu_and_an_adapter_as_a_teacher(tmp_path):
    chosen = config("lora_80g", *DISTILL, f"teacher.path={EIGHT}")
    s = setting_of(chosen, shape_of(TWO), gpu=False)
    taught = teacher_of(chosen, s, gpu=False)
    assert (taught.setting.stored, taught.setting.lora, taught.setting.checkpointing) == (4, False, False)
    assert taught.shape == shape_of(EIGHT)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": EIGHT}))
    assert teacher_of(config("lora_80g", *DISTILL, f"teacher.path={tmp_path}"), s, gpu=False) == taught
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SetupError, match="names no base model"):
        teacher_of(config("lora_80g", *DISTILL, f"teacher.path={tmp_path}"), s, gpu=False)


def test_the_command_shows_it(monkeypatch, capsys):
    words = ["plan", "tiny_distill", "--gpu", "h100-80g", "--count", "1", "--json"]
    code, out, _ = command(monkeypatch, capsys, *words)
    (made,) = json.loads(out)["plans"]
    assert code == 0
    assert made["memory_gib"]["teacher"] > 0
    assert made["seconds"]["teacher"] > 0
    code, _, err = command(monkeypatch, capsys, *words, "teacher.path=nowhere/at-all")
    assert code == 2
    assert "no config.json of nowhere/at-all" in " ".join(err.split())
