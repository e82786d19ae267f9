"""Trained models as others load them: merged, by the lines of their card, and from the Hub, here a fake one on loopback."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("trl")

from typer.testing import CliRunner

import guiderail as gr
from guiderail.agent.errors import SetupError
from guiderail.agent.shipped import SHIPPED
from guiderail.launch.cli import app
from guiderail.launch.hub import model_card
from tests.fake_hub import TOKEN, running

KEYS = {"model.path": "tiny-base", "data.limit": 2, "training.max_steps": 1, "training.learning_rate": 0.05}
KEYS |= {"training.warmup_steps": 0, "training.per_device_train_batch_size": 2, "training.report_to": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data; full and lora, two trainings of one update; merged; sop, an evaluation of lora's adapter."""
    folder = tmp_path_factory.mktemp("models")
    gr.record_pocket(folder / "data", 3, seed=3)
    keys = KEYS | {"data.train": folder / "data"}
    gr.train("tiny_sft", keys, out=folder / "full")
    gr.train("tiny_sft", keys | {"model.lora": "{r: 4, alpha: 64}"}, out=folder / "lora")
    gr.merge(folder / "lora" / "model", folder / "merged")
    words = ["evaluate", "sop", str(folder / "data"), "--model", str(folder / "lora" / "model"), "--limit", "1"]
    assert CliRunner().invoke(app, [*words, "--out", str(folder / "sop")]).exit_code == 0
    return folder


def answers(model, data):
    agent = gr.load_policy(model, dialect="brief", images=1, max_new_tokens=12)
    episodes = gr.load_episodes(data).episodes[:2]
    walks = [gr.walk(episode, agent, temperature=0.0, patch_budget=None)[0] for episode in episodes]
    return [turn.completion.text for walk in walks for turn in walk.turns]


def test_a_merged_adapter_answers_as_before(folder):
    with_adapter = answers(folder / "lora" / "model", folder / "data")
    assert answers(folder / "merged", folder / "data") == with_adapter
    assert answers("tiny-base", folder / "data") != with_adapter, "an adapter without effect would prove nothing"
    assert gr.load_policy(folder / "merged").voice == gr.load_policy(folder / "lora" / "model").voice
    assert not (folder / "merged" / "adapter_config.json").exists()
    with pytest.raises(SetupError, match="merged is not an empty folder"):
        gr.merge(folder / "lora" / "model", folder / "merged")


