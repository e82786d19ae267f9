import asyncio

from bench_env.task.base import BaseTask
from bench_env.task.common_tasks import AnswerTask

TITLES = ("工作", "购物", "旅行", "读书", "运动", "学习", "音乐", "电影")


class CreateNewNote(BaseTask):
    templates = ["新建一条便签，标题写「{title}」", 'Create a note titled "{title}"']
    apps = ["notes"]
    parameters = {"title": {"values": {title: title for title in TITLES}}}
    expected_changes = ["apps.notes.titles"]

    def check_goals(self, input):
        return [{"field": "title", "passed": self.params["title"] in input.apps["notes"]["titles"]}]


class ReadNotesCount(AnswerTask):
    templates = ["有几条便签", "How many notes are there?"]
    apps = ["notes"]
    answer_fields = [{"type": "number", "label": "数量"}]

    def get_answer(self, input):
        return len(input.init_obs.state["apps"]["notes"]["titles"])


class OpenNewFriends(BaseTask):
    templates = ["打开新的朋友"]
    apps = ["wechat"]

    def check_goals(self, input):
        return [{"field": "route", "passed": input.last_obs.route.get("path") == "/new-friends"}]


class ToggleFriendConfirmation(BaseTask):
    templates = ["{toggle}加好友验证，并保持夜间模式", "Turn confirmation {toggle}"]
    apps = ["wechat"]
    parameters = {"toggle": {"values": {"打开": True, "关闭": False}}}
    expected_changes = ["apps.wechat.confirmation"]

    async def _post_sample(self, env, state):
        await env.set_state({"apps": {"wechat": {"confirmation": not self.params["toggle"]}}}, deep=True)

    def check_goals(self, input):
        wechat = input.apps["wechat"]
        return [
            {"field": "confirmation", "passed": wechat["confirmation"] == self.params["toggle"]},
            {"field": "night", "passed": wechat["night"]},
        ]


class Post(BaseTask):
    templates = ["发一条"]
    apps = ["x"]


class Broken(BaseTask):
    templates = ["坏了"]
    apps = ["wechat"]

    async def _post_sample(self, env, state):
        await asyncio.sleep(1)


class BadJudge(BaseTask):
    templates = ["坏了"]
    apps = ["wechat"]

    def check_goals(self, input):
        raise KeyError("no such field")
