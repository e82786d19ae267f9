"""Pocket: a simulated phone to record, train and evaluate on, in milliseconds and without an Android SDK.

    from envs.pocket.record import record
    record(Path("data/train"), episodes=1000, seed=0, split="train")     # episodes.jsonl, images/, DATASET.md

    from envs.pocket.tasks import tasks
    from envs.pocket.world import PocketWorld
    with PocketWorld(size=(160, 288)) as world:                # a real android_env.AndroidEnv around one phone
        for task in tasks(50, seed=0, split="test", live=True):
            device = world.start(task)                         # envs.device.Device, reset in milliseconds
            ...                                                # device.screenshot(), device.act(action), task.max_steps
            ok = task.success(world.phone, device.answers)

Who does what: `words` fills a phone, `state` is all it knows, `phone` reacts to fingers, keys and time, `apps` says what
each app shows, `ui` lays pages out, `draw` paints them, `tree` tells what is visible, `shell` is the adb shell; `wants`
says what is left to do for each kind of task, `expert` finds the way there, `templates` lists what can be asked, `tasks`
draws tasks from seeds, `record` writes episodes; `hands` is a Device without android_env, `simulator` and `world` the one
with it, `live` hands out many at once. The shell's language is `script`, its file commands `toolbox`, the storage `files`.
`adbd` (with `sync`) lets a real adb client in, `wire` hands out phones over it; `aosp` is a phone with stand-ins for the
apps of AndroidWorld's tasks, `aosp_expert` knows the ways through them.

A recorded line has the standard keys plus template, memory, seed, split, params, popup, max_steps; each of its steps has
`elements`: [{text, bbox, text_bbox, kind, checked?}] in pixels, top to bottom, text_bbox around the words alone. An
element that does not react now (behind a dialog) is not listed.

Styles: "easy" (words on a 16 px grid at 160x288, about 130 words, two themes: a tiny model can learn to read it) and
"free" (any offset, several sizes, any palette, more words). Splits: "train" and "test" never share a phone; "heldout"
uses an app and templates that neither contains. This package imports without torch; only `simulator` and `world` need
android_env (the `android` extra).

A recording differs from a `live` task on purpose: live phones start disturbed (another app open, switches flipped, extra
notes), pop-ups come at random moments, and any order that leads to the goal counts, so success on live tasks is not
agreement with a recording.
"""
