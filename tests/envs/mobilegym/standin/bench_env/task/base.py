import random


class BaseTask:
    templates: list[str] = []
    apps: list[str] = []
    difficulty = "L1"
    answer_fields = None
    expected_changes: list[str] = []
    parameters: dict = {}

    def __init__(self, _seed=0):
        self._seed, self._template_index, self.task_name = _seed, None, ""
        rng = random.Random(_seed)
        self.params = {name: rng.choice([*rule["values"].values()]) for name, rule in self.parameters.items()}

    @property
    def description(self):
        shown = {n: next(k for k, v in self.parameters[n]["values"].items() if v == p) for n, p in self.params.items()}
        return self.task_name or self.templates[self._template_index or 0].format(**shown)

    def _apply_display(self, name, value, shown):
        return shown[value]

    def _resolve_answer_fields(self):
        return self.answer_fields

    async def setup(self, env):
        await env.reset(app_ids=self.apps)
        await env.open_app(self.apps[0])
        state = await env.get_state(required_apps=self.apps)
        await self._post_sample(env, state)
        await env.page.evaluate("({text}) => { window.__SIM_FS__.seed = text; }", {"text": "seeded"})
        return await env.get_observation()

    async def _post_sample(self, env, state):
        pass

    def check_goals(self, input):
        return []
