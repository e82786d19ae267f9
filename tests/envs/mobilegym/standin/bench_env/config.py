from dataclasses import dataclass


@dataclass
class RunnerConfig:
    agent: str
    model_name: str

    def get_max_steps(self, task):
        return 8 + 4 * bool(task.answer_fields)
