from contextlib import nullcontext


class StopWatch:
    def reset(self):
        pass

    def phase(self, name):
        return nullcontext()
