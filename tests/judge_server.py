"""An OpenAI-compatible server whose answers a function writes."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def judge_server(answer):
    """answer(body) -> the text of the answer. Yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"content": answer(body)}
            data = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads, http.block_on_close = True, False
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()


def words_of(body):
    """All text of a request's messages, in order."""
    contents = [message["content"] for message in body["messages"]]
    parts = [part for content in contents for part in ([content] if isinstance(content, str) else content)]
    return "\n".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def pictures_in(body):
    """The number of pictures in a request."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return sum(part["type"] == "image_url" for content in contents for part in content)
