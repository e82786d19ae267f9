import playwright_is_not_here  # noqa: F401 (read by others, never run)


class MobileGymEnv:
    APP_NAME_MAP: dict[str, str] = {"微信": "wechat", "WeChat": "wechat", "笔记": "notes", "答题卡": "answer_sheet"}
