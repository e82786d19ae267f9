"""Plans as a whole: what fits, what to change, what is cheapest; recipes; the page's tables; what train says and refuses."""

import json
import sys
from pathlib import Path

import pytest

from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.processor import checkpoint_vision
from guiderail.launch import cli, configs
from guiderail.launch.parts import dataset
from guiderail.launch.plan import choose, machines, page, planned, preview, tables
from guiderail.launch.plan.command import NONE_YET, measure_of
from guiderail.launch.plan.lengths import Ask, counter, lengths_of
from guiderail.launch.plan.machines import Cluster, gpus
from guiderail.launch.plan.memory import Rows
from guiderail.launch.plan.seconds import Assumed
from guiderail.launch.plan.setting import setting_of
from guiderail.launch.plan.shape import shape_of
from guiderail.rl.config import load_config

RECIPES = sorted({name for name, *_ in tables.RECIPES})
DOCS = Path(__file__).parents[3] / "docs"


def config(name, *overrides):
    return load_config(configs.find(name), [f"data.train={NONE_YET}", *overrides])


def the_plan(chosen, gpu="h100-80g", count=1, nodes=1, whole=False):
    shape = shape_of(chosen.model.path)
    return planned.plan(
        chosen, shape, measure_of(chosen)(chosen), Cluster(gpus()[gpu], count, nodes), Assumed(), whole=whole
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    from guiderail.envs.pocket.record import record

    out = tmp_path_factory.mktemp("plan") / "data"
    record(out, episodes=6, seed=0)
    return out


def test_lengths_are_those_of_the_encoder(recorded):
    pytest.importorskip("torch")
    from guiderail.agent.dialects import DIALECTS
    from guiderail.agent.local.loading import load_encoder
    from guiderail.envs.recordings.replay import expert_turn

    episodes = dataset(str(recorded), None, "detect", False, None).episodes
    dialogue = Dialogue(checkpoint_vision("tiny-sft"), DIALECTS.find("brief"), 2)
    tokens, exact = counter("tiny-sft")
    found = lengths_of(episodes, dialogue, shape_of("tiny-sft").tower.merge, tokens, True, "here")
    encoder = load_encoder("tiny-sft")
    turns = [expert_turn(e, t, dialogue) for e in episodes for t in range(len(e.steps))]
    assert exact
    assert found.steps == tuple(len(e.steps) for e in episodes)
    assert [ask.answer for ask in found.asks] == [len(encoder.target(text)) for _, text in turns]
    for ask, (prompt, _) in zip(found.asks, turns, strict=True):
        encoded = encoder.prompt(prompt)
        assert ask.tokens == pytest.approx(len(encoded.ids), rel=0.05)
        assert ask.patches == tuple(int(encoder.grid(picture).prod()) for picture in encoded.pictures)
    assert all((ask.lead == ask.tokens) == (ask.step == 0) for ask in found.asks)


def test_rows_of_a_step_share_what_pays():
    chosen = config("lora_80g", "method.max_rows=4", "model.attention=sdpa")
    shape = shape_of(chosen.model.path)
    s = setting_of(chosen, shape, gpu=True)
    first = planned.micro_batch(chosen, s, shape, Ask(0, 3000, 3000, (10000,), 50), 50, True)
    later = planned.micro_batch(chosen, s, shape, Ask(4, 6000, 300, (10000, 10000), 50), 50, True)
    assert first == Rows(1, 3200, 200, (10000,))
    assert later == Rows(4, 6050, 200, (10000, 10000), again=60000)
    off = config("lora_80g", "method.max_rows=4", "model.attention=sdpa", "update.share_vision=false")
    later = planned.micro_batch(off, s, shape, Ask(4, 6000, 300, (10000, 10000), 50), 50, True)
    assert later == Rows(4, 6050, 200, (10000,) * 8)
    free = config("lora_80g", "method.max_rows=4")  # without a mask whatever is common is shared
    later = planned.micro_batch(free, s, shape, Ask(4, 6000, 300, (10000, 10000), 50), 50, True)
    assert later == Rows(1, 300 + 4 * 5750, 200, (10000, 10000), masked=False, again=60000)
    short = planned.micro_batch(free, s, shape, Ask(0, 1000, 1000, (4000,), 50), 50, True)
    assert short == Rows(1, 1200, 200, (4000,))


@pytest.mark.parametrize(("name", "gpu", "count", "nodes"), tables.RECIPES)
def test_a_recipe_fits_where_it_is_meant_to_run(name, gpu, count, nodes):
    made = the_plan(config(name), gpu, count, nodes)
    assert made.fits
    assert 0.4 * made.cluster.gpu.memory < made.memory.peak / machines.GIB
    assert made.spent.learned > 0.8


def test_the_pages_tables_are_what_the_planner_says():
    text = (DOCS / "cluster.md").read_text()
    assert tables.filled(text) == text, "run python -m guiderail.launch.plan.tables docs/cluster.md"
    assert text.count("<!-- table:") == len(tables.TABLES)


def test_what_does_not_fit_is_told_what_to_change():
    chosen = config("full_8gpus")
    shape, measure = shape_of(chosen.model.path), measure_of(chosen)
    cluster = Cluster(gpus()["h100-80g"], 1)
    assert not the_plan(chosen).fits
    change = planned.smaller(chosen, shape, measure, cluster, Assumed())
    assert "model.lora" in change
    for key, value in change.items():
        chosen = planned.with_change(chosen, key, value)
    assert the_plan(chosen).fits
    said = str(planned.refusal(the_plan(config("full_8gpus")), change))
    assert "GiB per GPU" in said
    assert "model.lora='{r: 16, alpha: 32}'" in said
    assert "--no-plan" in said
    caption = page.details(
        the_plan(config("full_8gpus")), {"model.freeze_vision": True, "model.lora": {"r": 16}}
    ).caption
    assert caption == "does not fit; change model.freeze_vision=true model.lora='{r: 16}'"


def test_the_cheapest_under_a_deadline_and_the_fastest_under_a_budget():
    chosen = config("full_8gpus")
    shape, lengths = shape_of(chosen.model.path), measure_of(chosen)(chosen)
    plans = choose.compare(chosen, shape, lengths, choose.clusters(gpus().values(), None, None), Assumed())
    fitting = [one for one in plans if one.fits]
    cheapest = choose.best(plans, None, None)
    assert cheapest.cost <= 1.02 * min(one.cost for one in fitting)
    hurried = choose.best(plans, cheapest.hours / 2, None)
    assert hurried.hours <= cheapest.hours / 2 < cheapest.hours
    assert choose.best(plans, None, hurried.cost).hours == min(one.hours for one in fitting if one.cost <= hurried.cost)
    with pytest.raises(SetupError, match="nothing ends within"):
        choose.best(plans, 0.001, None)
    with pytest.raises(SetupError, match="nothing costs at most"):
        choose.best(plans, None, 0.1)
    rich = hurried.cost
    fastest = choose.best(plans, None, rich)
    assert choose.best(plans, fastest.hours, rich) is fastest
    with pytest.raises(SetupError, match=r"nothing for \$.* ends within .*: --deadline"):
        choose.best(plans, 0.9 * fastest.hours, rich)
    with pytest.raises(SetupError, match="--budget") as refused:
        choose.best(plans, None, 0.1)
    assert choose.best(plans, None, float(str(refused.value).rpartition(" ")[2]))
    assert choose.best([one for one in plans if not one.fits], None, None) is None
    assert {one.spent.learned for one in fitting} == {1.0}


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["guiderail", *words])
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    else:
        code = 0
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command(monkeypatch, capsys, recorded):
    words = ["plan", "lora_24g", "--gpu", "rtx4090-24g", "--count", "1", "--data", str(recorded), "--json"]
    code, out, _ = command(monkeypatch, capsys, *words)
    made = json.loads(out)
    assert (code, made["best"], made["change"]) == (0, "1 x rtx4090-24g", {})
    assert made["plans"][0]["peak_gib"] < 23.6
    code, out, err = command(monkeypatch, capsys, "plan", "tiny_sft", "model.path=tiny-sft", "--gpu", "h100-80g")
    assert code == 0
    assert "whole run" in out
    assert "no recordings given" in err
    for wrong, said in (
        (["--gpu", "h100"], "did you mean"),
        (["--assume", "agreement=2"], "at most 1"),
        (["--deadline", "0.0001"], "nothing ends within"),
        (["training.max_stepz=3"], "max_stepz"),
    ):
        code, _, err = command(monkeypatch, capsys, "plan", "lora_24g", *wrong)
        assert code in (2, None) or code == 2
        assert said in " ".join(err.split())


