"""MiniWoB++ in headless Chromium: the `miniwob` package's own pages and rewards behind a Device.

    from guiderail.envs.miniwob.tasks import WebTasks
    session = WebTasks("smoke").open(0)
    task = session.task("click-test-2/7")          # page and seed
    device = task.start()                       # device.screenshot(), device.act(action), device.elements()
    task.over(), task.check()                   # the page decides by itself

`browser` is the device, `suites` the lists of pages, `tasks` the live tasks, `experts` the scripts that solve them
(`moves` their parts, `clicking` and `writing` the scripts), `page` what a page holds, `record` writes expert episodes.

What differs from the package's own environment, and why: the page's clock is set to an hour and the raw reward counts, so
that slow agents are not punished for thinking; every attempt loads its page afresh, so that nothing leaks from the one
before; screenshots are taken at a chosen scale instead of 160x210; a decided page stays as it is, instead of
covering itself with its START button. A success is a raw reward of 1.
"""
