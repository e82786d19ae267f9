"""vLLM's side of TRL's wire protocol, spoken for real around a real tiny model, without vLLM and without a GPU.

The HTTP endpoints are those that `trl.generation.vllm_client` calls. Weights do not travel over NCCL, which wants CUDA: the
trainer's end is a TCP listener at the same address and port, and tensors cross it as bytes, in the order and with the
names, dtypes and shapes that were announced. `lies` makes the server read them, answer success, and keep what it has.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trl.generation import vllm_client, vllm_generation

from agent.local import load_policy
from agent.types import Picture, Screenshot

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TinyEngine:
    """Samples from a tiny model token by token, without a cache: slow, and nothing of ours in the loop."""

    def __init__(self, folder: Path):
        self.policy = load_policy(folder)
        self.lock = threading.Lock()

    @torch.no_grad()
    def sample(
        self, ids: list[int], pictures: list[Picture], settings: dict[str, Any]
    ) -> tuple[list[int], list[float]]:
        encoder, model = self.policy.encoder, self.policy.model
        uniforms = np.random.default_rng(settings["seed"]).random(settings["max_tokens"])
        bias = torch.zeros(model.get_input_embeddings().weight.shape[0])
        for token, value in settings.get("logit_bias", {}).items():
            bias[int(token)] = value
        given, told = list(ids), []
        vision = encoder.vision_inputs(pictures)
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
            if token in settings.get("stop_token_ids", []):
                break
        return given[len(ids) :], told

    def load(self, name: str, weight: torch.Tensor) -> None:
        with torch.no_grad():
            dict(self.policy.model.named_parameters())[name].copy_(weight)


def _draw(scores: torch.Tensor, uniform: float, temperature: float) -> int:
    """Inverse CDF; greedy at temperature 0."""
    if temperature == 0:
        return int(scores.argmax())
    cdf = (scores / temperature).softmax(-1).cumsum(-1)
    return int(torch.searchsorted(cdf, uniform * cdf[-1], right=True))


class FakeServer(TinyEngine):
    """url: where it listens. lies: keep the weights. pixels_lost: report one token less per picture. asked: bodies of
    /inference/v1/generate. pushed: names of every weight that was taken."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.lies = False
        self.pixels_lost = 0
        self.transfer: dict[str, str] | None = {"backend": "nccl"}
        self.logprobs_mode = "raw_logprobs"
        self.asked: list[dict[str, Any]] = []
        self.pushed: list[list[str]] = []
        self.resets = 0
        self.open = False
        self.link: socket.socket | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def get(self, path: str) -> Any:
        info = {"weight_transfer_config": self.transfer, "model_config": {"logprobs_mode": self.logprobs_mode}}
        return {
            "/health": {},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/server_info": {"vllm_config": info},
            "/get_world_size": {"world_size": 1},
        }[path]

    def post(self, path: str, body: Any) -> Any:
        return getattr(self, path.strip("/").replace("/", "_").replace("v1_", ""))(body)

    def chat_completions_render(self, body: Any) -> Any:
        [message] = body["messages"]
        pngs = [part["image_url"]["url"].partition(",")[2] for part in message["content"]]
        pictures = [self._picture(png) for png in pngs]
        lengths = [self.policy.encoder.image_tokens(picture) - self.pixels_lost for picture in pictures]
        places = [{"offset": 7, "length": length} for length in lengths]
        return {"features": {"mm_placeholders": {"image": places}, "kwargs_data": {"image": pngs}}}

    def inference_generate(self, body: Any) -> Any:
        self.asked.append(body)
        features, ids = body["features"], body["token_ids"]
        shown = features["mm_placeholders"]["image"] if features else []
        assert ids.count(self.policy.encoder.image_pad) == sum(place["length"] for place in shown)
        for place in shown:
            span = ids[place["offset"] : place["offset"] + place["length"]]
            assert set(span) == {self.policy.encoder.image_pad}
        pictures = [self._picture(png) for png in features["kwargs_data"]["image"]]
        with self.lock:
            answer, told = self.sample(ids, pictures, body["sampling_params"])
        content = [
            {"token": f"token_id:{i}", "logprob": p, "top_logprobs": []} for i, p in zip(answer, told, strict=True)
        ]
        return {"choices": [{"token_ids": answer, "logprobs": {"content": content}}]}

    def init_weight_transfer_engine(self, body: Any) -> Any:
        where = (body["init_info"]["master_address"], body["init_info"]["master_port"])
        for _ in range(100):
            with suppress(ConnectionRefusedError):
                self.link = socket.create_connection(where)
                return {}
            time.sleep(0.02)
        raise ConnectionError("nobody at the rendezvous")

    def start_weight_update(self, body: Any) -> Any:
        assert not self.open
        self.open = True
        return {}

    def finish_weight_update(self, body: Any) -> Any:
        self.open = False
        return {}

    def update_weights(self, body: Any) -> Any:
        assert self.open
        assert self.link is not None
        info = body["update_info"]
        with self.link.makefile("rb") as stream, self.lock:
            for name, kind, shape in zip(info["names"], info["dtype_names"], info["shapes"], strict=True):
                dtype = _DTYPES[kind]
                raw = bytearray(stream.read(int(np.prod(shape)) * dtype.itemsize))
                if not self.lies:
                    self.load(name, torch.frombuffer(raw, dtype=dtype).reshape(shape))
        self.pushed.append(info["names"])
        return {}

    def reset_prefix_cache(self, body: Any) -> Any:
        self.resets += 1
        return {"success": True}

    def _picture(self, png: str) -> Picture:
        data = base64.b64decode(png)
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        return Picture(Screenshot(width, height, data=data), width, height)


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

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
    """`vllm.LLM` as TRL's colocate mode uses it; `lies` drops the weights it is given."""

    lies = False
    made: FakeLLM | None = None

    def __init__(self, model: str, **settings: Any):
        super().__init__(Path(model))
        self.settings, self.resets = settings, 0
        runner = SimpleNamespace(model=self)
        worker = SimpleNamespace(model_runner=runner)
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))
        FakeLLM.made = self

    def load_weights(self, weights: Any) -> None:
        for name, weight in weights:
            if not FakeLLM.lies:
                self.load(name, weight)

    def generate(self, prompts: Any, sampling_params: Any, use_tqdm: bool) -> list[Any]:
        return [self._one(prompt, vars(params)) for prompt, params in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: Any, settings: dict[str, Any]) -> Any:
        pictures = []
        for image in prompt.get("multi_modal_data", {}).get("image", []):
            data = base64.b64decode(vllm_client.pil_to_base64(image))
            pictures.append(Picture(Screenshot(*image.size, data=data), *image.size))
        ids, told = self.sample(prompt["prompt_token_ids"], pictures, settings)
        logprobs = [{i: SimpleNamespace(logprob=p, rank=1)} for i, p in zip(ids, told, strict=True)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, logprobs=logprobs)])

    def reset_prefix_cache(self) -> None:
        self.resets += 1