def test_train_says_what_it_takes_and_refuses_what_cannot_fit(monkeypatch, capsys, recorded):
    chosen = config("tiny_semi_online", f"data.train={recorded}")
    episodes = dataset(str(recorded), None, "detect", False, None).episodes
    dialogue = Dialogue(checkpoint_vision("tiny-sft"))
    preview.check(chosen, episodes, dialogue, len, None, True)
    said = capsys.readouterr().err
    assert said.startswith("plan: ")
    assert said.count("\n") == 1
    preview.check(chosen, episodes, dialogue, len, None, False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(preview, "machine_memory", lambda: 1 << 28)
    with pytest.raises(SetupError, match=r"this run would take .* GiB"):
        preview.check(chosen, episodes, dialogue, len, None, True)


def test_on_a_gpu_train_also_says_hours_and_cost(capsys, recorded):
    chosen = config("lora_24g", f"data.train={recorded}")
    episodes = dataset(str(recorded), None, "detect", False, None).episodes
    dialogue = Dialogue(checkpoint_vision("tiny-sft"))
    h100 = int(79.6 * machines.GIB)
    preview.check(chosen, episodes, dialogue, len, ("NVIDIA H100 80GB HBM3", h100), True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "$3 a GPU and hour" in lines[1]
    preview.check(chosen, episodes, dialogue, len, ("Some GPU", h100), True)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SetupError, match=r"add to the command|take a larger GPU"):
        preview.check(chosen, episodes, dialogue, len, ("Some GPU", machines.GIB), True)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_a_small_model(name, recorded, tmp_path):
    pytest.importorskip("torch")
    from guiderail.launch.train import rl_trainer, set_up

    small = {
        "model.path": "tiny-sft",
        "model.dtype": "float32",
        "model.max_new_tokens": 16,
        "data.train": recorded,
        "method.groups": 1,
        "method.rollouts": 2,
        "method.spread_of": "none",
        "training.max_steps": 2,
        "training.steps_per_generation": 2,
        "training.gradient_accumulation_steps": 1,
        "training.deepspeed": "null",
        "training.bf16": "false",
        "training.report_to": "none",
        "training.save_strategy": "'no'",
    }
    chosen = load_config(configs.find(name), [f"{key}={value}" for key, value in small.items()])
    trainer = rl_trainer(set_up(chosen), None, tmp_path, None)
    trainer.train()
    assert trainer.state.global_step == 2
