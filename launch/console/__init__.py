"""Use an agent, watch it, and take over: one attempt with a person in it, in the terminal or in a page of the browser.

    attended.py   the attempt: an agent and a person take turns on one device (no web in it)
    devices.py    what --device names: a task on a device
    actors.py     who acts: a policy or a task's own expert
    likely.py     what else a policy might have done
    risky.py      which actions to ask about first
    keep.py       attempts as a run folder
    view.py       an attempt as JSON for pages and programs
    lanes.py      the attempts that a console shows side by side
    talk.py       what the page of the lanes and the server say to one another
    server.py     HTTP and WebSocket: token, host and origin checks, pages
    command.py    guiderail console
    web/          plain HTML per page; console.css for all of them; shared.js: elements, socket, and a screen to touch

To add a page, make a `server.Page`: a name (its place below the token), a title for the navigation, an HTML file in web/,
and its own starlette routes. Give it to `server.application` in command.py. Everything below the token is checked by the
server: a page's routes see no request without the token, from another host name or from another origin. Read what the page
sends as untrusted: it shows text of models and devices.

To use the attempt in another way, make an `attended.Attended`. Its commands (`run`, `pause`, `step`, `act`, `undo`, `answer`,
`judge`, `stop`, `close`) return at once and may come from any thread; a thread of its own does the work. After every
change it calls `changed()`; then `view.view(attended)` says what there is to show. Without an actor it is a recorder: only
the person acts. `Attended.turns` are the steps, each with its screenshot and `by`; `Attended.seen[k]` is what was visible
at step k, with boxes, where `Options.elements` asks for it.
"""
