"""Looking into a folder line by line names episodes as the loader does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guiderail.agent.errors import SetupError
from guiderail.envs.imports.folder import one_episode
from guiderail.envs.recordings.episodes import load_episodes

SIZE = (90, 200)


@pytest.mark.parametrize("screen", [None, SIZE])
def test_blank_lines_count_in_the_names_of_episodes_without_an_id(
    tmp_path: Path, screen: tuple[int, int] | None, png: bytes
) -> None:
    (tmp_path / "0.png").write_bytes(png)
    steps = [{"action_content": {"action": "wait", "time": 1}, "screenshot": "0.png"}]
    texts = [json.dumps({"goal": goal, "swipes": "finger", "steps": steps}) for goal in ("one", "two")]
    (tmp_path / "episodes.jsonl").write_text("\n".join([texts[0], "", texts[1], ""]), "utf-8")
    for episode in load_episodes(tmp_path, screen=screen).episodes:
        found = one_episode(tmp_path, episode.id, screen)
        assert (found.id, found.goal, found.source) == (episode.id, episode.goal, episode.source)
    with pytest.raises(SetupError, match="no episode 'episodes-2'"):
        one_episode(tmp_path, "episodes-2", screen)


@pytest.fixture
def png() -> bytes:
    from PIL import Image

    from guiderail.envs.live.device import encode_png

    return encode_png(Image.new("RGB", SIZE)).encoded()
