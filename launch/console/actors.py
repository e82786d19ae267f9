"""Who acts in an attended attempt: a policy with its dialogue, or the task's own expert."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from guiderail.agent.dialects import GUIDERAIL
from guiderail.agent.dialogue import Dialogue
from guiderail.agent.errors import SetupError
from guiderail.agent.policy import Policy, Request, Sampling, completions
from guiderail.agent.scripted import ORIGINAL_SIZE
from guiderail.agent.types import Completion, Prompt
from guiderail.envs.live.attempts import Demonstrable, LiveTask
from guiderail.launch.agents import AgentSpec, Voice, build_agent, sampling
from guiderail.rl.rollout.drive import seed_of

NO_AGENT = Dialogue(ORIGINAL_SIZE, GUIDERAIL)
"""In whose words a person's steps are written where no agent takes part."""


@dataclass
class Actor:
    """policy None: the task's own expert. seed: with the task it decides what is sampled, as in `guiderail evaluate`. lock:
    a policy in this process answers one attempt at a time."""

    name: str
    dialogue: Dialogue
    voice: Voice
    policy: Policy | None
    sampling: Sampling
    seed: int = 0
    local: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, task: LiveTask, prompt: Prompt, asked: int) -> Completion:
        """asked: how many answers this attempt has had. Raises EnvCrashed and SetupError."""
        if self.policy is None:
            if not isinstance(task, Demonstrable):
                raise SetupError(
                    "this device has no expert for a goal of your own; leave the goal out, or give --model"
                )
            return Completion(self.dialogue.say(*task.expert(), prompt.screen.screenshot))
        request = Request(prompt, seed_of(self.seed, task.id, 0, 0, asked))
        with self.lock:
            return completions(self.policy.complete([request], self.sampling))[0]


def build_actor(spec: AgentSpec, temperature: float = 0.0, seed: int = 0) -> Actor:
    """Load who acts. Raises SetupError."""
    made = build_agent(spec)
    policy = None if spec.agent == "expert" else made.policy
    return Actor(
        made.model, made.dialogue, made.voice, policy, sampling(made.voice, temperature), seed, spec.model is not None
    )
