"""An OpenAI-compatible chat server over a model folder, as transformers itself runs it: its image processor resizes, its
`generate` answers. Nothing of it comes from agent/local."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


class Served:
    """sizes: the pictures' (width, height) as they came, and as the model saw them.

    adapters: folders by name, as vLLM's routes for them fill it. The model is loaded anew for each, so nothing can be left of
    another. lora: as vLLM's settings say it.
    """

    def __init__(self, folder: Path):
        self.folder, self.adapters = folder, dict[str, str]()
        self.loaded: list[str] = []
        self.lora: dict[str, Any] | None = {"enable_tower_connector_lora": True}
        self._load()

    def _load(self) -> None:
        folder = self.folder
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.sizes: set[tuple[tuple[int, int], tuple[int, int]]] = set()

    def lora_route(self, path: str, body: dict[str, str]) -> tuple[int, dict[str, str]]:
        """/v1/load_lora_adapter and /v1/unload_lora_adapter: (status, answer)."""
        name = body["lora_name"]
        if self.lora is None:
            return 404, {"detail": "Not Found"}
        self._load()
        if path.startswith("/v1/unload"):
            del self.adapters[name]
            return 200, {}
        if name in self.adapters:
            return 400, {"message": f"The lora adapter {name!r} has already been loaded."}
        self.adapters[name] = body["lora_path"]
        self.loaded.append(name)
        self.model = PeftModel.from_pretrained(self.model, body["lora_path"]).eval()
        return 200, {}

    def models(self, name: str) -> list[dict[str, Any]]:
        adapters = [{"id": one, "root": path, "parent": name} for one, path in self.adapters.items()]
        return [{"id": name, "root": str(self.folder), "parent": None}, *adapters]

    @torch.no_grad()
    def answer(self, messages: list[dict[str, Any]], most: int) -> str:
        ids, seen, pads = self._inputs(messages, True)
        made = self.model.generate(
            **ids,
            **seen,
            mm_token_type_ids=pads,
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=self.tokenizer.convert_tokens_to_ids("<|im_end|>"),
        )
        said: str = self.tokenizer.decode(made[0, pads.shape[1] :], skip_special_tokens=True)
        return said

    @torch.no_grad()
    def prompt_logprobs(self, messages: list[dict[str, Any]], top: int) -> list[dict[str, dict[str, float]] | None]:
        """As vLLM reports them: per token the `top` most likely ones and itself, none for the first."""
        ids, seen, pads = self._inputs(messages, False)
        logps = self.model(**ids, **seen, mm_token_type_ids=pads).logits[0].log_softmax(-1)
        rows: list[dict[str, dict[str, float]] | None] = [None]
        for place, token in enumerate(ids["input_ids"][0, 1:].tolist()):
            known = {*logps[place].topk(top).indices.tolist(), token}
            rows.append({str(i): {"logprob": logps[place, i].item()} for i in known})
        return rows

    def _inputs(self, messages: list[dict[str, Any]], asks: bool) -> tuple[Any, Any, Any]:
        parts = [part for message in messages for part in message["content"] if isinstance(part, dict)]
        images = [_image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        for part in parts:
            part["type"] = "image" if part["type"] == "image_url" else part["type"]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        seen = self.processor(images=images, return_tensors="pt")  # with its own resize
        patch = self.processor.patch_size
        for image, (_, rows, columns) in zip(images, seen["image_grid_thw"].tolist(), strict=True):
            self.sizes.add((image.size, (columns * patch, rows * patch)))
            text = text.replace("<|image_pad|>", "<|pad|>" * (rows * columns // self.processor.merge_size**2), 1)
        ids = self.tokenizer(text.replace("<|pad|>", "<|image_pad|>"), return_tensors="pt", add_special_tokens=False)
        return ids, seen, (ids["input_ids"] == self.model.config.image_token_id).long()


def _image(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


@contextmanager
def serving(served: Served, name: str) -> Iterator[str]:
    """The server's base URL."""
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/server_info"):
                self.send({"vllm_config": {"lora_config": served.lora}})
            else:
                self.send({"data": served.models(name)})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with one_at_a_time:
                if self.path.endswith("lora_adapter"):
                    status, said = served.lora_route(self.path, body)
                    self.send(said, status)
                    return
                assert body["model"] == next(iter(served.adapters), name)
                if "prompt_logprobs" in body:
                    assert body["add_generation_prompt"] is False
                    rows = served.prompt_logprobs(body["messages"], body["prompt_logprobs"])
                    self.send({"choices": [], "prompt_logprobs": rows})
                    return
                text = served.answer(body["messages"], body["max_tokens"])
            self.send({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})

        def send(self, answer: dict[str, Any], status: int = 200) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()
