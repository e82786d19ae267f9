"""MobileGym, a benchmark of others, as a live world: its own tasks, parameters and judges on its own simulated phone.

    from guiderail.envs.mobilegym.tasks import MobileGym
    session = MobileGym("path/to/mobilegym", split="train").open(0)     # a checkout whose pages have been built
    task = session.task("wechat.SetSignature/0")                        # a task and the number of its instance
    device = task.start()                                               # device.screenshot(), device.act(action), ...
    task.check()                                                        # Outcome: success, progress, side effects

`checkout` is the user's copy, `site` serves its pages, `page` is one phone in a Chromium, `device` the phone as a Device,
`bench` MobileGym's own Python, `seam` what that asks of an environment, `tasks` the live tasks and the world.
Nothing of MobileGym is part of Guiderail: docs/mobilegym.md.
"""
