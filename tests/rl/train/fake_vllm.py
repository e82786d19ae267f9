"""vLLM's side of the wire, spoken for real around a real tiny model, without vLLM.

The routes are those that `guiderail.agent.served.vllm.client` calls, of vLLM 0.31. `lies` makes it read new weights, answer
success, and keep what it has; `keeps_features` makes it forget nothing when its encoder cache is reset.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from guiderail.agent.local.policy import load_policy
from guiderail.agent.types import Picture, Screenshot


class TinyEngine:
    """Samples from a tiny model token by token, without a key-value cache: slow, and nothing of ours in the loop. Vision
    features are as good as kept by name: with each name stays the tower that saw the picture first."""

    def __init__(self, folder: Path):
        self.policy = load_policy(folder)
        self.adapted: Any = None
        self.lock = threading.Lock()
        self.towers: dict[str, Any] = {}
        self.lies = self.keeps_features = False

    @torch.no_grad()
    def sample(
        self, ids: list[int], pictures: list[Picture], names: list[str], settings: dict[str, Any], model: Any = None
    ) -> tuple[list[int], list[float]]:
        encoder, model = self.policy.encoder, model or self.policy.model
        plain = self.policy.model
        uniforms = np.random.default_rng(settings.get("seed") or 0).random(settings["max_tokens"])
        bias = torch.zeros(plain.get_input_embeddings().weight.shape[0])
        for token, value in (settings.get("logit_bias") or {}).items():
            bias[int(token)] = value
        given, told = list(ids), []
        vision = encoder.vision_inputs(pictures)
        current = plain.model.visual
        for name in names:
            self.towers.setdefault(name, copy.deepcopy(current))
        if names:
            plain.model.visual = self.towers[names[0]]
        try:
            for uniform in uniforms:
                row = torch.tensor([given])
                kinds = torch.zeros_like(row)
                kinds[:, : len(ids)] = (row == encoder.image_pad)[:, : len(ids)].long()
                scores = model(
                    input_ids=row, attention_mask=torch.ones_like(row), mm_token_type_ids=kinds, **vision
                ).logits[:, -1]
                token = _draw((scores + bias)[0].double(), uniform, settings["temperature"])
                told.append(float(scores.log_softmax(-1)[0, token]))
                given.append(token)
                if token in (settings.get("stop_token_ids") or []):
                    break
        finally:
            plain.model.visual = current
        return given[len(ids) :], told

    def expand(self, ids: list[int], pictures: list[Picture]) -> list[int]:
        """One pad per picture -> as many as the model wants, as vLLM does whatever it is given."""
        shown = iter(pictures)
        pad = self.policy.encoder.image_pad
        return [k for i in ids for k in ([i] * self.policy.encoder.image_tokens(next(shown)) if i == pad else [i])]

    def reload(self, folder: str) -> list[str]:
        weights = {
            name: w for file in sorted(Path(folder).glob("*.safetensors")) for name, w in load_file(file).items()
        }
        if not self.lies:
            with torch.no_grad():
                known = dict(self.policy.model.named_parameters())
                for name, weight in weights.items():
                    known[name].copy_(weight)
        return [*weights]

    def adapt(self, folder: str) -> None:
        if not self.lies or self.adapted is None:
            self.adapted = PeftModel.from_pretrained(copy.deepcopy(self.policy.model), folder).eval()

    def forget_features(self) -> None:
        if not self.keeps_features:
            self.towers.clear()


def _draw(scores: torch.Tensor, uniform: float, temperature: float) -> int:
    """Inverse CDF; greedy at temperature 0."""
    if temperature == 0:
        return int(scores.argmax())
    cdf = (scores / temperature).softmax(-1).cumsum(-1)
    return int(torch.searchsorted(cdf, uniform * cdf[-1], right=True))


class FakeServer(TinyEngine):
    """url: where it listens. pixels_lost: tokens less per picture. asked: bodies of /inference/v1/generate for answers. sent:
    names of the pictures that came with pixels. pushed: names of every weight that was taken. resets: of both caches. awake:
    what has its memory; did: what was done with weights and memory, in order."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.pixels_lost = 0
        self.paused = False
        self.links: list[socket.socket] = []
        self.vllm = "0.31.0"
        self.version: str | None = None
        self.model_config: dict[str, Any] = {"logprobs_mode": "raw_logprobs", "max_model_len": 40960}
        self.model_config["dtype"] = "torch.float32"
        self.lora_config: dict[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.sent: list[str] = []
        self.pictures: dict[str, Picture] = {}
        self.pushed: list[list[str]] = []
        self.resets = {"prefix": 0, "encoder": 0}
        self.speculative_config: dict[str, Any] | None = None
        self.awake = {"weights", "kv_cache"}
        self.did: list[str] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        for link in self.links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def get(self, path: str) -> Any:
        return {
            "/health": {},
            "/version": {"version": self.vllm},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/server_info": {
                "vllm_config": {
                    "model_config": self.model_config,
                    "lora_config": self.lora_config,
                    "speculative_config": self.speculative_config,
                }
            },
            "/is_sleeping": {"is_sleeping": len(self.awake) < 2},
            "/weight_info": {"weight_version": self.version},
        }[path]

    def post(self, path: str, body: Any) -> Any:
        route, _, asked = path.partition("?")
        if asked.startswith("tags="):
            body = asked.removeprefix("tags=")
        return getattr(self, route.strip("/").replace("/", "_").replace("v1_", ""))(body)

    def inference_generate(self, body: Any) -> Any:
        assert not self.paused
        assert len(self.awake) == 2
        if self.speculative_config and body["sampling_params"].get("logit_bias"):
            raise ValueError("min_p and logit_bias are not yet supported with speculative decoding")
        if self.did[-1:] != ["generate"]:
            self.did.append("generate")
        names, pictures = [], []
        for part in body.get("content_parts") or []:
            name = part["uuid"]
            names.append(name)
            if part["url"] is not None:
                self.sent.append(name)
                self.pictures[name] = picture_of(part["url"])
            if name not in self.pictures:
                raise ValueError(f"Cache miss for image at index 0 but data is not provided ({name})")
            pictures.append(self.pictures[name])
        if body["sampling_params"]["max_tokens"] > 1:
            self.asked.append(body)
        self.sizes.append(len(json.dumps(body)))
        ids = self.expand(body["token_ids"], pictures)
        if pictures and self.pixels_lost:
            ids.remove(self.policy.encoder.image_pad)
            return {"prompt_token_ids": ids}
        model = self.adapted if body["model"] == "trained" else None
        with self.lock:
            answer, told = self.sample(ids, pictures, names, body["sampling_params"], model)
        content = [
            {"token": f"token_id:{i}", "logprob": p, "top_logprobs": []} for i, p in zip(answer, told, strict=True)
        ]
        return {"choices": [{"token_ids": answer, "logprobs": {"content": content}}], "prompt_token_ids": ids}

    def pause(self, body: Any) -> Any:
        assert not self.paused
        self.paused = True
        return {}

    def resume(self, body: Any) -> Any:
        self.paused = False
        return {}

    def collective_rpc(self, body: Any) -> Any:
        assert body["method"] == "reload_weights"
        assert self.paused != (self.awake == {"weights"})
        self.did.append("load")
        with self.lock:
            self.pushed.append(self.reload(body["kwargs"]["weights_path"]))
        return {"results": [None]}

    def load_lora_adapter(self, body: Any) -> Any:
        assert body["load_inplace"]
        with self.lock:
            self.adapt(body["lora_path"])
        self.pushed.append([*load_file(Path(body["lora_path"]) / "adapter_model.safetensors")])
        return {}

    def sleep(self, body: Any) -> Any:
        self.awake.clear()
        self.did.append("sleep")
        return {}

    def wake_up(self, what: str) -> Any:
        self.awake.add(what)
        self.did.append(f"wake {what}")
        return {}

    def reset_prefix_cache(self, body: Any) -> Any:
        self.resets["prefix"] += 1
        return {"success": True}

    def reset_encoder_cache(self, body: Any) -> Any:
        self.resets["encoder"] += 1
        self.forget_features()
        return {}

    def update_weight_version(self, body: Any) -> Any:
        self.version = body["new_version"]
        return {"success": True}


