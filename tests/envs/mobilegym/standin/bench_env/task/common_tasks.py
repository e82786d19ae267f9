from bench_env.task.base import BaseTask


class AnswerTask(BaseTask):
    def get_expected_response(self, input):
        return [self.get_answer(input)]

    def check_goals(self, input):
        return []


def form_checks(task, input):
    form = input.apps["answer_sheet"]
    right = [str(form["answers"].get(str(k))) == str(want) for k, want in enumerate(task.get_expected_response(input))]
    return [{"field": "answer", "passed": all(right)}, {"field": "submitted", "passed": form["submitted"]}]