def test_what_cannot_be_merged_is_named(folder, tmp_path):
    with pytest.raises(SetupError, match="names no base model"):
        gr.merge(folder / "merged", tmp_path / "out")
    broken = shutil.copytree(folder / "lora" / "model", tmp_path / "broken")
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "adapter_model.safetensors")
    save_file({name: value * float("nan") for name, value in weights.items()}, broken / "adapter_model.safetensors")
    with pytest.raises(SetupError, match="broken cannot be merged into"):
        gr.merge(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


LOADED = """
import sys
import time
assert not any(name.startswith("guiderail") for name in sys.modules)
from PIL import Image
text = tokenizer.apply_chat_template(
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "toggle wifi"}]}],
    tokenize=False, add_generation_prompt=True)
made = images([Image.new("RGB", (160, 288), "white")], return_tensors="pt")
count = int(made["image_grid_thw"].prod()) // images.merge_size**2
ids = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * count), return_tensors="pt").input_ids
types = (ids == model.config.image_token_id).int()
print(model(input_ids=ids, mm_token_type_ids=types, **made).logits[0, -1].argmax().item())
"""


def lines_of(card, folder, base):
    """The card's own lines to load a model, with its names filled in."""
    code = card.partition("## Load it")[2].partition("## How it was made")[0]
    lines = re.findall(r"^    (.*)$", code, re.M)
    assert 3 <= len([line for line in lines if " = " in line]) <= 3
    return "\n".join(lines).replace('"FOLDER"', repr(str(folder))).replace('"BASE"', repr(str(base)))


def test_plain_transformers_loads_them_by_the_lines_of_their_card(folder, monkeypatch):
    """Without torchvision where it is not installed; the adapter with PEFT. The same token comes first after merging."""
    merged = model_card.model_card(model_card.trained(folder / "lora", folder / "merged"))
    cards = [(merged, folder / "merged")]
    cards += [
        ((folder / name / "model" / "README.md").read_text(), folder / name / "model") for name in ("lora", "full")
    ]
    code = "\n".join(lines_of(card, place, SHIPPED["tiny-base"]) + LOADED for card, place in cards)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    tokens = done.stdout.split()
    assert len(tokens) == 3
    assert tokens[0] == tokens[1]


def test_the_card_is_filled_from_the_run(folder):
    made = model_card.trained(folder / "lora")
    card = model_card.model_card(made, [folder / "sop"], "me/agent")
    data, result = made.record.about.data, json.loads((folder / "sop" / "metrics.json").read_text())
    assert card.startswith("---\nlibrary_name: peft\n")
    assert "# agent\n" in card
    assert f"| their digest | {data.digest} |" in card
    assert "| LoRA | r 4, alpha 64," in card
    low, high = (100 * bound for bound in result["intervals"]["PG"])
    assert f"| sop PG | .../data | {100 * result['PG']:.1f} [{low:.1f}, {high:.1f}] | 1 | guiderail | greedy |" in card
    assert str(folder.parent) not in card, "a path of this machine"
    assert "None yet." in (folder / "lora" / "model" / "README.md").read_text()
    with pytest.raises(SetupError, match=r"scored .*lora/model, not .*full/model; evaluate with --model"):
        model_card.model_card(model_card.trained(folder / "full"), [folder / "sop"])
    with pytest.raises(SetupError, match="is a run of sop; give the folder of a training"):
        model_card.trained(folder / "sop")
    said = CliRunner().invoke(app, ["model", "card", str(folder / "lora"), "--scores", str(folder / "sop")])
    assert "| sop TSR |" in said.stdout


def test_a_path_of_the_run_is_no_name_on_the_hub(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = model_card.looks_known(model_card.trained(folder / "lora"))
    assert known("me/agent", "model")
    assert not known(f"{folder.name}/data", "dataset"), "recorded from a folder above the run"
    assert not known("./a/b", "model")
    assert not known("tiny-base", "model")


CODE = """
import json, sys
import guiderail as gr
for run, model, repo in json.loads(sys.argv[1]):
    try:
        print(gr.push(run, repo, model=model, private=True))
    except gr.SetupError as error:
        print(error)
assert "torch" not in sys.modules
"""


def pushed(environment, *asked):
    words = [
        sys.executable,
        "-c",
        CODE,
        json.dumps([[str(run), model and str(model), repo] for run, model, repo in asked]),
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_model_is_pushed(folder, tmp_path):
    run, merged = folder / "lora", folder / "merged"
    with running() as (hub, environment):
        environment |= {"HF_HOME": str(tmp_path)}
        said = pushed(environment, (run, merged, "me/agent"), (run, None, "me/agent"))
        assert (
            said[0]
            == "no token of the Hub on this machine; run: hf auth login, or set HF_TOKEN (a token that can write)"
        )
        assert re.search(
            r"is an adapter of .*tiny-base, which others cannot load .*; run: guiderail model merge", said[1]
        )
        assert not hub.asked
        (told,) = pushed(environment | {"HF_TOKEN": TOKEN}, (run, merged, "me/agent"))
        assert told.endswith("/me/agent")
        files = hub.repos["models/me/agent"]
        expected = {path.name: path.read_bytes() for path in merged.iterdir() if path.name != "README.md"}
        assert {name: data for name, data in files.items() if name != "README.md"} == expected
        assert b'from_pretrained("me/agent")' in files["README.md"]
        assert not [path for path in hub.asked if "/datasets/" in path], "the recordings' path was not taken for a name"
        assert hub.private == {"models/me/agent": True}
        (refused,) = pushed(environment | {"HF_TOKEN": "hf_wrong"}, (run, merged, "me/agent"))
        assert re.match(r"the Hub did not take me/agent \(.*401.*\); check the name", refused)
        (offline,) = pushed({"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN}, (run, merged, "me/agent"))
        assert offline == "HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it"


@pytest.mark.slow
def test_a_full_path_through_the_hub(folder, tmp_path):
    """Exported recordings and a pushed model, both read back by their names on the Hub."""
    gr.export(folder / "data", tmp_path / "hf")
    with running() as (hub, environment):
        environment = os.environ | environment | {"HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
        pushed(environment, (folder / "lora", folder / "merged", "me/agent"))
        files = [path for path in (tmp_path / "hf").rglob("*") if path.is_file()]
        hub.repos["datasets/me/screens"] = {
            path.relative_to(tmp_path / "hf").as_posix(): path.read_bytes() for path in files
        }
        environment |= {"GUIDERAIL_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "guiderail.launch.cli"]
        words = ["evaluate", "sop", "me/screens", "--model", "me/agent", "--dialect", "brief", "--json", "--limit", "1"]
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)["n"] == 1
        words = ["train", "tiny_sft", "model.path=me/agent", "data.train=me/screens", "training.max_steps=1"]
        words += ["training.per_device_train_batch_size=2", "--out", str(tmp_path / "run")]
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        card = (Path(tmp_path) / "run" / "model" / "README.md").read_text()
        assert "base_model: me/agent\n" in card
        assert "datasets:\n- me/screens\n" in card


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("vllm") is None, reason="needs vLLM's command, from an environment of its own")
def test_the_vllm_recipe(folder):
    """The two lines of docs/hub.md: serve a merged folder, score it through the server."""
    page = (Path(__file__).parents[3] / "docs" / "hub.md").read_text()
    serve = shlex.split(re.search(r"^vllm serve .*$", page, re.M)[0].replace("runs/merged", str(folder / "merged")))
    score = shlex.split(re.search(r"^guiderail evaluate sop .* --server .*$", page, re.M)[0])[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    serve = [port if word == "8000" else word for word in serve]
    score = [word.replace("8000", port).replace("runs/merged", str(folder / "merged")) for word in score]
    score = [str(folder / "data") if word == "data/test" else word for word in score]
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            assert server.poll() is None, "vllm serve ended"
            assert time.monotonic() < deadline, "vllm serve does not answer after ten minutes"
            time.sleep(1)
        result = CliRunner().invoke(app, [*score, "--limit", "1", "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["unscored"] == 0
    finally:
        server.terminate()
        server.wait(60)