def picture_of(url: str) -> Picture:
    data = base64.b64decode(url.partition(",")[2])
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return Picture(Screenshot(width, height, data=data), width, height)


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            server.links.append(self.connection)

        def do_GET(self) -> None:
            self._answer(lambda: server.get(self.path.partition("?")[0]))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self._answer(lambda: server.post(self.path, json.loads(body or b"{}")))

        def _answer(self, make: Any) -> None:
            try:
                status, said = 200, make()
            except Exception as error:
                status, said = 400, {"error": f"{type(error).__name__}: {error}"}
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


class FakeLLM(TinyEngine):
    """`vllm.LLM`, as far as `ColocatedEngine` uses it."""

    lie = False
    keep = False
    made: FakeLLM | None = None

    def __init__(self, model: str, **settings: Any):
        super().__init__(Path(model))
        self.settings, self.resets = settings, {"prefix": 0, "encoder": 0}
        self.did: list[str] = []
        self.lies, self.keeps_features = FakeLLM.lie, FakeLLM.keep
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(model="folder", dtype=torch.float32),
            reset_encoder_cache=self._reset_encoder_cache,
            add_lora=lambda request: self.adapt(request.lora_path),
        )
        FakeLLM.made = self

    def sleep(self, level: int) -> None:
        assert level == 1
        self.did.append("sleep")

    def wake_up(self, tags: list[str]) -> None:
        self.did.append(f"wake {tags[0]}")

    def collective_rpc(self, method: str, kwargs: dict[str, str]) -> None:
        assert method == "reload_weights"
        self.did.append("load")
        self.reload(kwargs["weights_path"])

    def generate(self, prompts: Any, sampling_params: Any, use_tqdm: bool, lora_request: Any = None) -> list[Any]:
        model = None if lora_request is None else self.adapted
        if self.did[-1:] != ["generate"]:
            self.did.append("generate")
        given = zip(prompts, sampling_params, strict=True)
        return [self._one(prompt, vars(params), model) for prompt, params in given]

    def _one(self, prompt: Any, settings: dict[str, Any], model: Any) -> Any:
        images = prompt.get("multi_modal_data", {}).get("image", [])
        names = prompt.get("multi_modal_uuids", {}).get("image", [])
        shots = [Picture(_shot(image), *image.size) for image in images]
        whole = self.expand(prompt["prompt_token_ids"], shots)
        ids, told = self.sample(whole, shots, names, settings, model)
        logprobs = [{i: SimpleNamespace(logprob=p, rank=1)} for i, p in zip(ids, told, strict=True)]
        output = SimpleNamespace(token_ids=ids, logprobs=logprobs)
        return SimpleNamespace(outputs=[output], prompt_token_ids=whole)

    def reset_prefix_cache(self) -> bool:
        self.resets["prefix"] += 1
        return True

    def _reset_encoder_cache(self) -> None:
        self.resets["encoder"] += 1
        self.forget_features()


def _shot(image: Any) -> Screenshot:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Screenshot(*image.size, data=file.getvalue())


def pretend_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM of the pinned release in this environment, beside any transformers."""
    module = SimpleNamespace(SamplingParams=SimpleNamespace, LLM=FakeLLM)
    request = SimpleNamespace(
        LoRARequest=lambda name, number, path, load_inplace=False: SimpleNamespace(lora_path=path)
    )
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.lora", SimpleNamespace(request=request))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)
    monkeypatch.setattr("guiderail.rl.train.vllm_trainer.check_one_environment", lambda: None)
