"""Who may ask the console: nobody without the token, under another name, or from another site. And what it says to them."""

import asyncio
import http.client
import json
import re
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")
pytest.importorskip("android_env")

import websockets
from typer.testing import CliRunner

from guiderail.agent.errors import SetupError
from guiderail.launch import parts
from guiderail.launch.cli import app
from guiderail.launch.console import command
from guiderail.launch.console.command import agents, devices
from guiderail.launch.console.server import Guard
from guiderail.launch.console.talk import action_of, obey
from tests.launch.console.conftest import TOKEN, until

EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u202e\ud800"


def get(console, path, host=None, method="GET", **headers):
    """(status, headers, body) of one request; host: the Host header."""
    connection = http.client.HTTPConnection("127.0.0.1", console.port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": host or f"127.0.0.1:{console.port}"} | headers).items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def talk(console, *said, path=f"/{TOKEN}/talk", origin=True):
    """The console's messages: the first, and one per thing said."""

    async def run():
        here = f"http://127.0.0.1:{console.port}"
        kinds = {"origin": here if origin is True else origin} if origin else {}
        uri = f"ws://127.0.0.1:{console.port}{path}"
        async with websockets.connect(uri, max_size=None, **kinds) as socket:
            got = [json.loads(await asyncio.wait_for(socket.recv(), 10))]
            for text in said:
                await socket.send(text if isinstance(text, str) else json.dumps(text))
                got.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
            return got

    return asyncio.run(run())


def refused(console, **how):
    with pytest.raises(websockets.exceptions.InvalidStatus) as error:
        talk(console, **how)
    return error.value.response.status_code


def test_with_the_token_the_page_and_its_files_come(console):
    for path, kind in (("", "text/html"), ("assets/console.js", "text/javascript"), ("assets/console.css", "text/css")):
        status, headers, body = get(console, f"/{TOKEN}/{path}")
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert body
    assert json.loads(get(console, f"/{TOKEN}/pages")[2]) == [{"title": "Console", "place": "/"}]
    (first,) = talk(console)
    assert first["lanes"] == [None, None]
    assert first["offer"]["agents"] == ["expert", "random", "nobody"]


def test_without_the_token_nothing_is_said(console):
    for path in (
        "/",
        "",
        "/x/",
        f"/{TOKEN[:-1]}/",
        f"/{TOKEN}x/",
        "/assets/console.js",
        f"/x/{TOKEN}/",
        f"/?token={TOKEN}",
    ):
        status, headers, body = get(console, path or "*")
        assert (status, body) == (404, b""), path
        assert "content-security-policy" not in headers
    assert refused(console, path="/talk") == 403
    assert refused(console, path="/wrong/talk") == 403


def test_another_host_name_is_refused_even_with_the_token(console):
    """A site whose name was made to lead to this machine sends its own name."""
    for host in (
        "evil.example",
        f"evil.example:{console.port}",
        "127.0.0.1",
        "127.0.0.1:1",
        f"127.0.0.1.evil.example:{console.port}",
        "",
    ):
        assert get(console, f"/{TOKEN}/", host=host or " ")[0] in (400, 403), host
    assert get(console, f"/{TOKEN}/", host=f"localhost:{console.port}")[0] == 200
    evil = f"evil.example:{console.port}"
    assert get(console, f"/{TOKEN}/pages", host=evil, Origin=f"http://{evil}")[0] == 403
    shake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    shake |= {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert get(console, f"/{TOKEN}/talk", host=evil, Origin=f"http://{evil}", **shake)[0] == 403


def test_another_origin_is_refused_even_with_the_token(console):
    here = f"http://127.0.0.1:{console.port}"
    assert get(console, f"/{TOKEN}/pages", Origin=here)[0] == 200
    for origin in (
        "http://evil.example",
        "null",
        f"http://127.0.0.1:{console.port + 1}",
        here.replace("http", "https"),
    ):
        assert get(console, f"/{TOKEN}/pages", Origin=origin)[0] == 403
        assert refused(console, origin=origin) == 403
    assert refused(console, origin=None) == 403
    assert get(console, f"/{TOKEN}/pages", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert get(console, f"/{TOKEN}/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


def test_pages_may_load_and_run_nothing_but_their_own_files(console):
    _, headers, body = get(console, f"/{TOKEN}/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|\*|http|data:", policy)
    assert "frame-ancestors 'none'" in policy
    assert (headers["referrer-policy"], headers["cache-control"]) == ("no-referrer", "no-store")
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert not re.search(rb"https?://|<script>|style=|\son\w+=", body)


def test_no_path_leads_out_of_the_folder_of_the_pages(console):
    for name in (
        "../server.py",
        "..%2fserver.py",
        "%2e%2e/server.py",
        "/etc/passwd",
        "..",
        "console.js/../../server.py",
    ):
        assert get(console, f"/{TOKEN}/assets/{name}")[0] == 404
    for digest in ("x", "..", "0" * 64):
        assert get(console, f"/{TOKEN}/screens/{digest}")[0] == 404
    assert get(console, f"/{TOKEN}/", method="POST")[0] == 405


def test_where_it_listens_to_other_machines_names_are_still_refused():
    def status(host, name):
        scope = {"type": "http", "path": f"/{TOKEN}/", "headers": [(b"host", name.encode())]}
        return Guard(None, TOKEN, host, 8000)._refusal(scope)

    assert status("0.0.0.0", "192.168.1.7:8000") == 0
    assert status("0.0.0.0", "evil.example:8000") == 403
    assert status("127.0.0.1", "192.168.1.7:8000") == 403
    assert status("::", "[fd00::7]:8000") == 0


def test_names_are_compared_as_browsers_write_them():
    """In small letters, and without the port where it is 80."""

    def status(host, port, name, origin=None):
        headers = [(b"host", name.encode()), *([(b"origin", origin.encode())] if origin else [])]
        scope = {"type": "http", "path": f"/{TOKEN}/", "headers": headers}
        return Guard(None, TOKEN, host, port)._refusal(scope)

    assert status("MyBox", 8000, "mybox:8000") == 0
    assert status("127.0.0.1", 80, "127.0.0.1", "http://127.0.0.1") == 0
    assert status("127.0.0.1", 80, "localhost:80") == 0
    assert status("::1", 80, "[::1]") == 0
    assert status("127.0.0.1", 80, "evil.example") == 403
    assert status("127.0.0.1", 80, "localhost", "http://evil.example") == 403
    assert status("127.0.0.1", 8000, "localhost") == 403
    assert status("127.0.0.1", 80, "localhost:8000") == 403
    assert status("::1", 80, "[::1]evil") == 403


@pytest.mark.parametrize("words", [["console"], ["record", "pocket", "--out", "mine", "--by-hand"]])
def test_a_port_is_one(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words, "--port", "70000"])
    assert result.exit_code == 2
    assert "less than or equal to 65535" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "said",
    [
        "no json",
        "[[",
        [1],
        {"do": "start"},
        {"do": "start", "lane": 7},
        {"do": "start", "lane": True, "agent": "expert"},
        {"do": "run", "lane": 0},
        {"do": "start", "lane": 0, "agent": "/etc", "device": "pocket", "goal": "", "seed": 0},
        {"do": "start", "lane": 0, "agent": "expert", "device": "/tmp/evil.py:WORLD", "goal": "", "seed": 0},
        {"do": "start", "lane": 0, "agent": "expert", "device": "127.0.0.1:5555", "goal": "g", "seed": 0},
        {"do": "start", "lane": 0, "agent": "expert", "device": "pocket", "goal": "g" * 3000, "seed": 0},
        {"do": "start", "lane": 0, "agent": "expert", "device": "pocket", "goal": "", "seed": -1},
        {"do": "start", "lane": 0, "agent": "expert", "device": "pocket", "goal": "", "seed": 10**400},
        {"do": "start", "lane": 0, "agent": {"x": 1}, "device": ["pocket"], "goal": None, "seed": None},
    ],
)
def test_what_is_no_command_is_answered_with_an_error(console, said):
    _, answer = talk(console, said)
    assert set(answer) == {"error"}
    assert len(answer["error"]) < 500
    assert console.lanes.view() == [None, None]


def test_hostile_actions_are_refused_in_words():
    for content in (
        None,
        [],
        {"action": "explode"},
        {"action": "click", "coordinate": ["x", 1]},
        {"action": "type", "text": "\ud800"},
    ):
        with pytest.raises(SetupError, match="not an action"):
            action_of(content)
    with pytest.raises(SetupError, match="at most"):
        action_of({"action": "type", "text": "x" * 10_000})


def test_a_device_that_hangs_leaves_the_server_answering(console, monkeypatch):
    """The slow thing runs in the attempt's own thread."""
    from guiderail.envs.android.device import AndroidDevice

    free = threading.Event()
    obey(console.lanes, {"do": "start", "lane": 0, "agent": "expert", "device": "pocket:toggle", "goal": "", "seed": 0})
    until(lambda: console.lanes.attempt(0).phase == "ready")
    monkeypatch.setattr(AndroidDevice, "act", lambda self, action: free.wait(20))
    obey(console.lanes, {"do": "step", "lane": 0})
    until(lambda: console.lanes.attempt(0).phase == "acting")
    for _ in range(5):
        started = time.monotonic()
        assert get(console, f"/{TOKEN}/")[0] == 200
        (first,) = talk(console)
        assert first["lanes"][0]["phase"] == "acting"
        assert time.monotonic() - started < 1
    _, answer = talk(console, {"do": "stop", "lane": 0})
    assert answer["lanes"][0]["ended"] == "stopped"
    free.set()
    obey(console.lanes, {"do": "leave", "lane": 0})


def test_what_is_offered():
    assert devices(["a", "b"]) == ["a", "b"]
    assert list(agents(["tiny-sft"], None, None)) == ["tiny-sft", "expert"]
    with pytest.raises(SetupError, match="tiny-sft"):
        agents(["tiny-stf"], None, None)
    with pytest.raises(SetupError, match="served-model"):
        agents([], "http://127.0.0.1:9/v1", None)


def started(*args):
    """(process, what it printed until its address came)."""
    command = [sys.executable, "-m", "guiderail.launch.cli", "console", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, process.stdout.readline()


def test_the_command_prints_its_address_and_ends_at_ctrl_c(tmp_path):
    process, line = started("--out", str(tmp_path / "out"), "--model", "tiny-sft")
    try:
        assert re.fullmatch(r"console: http://127\.0\.0\.1:\d+/[\w-]{43}/\n", line)
        time.sleep(0.5)
        process.send_signal(2)
        _, err = process.communicate(timeout=20)
        assert "warning" not in err
        assert "Traceback" not in err
    finally:
        process.kill()
    assert not (tmp_path / "out").exists()


def test_listening_to_other_machines_is_warned_of(tmp_path, monkeypatch):
    """The command without its serving."""

    class Serves:
        async def serve(self, sockets):
            assert sockets[0].getsockname()[0] == "0.0.0.0"

    monkeypatch.setattr(command, "server_of", lambda app: Serves())
    words = ["console", "--host", "0.0.0.0", "--out", str(tmp_path / "out"), "--model", "tiny-sft"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert result.stdout.startswith("console: http://0.0.0.0:")
    assert "can be reached by other machines" in " ".join(result.stderr.split())


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    real = parts.importlib.util.find_spec
    monkeypatch.setattr(parts.importlib.util, "find_spec", lambda name: None if name == "starlette" else real(name))
    result = CliRunner().invoke(app, ["console"])
    assert isinstance(result.exception, SetupError)
    assert "console]" in str(result.exception)


def test_ending_attempts_and_watching_them_from_many_threads_never_deadlocks(lanes):
    """The end of an attempt is kept on disk while others start, end and look."""
    gone = time.monotonic() + 2.0

    def restless(lane):
        while time.monotonic() < gone:
            lanes.start(lane, "expert", "pocket:toggle", "", 0)
            until(lambda: lanes.attempt(lane).phase != "opening")
            lanes.attempt(lane).step()
            lanes.attempt(lane).stop()
            lanes.view()

    threads = [threading.Thread(target=restless, args=(lane,), daemon=True) for lane in (0, 1)]
    for thread in threads:
        thread.start()
    while time.monotonic() < gone:
        lanes.view()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for lane in (0, 1):
        lanes.leave(lane)
