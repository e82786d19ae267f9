"""What a served model is asked with: the voice beside its weights, its own resize rule, or a refusal."""

import json
import math
import shutil

import pytest

from guiderail.agent.errors import SetupError
from guiderail.agent.screen import Vision
from guiderail.agent.shipped import SHIPPED
from guiderail.launch.agents import AgentSpec, Voice, read_voice, sampling, voice

TINY = Vision(16, 1024, 1048576)
URL = "http://127.0.0.1:9/v1"


def served(**more):
    return voice(AgentSpec(server=URL, served_model=more.pop("served_model", "phone-agent"), **more))


@pytest.mark.parametrize("dialect", ["guiderail", "brief", "qwen2_5_vl", "ui_tars_1_5"])
def test_dialects_that_count_pixels_need_the_processor(dialect):
    with pytest.raises(SetupError, match=r"phone-agent resizes is not known; add --processor FOLDER or HUB_ID"):
        served(dialect=dialect)
    assert served(dialect=dialect, processor="tiny-sft").vision == TINY


@pytest.mark.parametrize("dialect", ["qwen3_vl", "ui_tars", "os_atlas", "os_genesis", "agentcpm", "aguvis"])
def test_other_dialects_do_without(dialect):
    assert served(dialect=dialect).vision is None
    assert served(dialect=dialect, processor="tiny-sft").vision == TINY


def test_the_voice_beside_the_weights_is_taken(tmp_path):
    assert served(served_model="tiny-sft") == read_voice(SHIPPED["tiny-sft"])  # servers list a model by its folder
    assert served(processor="tiny-sft") == read_voice(SHIPPED["tiny-sft"])
    Voice("qwen2_5_vl", 1, vision=Vision(28, 3136, 999 * 784)).save(tmp_path)
    assert served(processor=str(tmp_path)).vision == Vision(28, 3136, 999 * 784)


def test_an_adapter_without_a_voice_has_its_base_s(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny-sft"}))
    assert read_voice(tmp_path) == read_voice(SHIPPED["tiny-sft"])
    Voice("aguvis").save(tmp_path)
    assert read_voice(tmp_path) == Voice("aguvis")


def test_a_processor_without_a_voice(tmp_path):
    shutil.copy(SHIPPED["tiny-sft"] / "preprocessor_config.json", tmp_path)
    assert served(processor=str(tmp_path)) == Voice(vision=TINY)
    assert served(served_model=str(tmp_path)) == Voice(vision=TINY)


def test_a_processor_belongs_to_a_server():
    with pytest.raises(SetupError, match="--processor says what a server runs"):
        AgentSpec(model="tiny-sft", processor="tiny-sft")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_voices_say_what_their_processors_do(name):
    assert read_voice(SHIPPED[name]).vision == TINY


@pytest.mark.parametrize("vision", [{"factor": 0}, {"factor": "28"}, {"pixels": 3}, [1], {"max_pixels": True}])
def test_a_broken_voice_file_is_a_setup_error(tmp_path, vision):
    (tmp_path / "guiderail.json").write_text(json.dumps({"vision": vision}))
    with pytest.raises(SetupError, match=r"guiderail\.json"):
        read_voice(tmp_path)


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_a_temperature_is_a_number_from_0_on(temperature):
    with pytest.raises(SetupError, match="expected 0, which is greedy, or more"):
        sampling(Voice(), temperature)


@pytest.mark.parametrize("given", [{"images": 0}, {"images": -1}, {"max_new_tokens": 0}, {"max_new_tokens": -5}])
def test_an_agent_sees_and_says_at_least_one(given):
    with pytest.raises(SetupError, match="expected 1 or more"):
        AgentSpec(model="tiny-sft", **given)
