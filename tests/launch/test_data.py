"""guiderail import and guiderail data, as a person calls them."""

import io
import json

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from guiderail.agent.errors import DataError, SetupError
from guiderail.agent.types import Box, Click, Episode, LongPress, Point, Screenshot, Step, Swipe, TargetBox
from guiderail.envs.imports.run import FORMATS, Progress
from guiderail.envs.pocket.record import record
from guiderail.envs.recordings.episodes import load_episodes
from guiderail.launch.data import _Lines, data_app, import_app
from guiderail.launch.sheet import contact_sheet, marked
from tests.envs.imports.public import ALL_ACTIONS, android_control, png, write_tfrecord

app = typer.Typer()
app.add_typer(import_app, name="import")
app.add_typer(data_app, name="data")


def guiderail(*words, code=0):
    """Standard output, parsed as JSON."""
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--json")], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    out = tmp_path_factory.mktemp("pocket") / "data"
    record(out, 10, 0)
    return out


@pytest.fixture
def imported(tmp_path):
    for number in range(2):
        payloads = [android_control(10 * number + i, ALL_ACTIONS[: i + 1]) for i in range(3)]
        write_tfrecord(tmp_path / "src" / f"android_control-{number:05d}-of-00002", payloads)
    guiderail("import", "androidcontrol", tmp_path / "src", "--out", tmp_path / "out", "--jobs", 1)
    return tmp_path / "out"


def test_every_format_has_a_command():
    assert {command.name or command.callback.__name__ for command in import_app.registered_commands} == set(FORMATS)


def test_import_reports_what_it_did(tmp_path):
    write_tfrecord(tmp_path / "src" / "android_control-00000-of-00001", [android_control(), android_control(2, ())])
    shown = guiderail(
        "import", "androidcontrol", tmp_path / "src", "--out", tmp_path / "out", "--jobs", 2, "--no-terminate"
    )
    assert (shown["episodes"], shown["steps"], shown["images"], shown["dropped"]) == (1, 12, 12, 1)
    assert shown["theirs"]["scroll -> swipe"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["androidcontrol", "nowhere", "--out", "o"], "nowhere does not exist"),
        (["androidcontrol", ".", "--out", "o", "--scroll", "down"], "--scroll 'down': expected uis1 or content"),
        (["uis1", ".", "--out", "o", "--swipes", "up"], "--swipes 'up': expected detect or finger or inverted"),
    ],
)
def test_wrong_words_say_what_to_do(words, message):
    with pytest.raises(SetupError, match=message):
        CliRunner().invoke(app, ["import", *words], catch_exceptions=False)


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    lines = _Lines("import x", every=0.0)
    lines.start -= 10
    lines(Progress(done=60_000_000, total=100_000_000, resumed=20_000_000, units=5, units_done=3))
    said = " ".join(capsys.readouterr().err.split())
    assert said == "import x: 60 of 100 MB, 3 of 5 files, 4.0 MB/s, 10 s left"


def test_stats(imported, pocket):
    found = guiderail("data", "stats", imported)
    assert (found["episodes"], found["steps"]) == (6, 18)
    assert found["actions"] == {"open": 6, "terminate": 6, "click": 4, "long_press": 2}
    assert found["boxes"] == {"steps with": 12, "from tree": 12}
    assert found["steps_per_episode"] == {"min": 2, "median": 3, "max": 4}
    assert found["formats"] == {"androidcontrol": 6}
    assert found["screenshots"] == {"distinct": len(list(imported.glob("images/*/*"))), "missing": 0}
    (imported / "images").rename(imported / "gone")
    assert guiderail("data", "stats", imported)["screenshots"]["missing"] > 0
    recorded = guiderail("data", "stats", pocket)
    assert recorded["episodes"] == 10
    assert recorded["boxes"].keys() == {"steps with"}  # these files say no origin; the boxes are counted all the same
    assert recorded["boxes"]["steps with"] > 10


def test_split_by_shares_is_exact_stable_and_loads(imported):
    whole = {e.id: e for e in load_episodes(imported).episodes}
    assert guiderail("data", "split", imported, "--parts", "train=0.5,dev=0.17,test=0.33") == {
        "train.jsonl": 3,
        "dev.jsonl": 1,
        "test.jsonl": 2,
    }
    parts = {
        name: [e.id for e in load_episodes(imported / f"{name}.jsonl").episodes] for name in ("train", "dev", "test")
    }
    assert sorted(id_ for ids in parts.values() for id_ in ids) == sorted(whole)
    with pytest.raises(SetupError, match=r"train\.jsonl would be overwritten"):
        guiderail("data", "split", imported, "--parts", "train=0.5,test=0.5")
    drawn = set()
    for seed in range(5):
        for path in imported.glob("t*.jsonl"):
            path.unlink()
        guiderail("data", "split", imported, "--parts", "train=0.5,test=0.5", "--seed", seed)
        drawn.add(tuple(e.id for e in load_episodes(imported / "train.jsonl").episodes))
    assert len(drawn) > 1


