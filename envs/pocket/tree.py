"""The accessibility tree: what is on the screen, as data."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from guiderail.agent.types import Box
from guiderail.envs.live.device import Element, Kind
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import APPS, DECOYS, HELD_OUT_APP
from guiderail.envs.pocket.ui import Placed, Scene

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
    front, aosp = phone.state.front, phone.state.aosp
    if front is None:
        return f"{PACKAGE}.launcher/.Home"
    return aosp.components[front.app] if aosp else component(front.app)


def elements(phone: Phone) -> list[Element]:
    """What is visible and reacts now, top to bottom."""
    scene = phone.scene()
    return [_element(item, scene) for item in _reading_order(scene)]


def _reading_order(scene: Scene) -> list[Placed]:
    return sorted(scene.active, key=lambda item: (item.box[1], item.box[0]))


def _element(item: Placed, scene: Scene) -> Element:
    cell, (left, top, right, bottom) = item.cell, item.box
    box = Box(left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)
    checked = cell.checked if cell.kind in ("toggle", "check") else None
    return Element(cell.text, box, cell.kind, bool(cell.op), checked, cell.focused)


def window_xml(phone: Phone) -> str:
    """The hierarchy as `uiautomator dump` writes it, bounds in pixels: one node per element, side by side. A list that can be
    scrolled is a node without words, which holds its rows."""
    package, scene = activity(phone).partition("/")[0], phone.scene()
    found = _reading_order(scene)
    rows = [item for item in found if item.layer == "list"] if phone.scrolls() else []
    nodes = [_node(k, item, scene, package) for k, item in enumerate(found) if item not in rows]
    if rows:
        boxes = [item.box for item in rows]
        hull = (*(min(box[k] for box in boxes) for k in (0, 1)), *(max(box[k] for box in boxes) for k in (2, 3)))
        flags = _flags({"enabled": True, "focusable": True, "scrollable": True})
        inner = "".join(_node(k, item, scene, package) for k, item in enumerate(rows))
        nodes.append(
            f'<node index="{len(nodes)}" text="" resource-id="{PACKAGE}:id/list" class="androidx.recyclerview.widget.'
            f'RecyclerView" package="{package}" content-desc="" {flags} {_bounds(hull)}>{inner}</node>'
        )
    frame = _bounds((0, 0, phone.width, phone.height))
    root = f'<node index="0" text="" class="android.widget.FrameLayout" package="{package}" {frame}>'
    return f"<?xml version='1.0' encoding='UTF-8' standalone='yes' ?><hierarchy rotation=\"0\">{root}{''.join(nodes)}</node></hierarchy>"


def _node(index: int, item: Placed, scene: Scene, package: str) -> str:
    e = _element(item, scene)
    flags = _flags(
        {
            "checkable": e.checked is not None,
            "checked": bool(e.checked),
            "clickable": e.clickable,
            "long-clickable": bool(item.cell.hold),
            "enabled": True,
            "focusable": e.kind == "field",
            "focused": e.focused,
        }
    )
    named = e.text if e.kind == "button" else ""
    hint = f" hint={quoteattr(item.cell.hint)}" if item.cell.hint else ""
    return (
        f'<node index="{index}" text={quoteattr(e.text)} resource-id="{PACKAGE}:id/{e.kind}" class="{CLASSES[e.kind]}" '
        f'package="{package}" content-desc={quoteattr(named)}{hint} {flags} {_bounds(item.box)} />'
    )


FLAGS = (
    *("checkable", "checked", "clickable", "enabled", "focusable", "focused"),
    *("scrollable", "long-clickable", "password", "selected"),
)


def _flags(true: dict[str, bool]) -> str:
    return " ".join(f'{name}="{str(true.get(name, False)).lower()}"' for name in FLAGS)


def _bounds(box: tuple[int, ...]) -> str:
    left, top, right, bottom = box
    return f'bounds="[{left},{top}][{right},{bottom}]"'


APP_TABLE = {name: component(name) for name in (*APPS, *DECOYS, HELD_OUT_APP)}
"""The apps that Open knows. Opening one that this phone does not have changes nothing."""
