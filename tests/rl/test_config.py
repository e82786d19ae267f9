"""Configs: every shipped one loads, unknown keys suggest the nearest, overrides are YAML."""

from pathlib import Path

import pytest

from guiderail.agent.errors import SetupError
from guiderail.rl.config import load_config
from guiderail.rl.credit.uis1 import CreditRules
from guiderail.rl.sections import Rollout

SHIPPED = sorted((Path(__file__).parents[2] / "launch" / "configs").glob("*.yaml"))
MINIMAL = "model: {path: m}\ndata: {train: d}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_every_shipped_config_loads_once_the_recordings_are_named(path):
    config = load_config(path, ["data.train=data/train"])
    assert config.data.train == "data/train"
    if config.method.algorithm == "online":  # it needs none
        assert load_config(path).data is None
        return
    with pytest.raises(SetupError, match=r"data\.train is missing; add to the command data\.train=FOLDER"):
        load_config(path)


def test_there_are_shipped_configs():
    assert {"tiny_sft.yaml", "tiny_semi_online.yaml", "qwen2_5_vl_7b.yaml", "qwen3_vl_8b.yaml"} <= {
        p.name for p in SHIPPED
    }


def test_overrides_are_yaml_and_reach_any_depth(config):
    got = load_config(
        config, ["method.gamma=0.9", "model.lora.r=4", "training.max_steps=7", "method.patch_budget=unlimited"]
    )
    assert (got.method.gamma, got.model.lora.r, got.training["max_steps"]) == (0.9, 4, 7)
    assert got.method.patch_budget == "unlimited"


def test_the_rules_of_credit_are_the_methods_settings(config):
    got = load_config(config, ["method.eta=0.1", "method.spread_of=none", "method.step_weight=0.5"])
    rules = got.method.credit_rules()
    assert (rules.eta, rules.spread_of, rules.step_weight) == (0.1, "none", 0.5)
    assert load_config(config).method.credit_rules() == CreditRules()
    assert got.method.credit == "ui-s1"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.gama=1", "did you mean 'gamma'"),
        ("model.lora.rank=1", "unknown key model.lora.rank"),
        ("metod.gamma=1", "did you mean 'method'"),
        ("method.patch=thougt-free", "did you mean 'thought-free'"),
        ("method.rules=uis1-papr", "did you mean 'uis1-paper'"),
        ("method.credit=ui-s2", "did you mean 'ui-s1'"),
        ("method.credit=outcome", "have no outcome; use ui-s1"),
        ("method.gamma=2", "less than or equal to 1"),
        ("gamma=2", "section.key=value"),
        ("method.gamma", "section.key=value"),
        ("method.gamma.x=1", "not a section"),
        ("method.gamma={", "not YAML"),
    ],
)
def test_mistakes_are_named(config, override, message):
    if override == "method.gamma.x=1":
        config.write_text(MINIMAL + "method: {gamma: 0.5}\n")
    with pytest.raises(SetupError, match=message):
        load_config(config, [override])


ONLINE = ["method.algorithm=online", "world.name=pocket"]
JUDGED = ["method.credit=ui-s1", "online.expert=true"]
SERVED = ["rollout.engine=vllm-server", "rollout.server=http://h:1"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [*ONLINE, "method.temperature=0.7", "online.replay=4"],
            "method.temperature must be 1 where turns are weighed",
        ),
        (["method.temperature=0.7", *SERVED], "method.temperature must be 1"),
        (["method.difficulty={}", *SERVED], "method.difficulty needs rollout.engine=local, got vllm-server"),
        ([*ONLINE, "method.credit=ui-s1"], "method.credit=ui-s1 needs online.expert=true"),
        ([*ONLINE, "online.fork.most=3"], "online.fork.most needs method.credit=ui-s1, got outcome"),
        ([*ONLINE, "online.fork.train=answer", "method.invalid=0.1"], "method.invalid looks at whole attempts"),
        ([*ONLINE, "online.fork.continuations=2", "method.refusal=0.1"], "method.refusal looks at whole attempts"),
        ([*ONLINE, *JUDGED, "method.invalid=0.1"], "method.invalid is of outcomes, and method.credit=ui-s1 looks at"),
        ([*ONLINE, *JUDGED, "online.fork.continuations=2"], "online.fork.continuations is of outcomes"),
        ([*ONLINE, "method.shown=0.5"], "method.shown is of turns along recordings; in a live world set method.mix"),
        (
            ["method.algorithm=distill", "teacher.path=t", "world.name=pocket", "method.start=any"],
            "method.start=any is of turns along recordings; in a live world set method.mix",
        ),
        (
            ["method.patch_budget=-1"],
            r"method.patch_budget: expected 0 or more repairs, unlimited \(-1 of UI-S1's code\)",
        ),
        (["world.name=pocket"], "world is of live attempts, method.algorithm online; got semi-online"),
        (["method.mix=0.5"], "method.mix is of live attempts"),
        (["online.bands=true"], "online.bands is of live attempts"),
        (["method.algorithm=offline", "method.repetition=0.1"], "method.repetition is of live attempts"),
    ],
)
def test_keys_that_would_do_nothing_or_something_else_are_refused(config, overrides, message):
    load_config(config, [*ONLINE, "method.invalid=0.1", "online.fork.train=branch", "method.temperature=0.7"])
    with pytest.raises(SetupError, match=message):
        load_config(config, overrides)


def test_files_that_are_no_configs(tmp_path):
    with pytest.raises(SetupError, match="no config file"):
        load_config(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(MINIMAL.encode() + b"# \xe9\n")
    with pytest.raises(SetupError, match=r"latin.yaml:3: not UTF-8 text"):
        load_config(latin)
    bad = tmp_path / "bad.yaml"
    bad.write_text("- 1")
    with pytest.raises(SetupError, match="no mapping"):
        load_config(bad)
    bad.write_text("model: {}\n")
    with pytest.raises(SetupError, match=r"model\.path is missing"):
        load_config(bad)


@pytest.mark.parametrize(("drafts", "speculation", "shared"), [(True, None, "ngram"), (False, "off", "off")])
def test_drafts_of_earlier_releases_are_speculation(drafts, speculation, shared):
    read = Rollout.model_validate({"drafts": drafts, "group_port": 51216})
    assert (read.speculation, read.sharing().speculation) == (speculation, shared)
    assert Rollout.model_validate({"drafts": drafts, "speculation": "auto"}).sharing().speculation == "auto"
