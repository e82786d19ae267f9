"""Pocket: a simulated phone to record, train and evaluate on, in milliseconds and without an Android SDK.

    from guiderail.envs.pocket.record import record
    record(Path("data/train"), episodes=1000, seed=0, split="train")     # episodes.jsonl, images/, DATASET.md

    from guiderail.envs.pocket.env_host import EnvHost
    from guiderail.envs.pocket.tasks import tasks
    with EnvHost(size=(160, 288)) as host:                     # a real android_env.AndroidEnv around one phone
        for task in tasks(50, seed=0, split="test", live=True):
            device = host.start(task)                          # envs.live.device.Device, reset in milliseconds
            ...                                                # device.screenshot(), device.act(action), task.max_steps
            ok = task.success(host.phone, device.answers)

What is where:
    the phone     `words` fills it, `state` is everything it knows, `apps` are its apps (`aosp`: stand-ins for the apps of
                  AndroidWorld's tasks), `ui` lays out pages, `draw` paints them, `tree` lists what is visible, `phone`
                  reacts to fingers, keys and time
    the tasks     `templates` lists what can be asked, `tasks` draws tasks from seeds, `wants` says what is left to do,
                  `expert` finds the way there, `record` writes episodes
    connections   `hands` is a Device in this process, `env_host` a phone behind android_env (`simulator`), `adb_host` one
                  behind its own adb daemon (`adb`); `pool` lends them out, `world` makes tasks live tasks

A recorded line has the standard keys plus template, memory, seed, split, params, disturbed, max_steps. Each of its steps has
`elements`: [{text, bbox, text_bbox, kind, checked?}] in pixels, top to bottom; text_bbox surrounds the words alone. An
element that does not react now (behind a dialog) is not listed.

Styles: "easy" (words on a 16 px grid at 160x288, about 130 words, two themes: a tiny model can learn to read it), "free" (any
offset, several sizes, any palette, more words) and "phone" (`handset`, `wordings`: drawn like an Android phone of 360x800 or
more, with bars, a soft keyboard, icons, second lines and pictures; six or seven wordings per template). Splits: "train" and "test" never share a phone; "heldout"
uses an app and templates that neither of them contains. This package imports without torch; only `simulator` and `env_host`
need android_env (the `android` extra).

Live tasks differ from recordings on purpose. Live phones start disturbed (another app open, switches flipped, extra notes),
pop-ups come at random moments, and any order that leads to the goal counts. So success on live tasks is something else than
agreement with a recording.
"""
