"""Truncated importance sampling: the formula, and exactly nothing where the policy sampled itself."""

from collections import defaultdict
from types import SimpleNamespace

import torch

from guiderail.rl.train.importance import importance
from guiderail.rl.train.trainer import SemiOnlineTrainer


def test_weights_are_the_capped_ratio_of_turns_of_others():
    old = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -2.0, -0.5]])
    sampler = torch.tensor([[-1.5, -1.0, -3.0], [-1.5, torch.nan, -3.0]])
    weights = importance(old, sampler, [True, True], cap=2.0)
    ratio = torch.tensor([-1.0 + 1.5, -2.0 + 1.0]).exp()
    assert torch.equal(weights[0], torch.tensor([ratio[0], ratio[1], 2.0]))
    assert torch.equal(weights[1], torch.tensor([ratio[0], 1.0, 2.0]))


def test_on_policy_is_exactly_one_whatever_rounding_did():
    old, sampler = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.equal(importance(old, sampler, [False] * 3, 2.0), torch.ones(3, 5))


def test_a_batch_weighs_replayed_rows_alone_and_with_vllm_all():
    """Rows: of this policy, of two generations ago, a filler. tool_mask holds the weights of the loss."""

    def weighed(other_sampler):
        trainer = SimpleNamespace(
            other_sampler=other_sampler, importance_cap=2.0, _metrics={"train": defaultdict(list)}
        )
        batch = {
            "samples": [SimpleNamespace(behind=0), SimpleNamespace(behind=2), None],
            "old_per_token_logps": torch.tensor([[-1.0], [-1.0], [-1.0]]),
            "rollout_logps": torch.tensor([[-1.2], [-0.5], [torch.nan]]),
            "tool_mask": torch.tensor([[3.0], [3.0], [0.0]]),
        }
        SemiOnlineTrainer._weigh(trainer, batch)
        return batch["tool_mask"].flatten().tolist(), trainer._metrics["train"]["update/importance"]

    later, sooner = torch.tensor([0.2, -0.5]).exp().tolist()
    weights, said = weighed(False)
    assert weights == [3.0, (3.0 * torch.tensor(-0.5).exp()).item(), 0.0]
    assert abs(said[0] - sooner) < 1e-6
    weights, said = weighed(True)
    assert abs(weights[0] - 3 * later) < 1e-5
    assert abs(said[0] - (later + sooner) / 2) < 1e-6


def test_the_mean_weight_in_the_log_leaves_padding_out():
    trainer = SimpleNamespace(other_sampler=True, importance_cap=2.0, _metrics={"train": defaultdict(list)})
    batch = {
        "samples": [SimpleNamespace(behind=0), SimpleNamespace(behind=0)],
        "old_per_token_logps": torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 0.0, 0.0]]),
        "rollout_logps": torch.tensor([[-0.5, -0.5, -0.5], [-0.5, torch.nan, torch.nan]]),
        "tool_mask": torch.ones(2, 3),
    }
    SemiOnlineTrainer._weigh(trainer, batch)
    assert abs(trainer._metrics["train"]["update/importance"][0] - torch.tensor(-0.5).exp().item()) < 1e-6
