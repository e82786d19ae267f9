"""`am`, `monkey` and `emu`: how apps are opened, closed and spoken to from outside."""

from __future__ import annotations

import base64
import binascii

from guiderail.envs.pocket.adb.script import Result
from guiderail.envs.pocket.files import FileError
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.standins import people, schemas
from guiderail.envs.pocket.tree import activity, component


def am(phone: Phone, args: list[str]) -> Result:
    match args:
        case ["start", *rest]:
            return _start(phone, rest)
        case ["force-stop", package]:
            if activity(phone).startswith(f"{package}/"):
                phone.state.stack = []
            if phone.state.aosp:  # not only at the next start: a check may read what no one has opened since
                schemas.mend(phone.state, package)
            return 0, ""
        case ["stack", "list"]:
            return 0, stacks(phone)
        case ["stack", "remove", _]:
            phone.state.stack = []
            return 0, ""
        case ["broadcast", *rest]:
            return _broadcast(phone, rest)
    return 1, "Error: unknown am command\n"


def _start(phone: Phone, args: list[str]) -> Result:
    wanted, action = option(args, "-n"), option(args, "-a")
    if "android.intent.category.HOME" in args:
        phone.key("HOME")
        return 0, "Starting: Intent\n"
    if phone.state.aosp and action == "android.intent.action.SENDTO" and option(args, "-d").startswith("sms:"):
        phone.open(people.MESSAGES)
        number = people.plain(option(args, "-d").removeprefix("sms:"))
        people.open_thread(phone.state, number, option(args, "--es", "sms_body"))
        return 0, f"Starting: Intent {{ act={action} }}\n"
    if phone.state.aosp and action == "android.intent.action.INSERT" and option(args, "-t").endswith("/contact"):
        people.insert_contact(phone.state, option(args, "-e", "name"), option(args, "-e", "phone"))
        return 0, f"Starting: Intent {{ act={action} }}\n"
    for app, known in _components(phone).items():
        if wanted == known:
            phone.open(app)
            if phone.state.aosp:
                schemas.mend(phone.state, wanted.partition("/")[0])
            return 0, f"Starting: Intent {{ cmp={wanted} }}\nStatus: ok\n"
    return 1, f"Error type 3\nError: Activity class {{{wanted}}} does not exist.\n"


def _components(phone: Phone) -> dict[str, str]:
    known = phone.state.aosp.components if phone.state.aosp else {}
    return {app: known.get(app, component(app)) for app in phone.state.apps}


def monkey(phone: Phone, args: list[str]) -> Result:
    """With one event it opens the app of a package, which is all that it is used for here."""
    package = option(args, "-p")
    for app, known in _components(phone).items():
        if package and known.startswith(f"{package}/"):
            phone.open(app)
            return 0, "Events injected: 1\n"
    return 252, "** No activities found to run, monkey aborted.\n"


def _broadcast(phone: Phone, args: list[str]) -> Result:
    """ADB_INPUT_B64 types non-ASCII text on real devices (ADBKeyBoard): base64 of UTF-8 in extra `msg`."""
    if option(args, "-a") == "ADB_INPUT_B64":
        try:
            phone.type(base64.b64decode(option(args, "msg"), validate=True).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            return 1, "Error: bad msg\n"
    clipper = option(args, "-a") if phone.state.aosp else ""
    if phone.state.aosp and clipper in ("clipper.set", "clipper.get"):
        if clipper == "clipper.set":
            phone.state.aosp.clipboard = option(args, "text")
        return 0, f'Broadcast completed: result=-1, data="{phone.state.aosp.clipboard}"\n'
    return 0, "Broadcast completed: result=0\n"


def option(args: list[str], *names: str) -> str:
    """What follows these words; empty where they do not stand side by side."""
    places = [k for k in range(len(args) - len(names)) if args[k : k + len(names)] == [*names]]
    return args[places[0] + len(names)] if places else ""


def stacks(phone: Phone) -> str:
    name = activity(phone)
    return (
        "RootTask id=1 type=standard mode=fullscreen\n"
        f"  taskId=1: {name} bounds=[0,0][{phone.width},{phone.height}] userId=0 visible=true "
        f"topActivity=ComponentInfo{{{name}}}\n"
    )


def emu(phone: Phone, args: list[str]) -> Result:
    """The emulator's own console, of which only incoming text messages are here."""
    match args:
        case ["sms", "send", number, *words] if phone.state.aosp and words:
            try:
                people.receive(phone.state, people.plain(number), " ".join(words))
            except FileError as error:
                return 1, f"KO: {error}\n"
            return 0, "OK\n"
    return 1, "KO: unknown command\n"
