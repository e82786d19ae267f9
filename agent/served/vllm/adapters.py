"""One vLLM server that samples with one PEFT adapter after the other, over the base that it was started with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.served.vllm.client import Refused, Server
from guiderail.agent.served.vllm.setting_up import Start, reaches_tower
from guiderail.agent.served.waiting import Failed


class ServedAdapters:
    """address: of its OpenAI routes, such as http://127.0.0.1:8000/v1. model: the base, as the server lists it. deadline:
    seconds for a question. base: the folder or hub id from which the server has the base.

    The server reads adapters from the same folders as this process. Raises SetupError for one that cannot be reached or does
    not list the model.
    """

    def __init__(self, address: str, model: str, deadline: float = 60.0):
        self.url = address.rstrip("/").removesuffix("/v1")
        self._server = Server(self.url, deadline, os.environ.get("OPENAI_API_KEY", "").strip())
        self._loaded: str | None = None
        try:
            rows = self._server.models()
        except (Failed, Refused) as error:
            raise SetupError(f"the server at {self.url} cannot be asked for its models ({error}); start it") from None
        row = next((row for row in rows if row.get("id") == model), None)
        if row is None:
            listed = ", ".join(str(row.get("id")) for row in rows[:20])
            raise SetupError(
                f"{self.url} does not serve {model!r}; it serves {listed}; give --served-model one of these"
            )
        self.base = str(row.get("root") or model)

    def load(self, name: str, folder: Path) -> None:
        """Have the server sample for the model `name` with the adapter in `folder`, and drop the one before. name: another one
        for other weights, since the server keeps what it computed under it. Raises SetupError."""
        self._check(folder)
        self._drop()
        try:
            self._server.load_adapter(name, str(folder.resolve()), in_place=False)
        except Refused as refused:
            if "already been loaded" not in str(refused):
                raise self._trouble(folder, refused) from None
        except Failed as failed:
            raise self._trouble(folder, failed) from None
        self._loaded = name

    def close(self) -> None:
        """Leave the server as it was."""
        try:
            self._drop()
        finally:
            self._server.close()

    def _drop(self) -> None:
        name, self._loaded = self._loaded, None
        if name is not None:
            try:
                self._server.drop_adapter(name)
            except (Failed, Refused):
                return  # it is gone already, or the server is; the next question tells

    def _check(self, folder: Path) -> None:
        """vLLM says nothing of an adapter's part in the vision tower when it was not started for it."""
        if not reaches_tower(folder):
            return
        try:
            lora: Any = self._server.settings().get("lora_config") or {}
        except (Failed, Refused, KeyError) as error:
            raise SetupError(
                f"adapter {folder} reaches into the vision tower, and the server at {self.url} does not say whether it uses "
                f"that part ({error}); start it with: {self._start(folder)}"
            ) from None
        if not lora.get("enable_tower_connector_lora"):
            raise SetupError(
                f"the server at {self.url} ignores an adapter's part in the vision tower, and {folder} has one; start it "
                f"with: {self._start(folder)}"
            )

    def _trouble(self, folder: Path, error: Exception) -> SetupError:
        return SetupError(
            f"the server at {self.url} does not take the adapter {folder} ({error}); it must see that folder and be started "
            f"with: {self._start(folder)}"
        )

    def _start(self, folder: Path) -> str:
        rank = int(json.loads((folder / "adapter_config.json").read_text()).get("r", 16))
        return Start(self.base, rank=rank, tower=reaches_tower(folder)).command()
