"""The report as files: what it says, what it escapes, what it refuses."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.testing import CliRunner

from guiderail.agent.errors import DataError, SetupError
from guiderail.launch.cli import app
from guiderail.launch.report import names
from guiderail.launch.report.charts import curve
from guiderail.launch.report.chunks import script_json, telling
from guiderail.launch.report.compare import Change, said
from guiderail.launch.report.entries import read_entries
from guiderail.launch.report.facts import flat
from guiderail.launch.report.images import Images
from guiderail.launch.report.overview import groups, headline, learned
from guiderail.launch.report.pages import build
from guiderail.launch.report.runs import curves, discover, recording
from guiderail.rl.runs.log import RunLog
from guiderail.rl.runs.metrics import METRICS
from tests.launch.report.conftest import EVIL
from tests.launch.report.synthetic import sop_run, training_run


class Tags(HTMLParser):
    def __init__(self, page: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text(encoding="utf-8").split("\n") if line]


def entries_of(run: Path, out: Path):
    found = discover([run])[0]
    return found, read_entries(found, recording(found, None), Images(out))[0]


def test_every_page_is_strict_and_every_link_leads_somewhere(built):
    pages = sorted(built.rglob("*.html"))
    assert {page.name for page in pages} == {"index.html", "walks.html", "atlas.html", "compare.html"}
    for page in pages:
        tags = Tags(page).tags
        policy = next(a["content"] for t, a in tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "data:" not in policy
        for tag, attributes in tags:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (page, tag, attributes)
            assert tag != "style"
            assert tag != "script" or "src" in attributes
            for name in ("href", "src"):
                place = urlsplit(attributes.get(name) or "")
                assert not place.scheme
                assert not place.netloc
                assert not place.path or (page.parent / unquote(place.path)).is_file(), (page, attributes)


def test_markup_in_what_others_wrote_stays_text(built):
    for page in built.rglob("*.html"):
        tags = Tags(page).tags
        assert not any(attributes.get("src") == "x" for _, attributes in tags)
        assert all(attributes.get("src", "").endswith(".js") for tag, attributes in tags if tag == "script")
    assert f"template {EVIL}" in "".join(Tags(built / "rl" / "atlas.html").text)
    assert f"model {EVIL}" in "".join(Tags(built / "index.html").text)
    for script in built.rglob("data/*.js"):
        text = script.read_text(encoding="utf-8")
        assert not set(text) & set("<>&\u2028\u2029")


def test_a_deep_link_escapes_its_key(built):
    hrefs = [a.get("href") or "" for _, a in Tags(built / "rl" / "atlas.html").tags]
    assert any("#evil%2F..%2F%3Cb%3E%40" in href for href in hrefs)


def test_script_json_reads_back():
    value = {"a": [EVIL, "\u2029", "\U0001f600", 1.5, None]}
    assert json.loads(script_json(value)) == value


def test_dropped_groups_are_named_and_counted(study, tmp_path):
    _, entries = entries_of(study / "rl", tmp_path)
    by_group = {(row["generation"], row["visit"]): row["signal"] for row in lines(study / "rl")}
    counts = Counter(by_group.values())
    found = groups(entries)
    assert found["n"] == len(by_group)
    assert found["kept"] == counts["kept"]
    share = 100 * (len(by_group) - counts["kept"]) / len(by_group)
    assert found["words"].startswith(f"{share:.0f} % of {len(by_group)} groups carry no signal")
    assert sum(row["n"] for row in found["generations"]) == len(by_group)


def test_the_headline_is_the_runs_own(study, tmp_path):
    run, entries = entries_of(study / "scores" / "first", tmp_path)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    shown = {row["name"]: (row["value"], [row["low"], row["high"]]) for row in headline(run, entries)}
    assert shown == {key: (metrics[key], metrics["intervals"][key]) for key in ("PG", "TSR", "Score")}
    assert [row["title"] for row in headline(run, entries)][1] == "Episodes right to the end (TSR)"


def test_every_rollout_and_its_credit_reach_the_viewer(study, built):
    shown = {}
    for file in (built / "rl" / "data").glob("chunk-*.js"):
        text = file.read_text()
        for entry in json.loads(text[text.index(",") + 1 : text.rindex(")")]):
            for rollout in entry["rollouts"]:
                shown[entry["key"], rollout["sample"]] = rollout["turns"]
    rows = {(f"{row['unit']}@{row['visit']}", row["sample"]): row["turns"] for row in lines(study / "rl")}
    assert shown.keys() == rows.keys()
    for key, turns in rows.items():
        for turn, there in zip(turns, shown[key], strict=True):
            assert there["text"] == turn["text"]
            assert there["return"] == turn["return"]
            assert (there["episode"], there["step"]) == (turn["episode_advantage"], turn["step_advantage"])
            assert ("repair" in there) == ("repair" in turn)
            assert (there["outcome"] == "e") == turn["verdict"]["exact"]


def test_screenshots_are_kept_once_by_their_hash(built, data):
    names = [path.name for path in (built / "images").iterdir()]
    assert 0 < len(names) <= len(list((data / "images").iterdir()))
    assert all(re.fullmatch(r"[0-9a-f]{32}\.png", name) for name in names)


def test_another_file_is_not_drawn_over_this_run(study, data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    with (other / "episodes.jsonl").open("a") as file:
        file.write("\n")
    found = recording(discover([study / "rl"])[0], str(other))
    assert not found.episodes
    assert "has changed since this run" in found.state
    gone = recording(discover([study / "rl"])[0], str(tmp_path / "nowhere"))
    assert "give its place with --data" in gone.state
    build([study / "rl"], tmp_path / "out", data=str(other), plots=False)
    assert "has changed since this run" in (tmp_path / "out" / "index.html").read_text()


def test_missing_and_broken_images_leave_a_blank(study, data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    first, second, *_ = sorted((copy / "images").iterdir())
    first.unlink()
    second.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = discover([study / "rl"])[0]
    images = Images(tmp_path / "out")
    source = recording(found, str(copy))
    entries, _ = read_entries(found, source, images)
    assert len(source.episodes) == 20
    assert "lack screenshots" in source.state
    assert any(step["image"] is None for entry in entries for step in entry["steps"])
    assert any(step["image"] for entry in entries for step in entry["steps"])


def test_large_screenshots_are_scaled_and_giants_refused(tmp_path):
    from PIL import Image

    Image.new("RGB", (1080, 2400), "navy").save(tmp_path / "large.png")
    Image.new("1", (8_000, 8_000)).save(tmp_path / "giant.png")
    images = Images(tmp_path / "out", width=360)
    name = images.add(tmp_path / "large.png")
    assert name is not None
    with Image.open(tmp_path / "out" / "images" / name) as small:
        assert small.size == (360, 800)
    assert images.add(tmp_path / "giant.png") is None
    assert images.missing == {tmp_path / "giant.png"}


def test_a_line_that_is_no_rollout_is_named(study, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(study / "scores" / "first", run)
    with (run / "rollouts.jsonl").open("a") as file:
        file.write('{"sample": 0}\n')
    with pytest.raises(DataError, match=r"rollouts.jsonl:21: not a rollout: unit: Field required"):
        build([run], tmp_path / "out", plots=False)


def test_a_run_under_way_is_shown_as_far_as_it_is(data, tmp_path):
    run = training_run(data, tmp_path / "live", generations=2, groups=2, finish=False)
    with (run / "rollouts.jsonl").open("a") as file:
        file.write('{"half a li')
    out = tmp_path / "out"
    pages = build([run], out, plots=False)
    assert pages[0].entries
    page = (out / "index.html").read_text()
    assert "under way" in page
    assert 'data-stamp-at="stamp.js"' in page
    before = (out / "stamp.js").read_text()
    (run / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines_until_broken(run)))
    (run / "metrics.json").write_text('{"seconds": 1.0}')
    build([run], out, plots=False)
    assert (out / "stamp.js").read_text() != before
    assert "data-stamp-at" not in (out / "index.html").read_text()


def lines_until_broken(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().split("\n")[:-1]]


def test_a_long_curve_is_thinned_but_its_ends_and_extremes_are_said():
    points = [(update, 0.5) for update in range(2000)]
    points[1] = (1, 9.0)
    points[-1] = (1999, 0.25)
    drawn = str(curve("loss", points))
    assert "loss: from 0.5 to 0.25 at update 1999" in drawn
    assert ">update 1999<" in drawn
    assert ">9<" in drawn


def test_curves_come_from_tensorboard_or_the_last_checkpoint(tmp_path):
    state = {"log_history": [{"step": 1, "loss": 2.0, "epoch": 0.1}, {"step": 2, "loss": 1.0}]}
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(json.dumps(state))
    assert curves(tmp_path) == {"epoch": [(1, 0.1)], "loss": [(1, 2.0), (2, 1.0)]}
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs guiderail[train]")
    with tensorboard.SummaryWriter(str(tmp_path / "runs" / "now")) as writer:
        for step in range(3):
            writer.add_scalar("train/rollout/reward", 0.5 * step, step)
    assert curves(tmp_path) == {"rollout/reward": [(0, 0.0), (1, 0.5), (2, 1.0)]}
    file = next((tmp_path / "runs" / "now").iterdir())
    file.write_bytes(file.read_bytes()[:-5])
    assert curves(tmp_path) == {"rollout/reward": [(0, 0.0), (1, 0.5)]}


def test_settings_are_shown_as_dotted_names():
    assert flat({"a": {"b": 1, "c": None}, "d": "x", "e": {}}) == [("a.b", "1"), ("a.c", "–"), ("d", "x"), ("e", "{}")]


def test_command_line(study, tmp_path):
    run = CliRunner().invoke(app, ["report", str(study), "--out", str(tmp_path / "out"), "--no-plots", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["runs"] == 3
    again = CliRunner().invoke(app, ["report", str(study), "--out", str(tmp_path / "out"), "--no-plots", "--json"])
    assert again.exit_code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for out in (tmp_path / "mine", study / "rl"):
        refused = CliRunner().invoke(app, ["report", str(study / "rl"), "--out", str(out)])
        assert isinstance(refused.exception, SetupError)
    empty = CliRunner().invoke(app, ["report", str(tmp_path / "mine"), "--out", str(tmp_path / "new")])
    assert "holds no run" in str(empty.exception)
    assert not (tmp_path / "new").exists()


def test_a_report_that_failed_can_be_written_again(study, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(study / "scores", runs)
    last = sorted(runs.glob("*/rollouts.jsonl"))[-1]
    whole = last.read_text()
    last.write_text('{"sample": 0}\n')
    words = ["report", str(runs), "--out", str(tmp_path / "out"), "--no-plots"]
    assert isinstance(CliRunner().invoke(app, words).exception, DataError)
    last.write_text(whole)
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.exception


def test_a_report_that_was_killed_at_once_can_be_written_again(study, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    again = CliRunner().invoke(app, ["report", str(study / "rl"), "--out", str(tmp_path / "out"), "--no-plots"])
    assert again.exit_code == 0, again.exception


def test_papers_get_svg_and_png_of_the_same_bytes(built, study, tmp_path):
    folder = built / "rl" / "figures"
    names = {file.stem for file in folder.iterdir()}
    assert {"groups", "first-divergence", "confusion", "click-offsets"} <= names
    build([study / "rl"], tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "groups.svg").read_bytes() == (folder / "groups.svg").read_bytes()


# --------------------------------------------------------------------------------------------------------------- colours


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(built, scheme):
    roots = re.findall(r":root \{(.*?)\}", (built / "assets" / "report.css").read_text(), re.S)
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})\b", roots[scheme]))
    pairs = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("paper", "panel", "sunk")]
    pairs += [("expert", "paper"), ("policy", "paper"), ("good", "goodbg"), ("part", "partbg"), ("bad", "badbg")]
    for text, ground in [*pairs, ("unread", "unreadbg")]:
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_samples_of_a_live_task_are_rollouts_with_their_own_screens(tmp_path):
    from PIL import Image

    run = tmp_path / "run"
    log = RunLog(run, "pocket", {})
    (run / "images").mkdir()
    digest = "ab" * 32
    Image.new("RGB", (16, 32)).save(run / "images" / f"{digest}.png")
    click = {"action": "click", "coordinate": [4, 8]}
    turn = {"index": 0, "screenshot": digest, "screen": [16, 32], "text": "x", "thought": None, "note": ""}
    rows = [
        {"unit": "buy-7", "sample": sample, "ended": "finished", "goal": "Buy.", "outcome": {"success": sample == 0}}
        | {"turns": [turn | {"action": click}, turn | {"index": 1, "action": None, "screenshot": "../../etc"}]}
        for sample in (0, 1)
    ]
    for row in rows:
        log.line(row)
    log.finish({"success": 0.5, "interval": [0.1, 0.9], "n": 2, "unscored": 0})
    _, (entry,) = entries_of(run, tmp_path / "out")
    assert entry["template"] == "buy"
    assert [(one["sample"], one["success"]) for one in entry["rollouts"]] == [(0, True), (1, False)]
    first, second = entry["rollouts"][0]["turns"]
    assert (tmp_path / "out" / "images" / first["image"]).is_file()
    assert first["said"]["at"] == [0.25, 0.25]
    assert (second["image"], second["outcome"]) == (None, "u")
    build([run], tmp_path / "pages", plots=False)
    assert not (tmp_path / "pages" / "atlas.html").exists()
    assert "Tasks done" in (tmp_path / "pages" / "index.html").read_text()


# ----------------------------------------------------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("new", "interval", "p", "apart", "words"),
    [
        (0.502, (0.042, 0.101), 2.4e-6, True, "rl is 7.1 points [4.2, 10.1] ahead of start in live success: 50.2"),
        (0.331, (-0.15, -0.05), 0.001, True, "rl is 10.0 points [5.0, 15.0] behind start in live success: 33.1"),
        (
            0.421,
            (-0.05, 0.03),
            0.81,
            False,
            "rl and start cannot be told apart in live success: -1.0 points [-5.0, +3.0]",
        ),
        (0.451, (-0.001, 0.05), 0.04, True, "rl is 2.0 points [-0.1, 5.0] ahead of start in live success: 45.1"),
        (0.411, (-0.05, 0.01), 0.04, True, "rl is 2.0 points [-1.0, 5.0] behind start in live success: 41.1"),
    ],
)
def test_a_difference_in_words(new, interval, p, apart, words):
    text = said("start", "rl", Change("success", 0.431, new, interval, p, apart, 900)).replace("\u00a0", " ")
    assert text.startswith(words)
    assert text.endswith("on the same 900 tasks (p = " + f"{p:.2g}).")


def test_the_overview_begins_with_the_difference(built):
    text = " ".join("".join(Tags(built / "index.html").text).replace("\u00a0", " ").split())
    assert (
        "scores/second and scores/first cannot be told apart in episodes right to the end (TSR): +30.0 points [" in text
    )


def test_the_overview_says_where_nothing_can_be_compared(study, tmp_path):
    build([study / "rl", study / "scores" / "first"], tmp_path / "out", plots=False)
    assert "No two of these runs are compared" in (tmp_path / "out" / "index.html").read_text()


def test_every_metric_has_a_name_and_a_sentence():
    assert set(METRICS) <= set(names.NAMES)
    assert all(names.words(metric) for metric in names.NAMES)


def test_the_viewer_opens_on_what_shows_most(study, tmp_path):
    _, entries = entries_of(study / "rl", tmp_path)
    key, sample, t = telling(entries)
    entry = next(one for one in entries if one["key"] == key)
    rollout = next(one for one in entry["rollouts"] if one["sample"] == sample)
    assert entry["signal"] == "kept"
    assert t == next(turn["t"] for turn in rollout["turns"] if turn["outcome"] != "e")
    assert any(all(turn["outcome"] == "e" for turn in one["turns"]) for one in entry["rollouts"])
    dropped = [one for one in entries if one["signal"] != "kept"]
    assert telling([*dropped, entry])[0] == key
    assert telling([]) is None
    live = {"key": "a", "live": True, "signal": None}
    turns = [{"t": 0, "outcome": "l"}, {"t": 1, "outcome": "l"}]
    fine, failed, slow = (
        {"sample": n, "success": right, "ended": ended, "turns": turns}
        for n, (right, ended) in enumerate([(True, "finished"), (False, "finished"), (False, "out_of_steps")])
    )
    assert telling([live | {"rollouts": [fine, slow, failed]}]) == ["a", 1, 1]


def test_what_training_changed_in_words(study, tmp_path):
    _, entries = entries_of(study / "rl", tmp_path)
    found = learned(entries)
    assert re.match(
        r"Turns that agree with the expert: [\d.]+ % \[[\d., ]+\] in generation 0, [\d.]+ %", found["words"]
    )
    assert learned([entry for entry in entries if entry["generation"] == 0]) is None


def test_the_recording_is_found_from_where_the_command_was_started(data, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "work" / "data")
    monkeypatch.chdir(tmp_path / "work")
    run = training_run(Path("data"), Path("runs/rl"), generations=1, groups=2)
    monkeypatch.chdir(tmp_path)
    found = recording(discover([tmp_path / "work" / run])[0], None)
    assert len(found.episodes) == 20


def test_a_rate_stands_below_its_own_name(data, tmp_path):
    sop_run(data, tmp_path / "study" / "done")
    sop_run(data, tmp_path / "study" / "under-way")
    (tmp_path / "study" / "under-way" / "metrics.json").unlink()
    build([tmp_path / "study"], tmp_path / "report", plots=False)
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    (row,) = re.findall(r"<tr><th><a href=.under-way/index.html.*?</tr>", text, re.DOTALL)
    cells = re.findall(r"<td data-name=.([^>]*).>", row)
    assert cells == ["Turns that agree so far"]
    assert row.count('class="none"') == 3


def test_the_folder_one_is_in_has_its_name(study, tmp_path, monkeypatch):
    run = discover([study])[0].folder
    monkeypatch.chdir(run)
    assert [one.name for one in discover([Path()])] == [run.name]


@pytest.mark.parametrize("option", [["--width", "0"], ["--every", "-1"]])
def test_options_out_of_range_are_refused(study, tmp_path, option):
    result = CliRunner().invoke(app, ["report", str(study), "--out", str(tmp_path / "x"), *option])
    assert result.exit_code == 2