def pretend_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL finds a vLLM of version 0.31 whose weight transfer is a TCP link; its demand for CUDA is met in name only."""
    monkeypatch.setenv("NO_PROXY", "*")
    for module in (vllm_client, vllm_generation):
        monkeypatch.setattr(module, "is_vllm_available", lambda **_: True)
    monkeypatch.setattr(vllm_client, "get_ip", lambda: "127.0.0.1", raising=False)
    monkeypatch.setattr(vllm_client, "_HAS_STATEFUL_TRAINER_ENGINE", True)
    monkeypatch.setattr(vllm_client, "_HAS_RESET_PREFIX_CACHE_SUCCESS", True)
    monkeypatch.setattr(vllm_client, "open_trainer_endpoint", _rendezvous, raising=False)
    monkeypatch.setattr(vllm_client, "packed_nccl_broadcast_producer", _broadcast, raising=False)
    monkeypatch.setattr(vllm_generation, "LLM", FakeLLM, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
    join = vllm_client.VLLMClient.init_communicator
    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", lambda self, device: join(self, "cuda"))


def _rendezvous(info: dict[str, Any]) -> Any:
    with socket.create_server((info["master_address"], info["master_port"])) as listener:
        link, _ = listener.accept()
    return SimpleNamespace(link=link, group=SimpleNamespace(store=None, socket=None))


def _broadcast(iterator: Any, group: Any, src: int, post_iter_func: Any) -> None:
    for item in iterator:
        weight = post_iter_func(item).contiguous()
        group.link.sendall(weight.view(torch.uint8).numpy().tobytes() if weight.dim() else weight.numpy().tobytes())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
