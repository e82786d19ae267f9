from bench_env.task import lists


class TaskRegistry:
    def get_by_id(self, name):
        suite, _, task = name.partition(".")
        if task not in vars(lists):
            raise ValueError(f"Task '{task}' not found in suite '{suite}'")
        return vars(lists)[task]

    def create_task(self, name, **given):
        return self.get_by_id(name)(**given)


def _max_instances(cls, n):
    return n if cls.parameters else 1
