from dataclasses import dataclass

from bench_env.task.common_tasks import AnswerTask, form_checks
from bench_env.task.judge import JudgeInput, JudgeResult

SUFFIX = " 然后打开 答题卡 APP 在里面回答问题并提交"


@dataclass
class ExecutionResult:
    steps: int
    trace: list
    runtime_s: float
    finished: bool
    truncated: bool
    agent_answer: str | None = None


class Controller:
    @staticmethod
    async def setup(env, task, eval_mode="grounded"):
        first = await task.setup(env)
        if task.answer_fields:
            form = {
                "question": task.description,
                "fields": task._resolve_answer_fields(),
                "answers": {},
                "submitted": False,
            }
            await env.set_state({"apps": {"answer_sheet": form}}, deep=True, reload=False)
            task.task_name = task.description + SUFFIX
        return first, dict(task.params)


class Evaluator:
    def __init__(self, eval_mode="grounded"):
        pass

    def _evaluate_with_state(self, task, first, last, said):
        both = JudgeInput(init_obs=first, last_obs=last, answer=said.agent_answer)
        try:
            checks = form_checks(task, both) if isinstance(task, AnswerTask) else task.check_goals(both)
        except Exception as error:
            return JudgeResult(judge_error=str(error))
        before, after = dict(first.state["apps"]), dict(last.state["apps"])
        before.pop("answer_sheet"), after.pop("answer_sheet")
        changed = [f"apps.{app}.{key}" for app in before for key in before[app] if before[app][key] != after[app][key]]
        strays = [{"field": path} for path in changed if path not in task.expected_changes]
        passed = sum(check["passed"] for check in checks)
        return JudgeResult(passed == len(checks), not strays, passed / len(checks), checks, strays)
