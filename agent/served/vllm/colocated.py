"""vLLM as an engine in the trainer's process, where one environment holds both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Sampling
from guiderail.agent.served.vllm.policy import EncodedRequest, Sampled, check_prompt, number

if TYPE_CHECKING:
    from guiderail.agent.local.encode import Encoder


class ColocatedEngine:
    """`llm`: a `vllm.LLM` that reports raw log-probabilities. encoder: the trainer's own, to compare the prompts."""

    def __init__(self, llm: Any, encoder: Encoder):
        self.llm, self.encoder = llm, encoder
        self.adapter: Any = None
        """The `LoRARequest` to sample with, if any."""

    def sample(self, rows: Sequence[EncodedRequest], sampling: Sampling, extra: dict[str, Any]) -> list[Sampled]:
        """As `Engine.sample`."""
        from vllm import SamplingParams

        images = {picture: picture.image() for row in rows for picture in row.pictures}
        prompts = []
        for row in rows:
            prompt: dict[str, Any] = {"prompt_token_ids": row.ids}
            if row.pictures:
                prompt["multi_modal_data"] = {"image": [images[picture] for picture in row.pictures]}
                prompt["multi_modal_uuids"] = {"image": list(row.names)}
            prompts.append(prompt)
        settings = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_new_tokens,
                logprobs=0,
                seed=row.seed,
                **extra,
            )
            for row in rows
        ]
        lora = {} if self.adapter is None else {"lora_request": self.adapter}
        outputs = self.llm.generate(prompts, sampling_params=settings, use_tqdm=False, **lora)
        answers = []
        for row, output in zip(rows, outputs, strict=True):
            check_prompt(row, output.prompt_token_ids, self.encoder)
            [one] = output.outputs
            logprobs = [number(at[i].logprob) for i, at in zip(one.token_ids, one.logprobs, strict=True)]
            answers.append(([*one.token_ids], logprobs))
        return answers

    def sleep(self) -> None:
        """As `Server.sleep`."""
        self.llm.sleep(level=1)

    def wake(self, what: str) -> None:
        """As `Server.wake`."""
        self.llm.wake_up(tags=[what])

    def load_weights(self, folder: str) -> None:
        """Replace the weights by the safetensors in `folder`, in vLLM's own way."""
        config = self.llm.llm_engine.model_config
        path = config.model
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        config.model = path  # in one process vLLM would look for its tokenizer and image processor in `folder`, too

    def load_adapter(self, name: str, folder: str) -> None:
        """Load a PEFT adapter, in the place of the one before, and sample with it from now on."""
        from vllm.lora.request import LoRARequest

        self.llm.llm_engine.add_lora(LoRARequest(name, 1, folder, load_inplace=True))
        self.adapter = LoRARequest(name, 1, folder)

    def forget(self) -> None:
        """As `Server.forget`. Raises SetupError where the prefix cache stays in use."""
        if self.llm.reset_prefix_cache() is False:
            raise SetupError("vLLM's prefix cache is in use and cannot be reset; use rollout.engine=vllm-server")
        self.llm.llm_engine.reset_encoder_cache()
