"""AndroidWorld's own tasks, suites, seeds, step budgets and success checks; only the agent is ours.

    from guiderail.envs.android_world.tasks import AndroidWorldTasks
    world = AndroidWorldTasks(PYTHON, ("SystemWifiTurnOn",))    # on a pocket phone; emulator=EmulatorSpec(...) for Android
    task = world.open(0).task("SystemWifiTurnOn_0")             # an envs.live.attempts.LiveTask

AndroidWorld pins its libraries, so it lives in a Python environment of its own; PYTHON is the one there. `worker` is all that
touches the android_world package, and runs in that environment. `client` asks it, `device` operates its environment, `tasks`
makes its tasks live tasks. `pocket` puts a pocket phone under its environment, and `expert` follows the scripted `ways` through
the stand-in apps there (`envs.pocket.standins`).
"""
