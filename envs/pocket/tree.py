"""The accessibility tree: what is on the screen, for machines."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from agent.types import Box
from envs.device import Element, Kind
from envs.pocket.phone import Phone
from envs.pocket.state import APPS, DECOYS, HELD_OUT_APP

PACKAGE = "org.guiderail.pocket"
CLASSES: dict[Kind, str] = {
    "text": "android.widget.TextView",
    "title": "android.widget.TextView",
    "row": "android.widget.LinearLayout",
    "button": "android.widget.Button",
    "toggle": "android.widget.Switch",
    "check": "android.widget.CheckBox",
    "field": "android.widget.EditText",
    "icon": "android.widget.ImageView",
}


def component(app: str) -> str:
    """The activity that `am start -n` opens an app by."""
    return f"{PACKAGE}.{app.lower()}/.Main"


def activity(phone: Phone) -> str:
    """What is in front, as "package/activity"."""
    screen, aosp = phone.screen, phone.state.aosp
    if screen is None:
        return f"{PACKAGE}.launcher/.Home"
    return aosp.components[screen.app] if aosp else component(screen.app)


def elements(phone: Phone) -> list[Element]:
    """What is visible and reacts now, top to bottom."""
    scene = phone.scene()
    found: list[Element] = []
    for item in scene.active:
        cell, (left, top, right, bottom) = item.cell, item.box
        box = Box(left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)
        checked = cell.checked if cell.kind in ("toggle", "check") else None
        found.append(Element(cell.text, box, cell.kind, bool(cell.op), checked, cell.focused))
    return sorted(found, key=lambda e: (e.box.top, e.box.left))


def window_xml(phone: Phone) -> str:
    """The hierarchy as `uiautomator dump` writes it, flat: one node per element, bounds in pixels."""
    package = activity(phone).partition("/")[0]
    nodes = []
    for k, e in enumerate(elements(phone)):
        left, right = round(e.box.left * phone.width), round(e.box.right * phone.width)
        top, bottom = round(e.box.top * phone.height), round(e.box.bottom * phone.height)
        flags = {
            "checkable": e.checked is not None,
            "checked": bool(e.checked),
            "clickable": e.clickable,
            "enabled": True,
            "focusable": e.kind == "field",
            "focused": e.focused,
        }
        words = " ".join(f'{name}="{str(value).lower()}"' for name, value in flags.items())
        resource = f"{PACKAGE}:id/{e.kind}"
        nodes.append(
            f'<node index="{k}" text={quoteattr(e.text)} resource-id="{resource}" class="{CLASSES[e.kind]}" '
            f'package="{package}" content-desc={quoteattr(e.text if e.kind == "button" else "")} {words} scrollable="false" long-clickable="false" '
            f'password="false" selected="false" bounds="[{left},{top}][{right},{bottom}]" />'
        )
    frame = f'bounds="[0,0][{phone.width},{phone.height}]"'
    root = f'<node index="0" text="" class="android.widget.FrameLayout" package="{package}" {frame}>'
    return f"<?xml version='1.0' encoding='UTF-8' standalone='yes' ?><hierarchy rotation=\"0\">{root}{''.join(nodes)}</node></hierarchy>"


APP_TABLE = {name: component(name) for name in (*APPS, *DECOYS, HELD_OUT_APP)}
"""What Open knows. Opening an app that this phone does not have changes nothing."""