def test_split_by_a_key_of_the_lines(pocket, tmp_path):
    lines = (pocket / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines))
    made = guiderail("data", "split", tmp_path, "--by", "disturbed")
    assert sum(made.values()) == 10
    assert set(made) <= {"True.jsonl", "False.jsonl"}
    with pytest.raises(SetupError, match=r"no line of .* has a 'colour'"):
        guiderail("data", "split", tmp_path, "--by", "colour")


def test_values_of_the_data_do_not_choose_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    line = {"goal": "g", "steps": [], "split": "../../evil"}
    (tmp_path / "in" / "episodes.jsonl").write_text(json.dumps(line))
    guiderail("data", "split", tmp_path / "in", "--by", "split")
    assert sorted(p.name for p in (tmp_path / "in").iterdir()) == ["_.._evil.jsonl", "episodes.jsonl"]


@pytest.mark.parametrize("shares", ["train=0.5", "train=0.5,test", "a=1.5,b=-0.5"])
def test_shares_must_add_up(imported, shares):
    with pytest.raises(SetupError, match="expected"):
        guiderail("data", "split", imported, "--parts", shares)
    with pytest.raises(SetupError, match="needs one of"):
        guiderail("data", "split", imported)


def test_merge_and_export(imported, pocket, tmp_path):
    merged = guiderail("data", "merge", imported, pocket, "--out", tmp_path / "merged")
    assert merged["episodes"] == 16
    both = load_episodes(tmp_path / "merged")
    assert len({e.id for e in both.episodes}) == 16
    back = tmp_path / "back.jsonl"
    assert guiderail("data", "export", tmp_path / "merged", "--out", back)["episodes"] == 16
    exported = [json.loads(line) for line in back.read_text().splitlines()]
    assert exported[6:] == [json.loads(line) for line in (pocket / "episodes.jsonl").read_text().splitlines()]
    assert all(key not in line for line in exported for key in ("import",))
    with pytest.raises(SetupError, match="exists already"):
        guiderail("data", "export", tmp_path / "merged", "--out", back)


# ---------------------------------------------------------------------------------------------------- contact sheet


def test_show_writes_a_sheet_of_the_episode_asked_for(imported, tmp_path):
    written = guiderail("data", "show", imported, "11", "--out", tmp_path / "sheet.png", "--width", 80)
    assert (written["episode"], written["steps"]) == ("11", 3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 80
        assert len(sheet.getcolors(1 << 24)) > 10
    with pytest.raises(SetupError, match="no episode 'nobody'"):
        guiderail("data", "show", imported, "nobody")


def test_show_reads_files_that_do_not_say_their_convention(pocket, tmp_path):
    ids = [e.id for e in load_episodes(pocket).episodes]
    assert guiderail("data", "show", pocket, ids[4], "--out", tmp_path / "s.png")["episode"] == ids[4]


def test_show_names_a_broken_episode(tmp_path):
    (tmp_path / "episodes.jsonl").write_text('{"goal": "g", "steps": [{"action_content": {"action": "fly"}}]}\n')
    with pytest.raises(DataError, match=r"episodes\.jsonl:1"):
        guiderail("data", "show", tmp_path)


def screen(action, boxes=(), width=100, height=200):
    shot = Screenshot(width, height, data=png(width, height))
    return Step(shot, action, tuple(TargetBox(Box(*b), "bbox") for b in boxes))


def test_the_marks_are_where_the_action_is():
    boxes = [(0.1, 0.1, 0.9, 0.9), (0.4, 0.4, 0.6, 0.6)]
    image = marked(screen(Click(Point(0.5, 0.5)), boxes), 100, 200)
    assert image.getpixel((50, 100)) == (215, 48, 31)
    assert image.getpixel((40, 90)) == (26, 152, 80)  # the smallest box
    assert image.getpixel((10, 90)) == (127, 179, 213)  # another candidate
    ringed = marked(screen(LongPress(Point(0.5, 0.5))), 100, 200)
    assert ringed.getpixel((61, 100)) == (215, 48, 31)
    assert image.getpixel((61, 100)) == (255, 255, 255)


def test_the_arrow_points_where_the_finger_goes():
    image = marked(screen(Swipe(Point(0.5, 0.8), Point(0.5, 0.2))), 100, 200)
    orange = (242, 142, 43)
    assert image.getpixel((50, 100)) == orange

    def spread(y):
        return sum(image.getpixel((x, y)) == orange for x in range(100))

    assert spread(50) > spread(100)  # the head is at the upper end
    assert spread(160) > spread(100)  # a dot at the lower one
    assert spread(30) == 0


def test_a_sheet_without_images_is_drawn_all_the_same():
    step = Step(Screenshot(100, 200), Click(Point(0.5, 0.5)))
    sheet = contact_sheet(Episode("e", "go", (step,) * 7, "x:1"), width=60, columns=3)
    assert sheet.width == 3 * 72 + 12
    assert sheet.height > 3 * 120
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
