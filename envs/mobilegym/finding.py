"""Where on the screen something is: by MobileGym's own marks in the page, by its text, or as a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from guiderail.agent.types import Box, Point
from guiderail.envs.mobilegym.page import HEIGHT, WIDTH, Page

How = Literal["trigger", "action", "text", "field", "beside", "point"]

# What can be pressed is found first among what is in sight (nothing covers it), then among what must be scrolled to. Of nested
# elements with the same text the innermost is meant. The box is that of the thing to press around it.
_FIND = """(how, wanted, given, nth, width, height) => {
  const press = '[data-trigger],[data-action],button,a[href],select,label,input,textarea,[role="button"],[role="switch"]';
  const flat = text => (text ?? "").replace(/\\s+/g, " ").trim();
  const said = e => [e.getAttribute("aria-label"), e.getAttribute("placeholder"), e.getAttribute("title"), e.getAttribute("alt")];
  const fits = e => {
    if (how === "trigger" || how === "action") {
      const params = e.getAttribute("data-trigger-params"), held = params ? JSON.parse(params) : {};
      return Object.entries(given).every(([key, value]) => String(held[key]) === value);
    }
    if (how === "field") return (e.matches("input, textarea") || e.isContentEditable) && (!wanted || said(e).some(s => flat(s).includes(wanted)));
    return flat(e.innerText) === wanted || said(e).some(s => flat(s) === wanted);
  };
  const own = e => flat([...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join(" "));
  const near = e => (how === "text" || how === "beside") && own(e).includes(wanted);
  if (how === "point") {
    const [x, y] = wanted.split(",").map(Number), e = document.elementFromPoint(x, y)?.closest(press) ?? document.elementFromPoint(x, y);
    const r = e.getBoundingClientRect();
    return {point: [x / width, y / height], box: [Math.max(r.left, 0) / width, Math.max(r.top, 0) / height,
            Math.min(r.right, width) / width, Math.min(r.bottom, height) / height]};
  }
  const beside = e => {
    const other = 'button,[data-action],[role="switch"],input[type=checkbox]';
    for (let a = e.parentElement; a; a = a.parentElement) {
      const near = [...a.querySelectorAll(other)].find(o => !o.contains(e));
      if (near) return near;
    }
    return e;
  };
  const kind = {trigger: `[data-trigger="${wanted}"]`, action: `[data-action="${wanted}"]`}[how] ?? "body *";
  const all = [...document.querySelectorAll(kind)].filter(e => e.getBoundingClientRect().width > 0);
  let found = all.filter(fits);
  if (how === "text" || how === "beside") found = found.filter(e => !found.some(other => other !== e && e.contains(other)));
  if (!found.length) found = all.filter(near);
  if (how === "beside") found = found.map(beside);
  const clip = (r, by) => [Math.max(r.left, by.left), Math.max(r.top, by.top), Math.min(r.right, by.right), Math.min(r.bottom, by.bottom)];
  const screen = {left: 0, top: 0, right: width, bottom: height};
  const ways = [];
  for (const e of found) {
    const [l, t, r, b] = clip(e.getBoundingClientRect(), screen), x = (l + r) / 2, y = (t + b) / 2;
    const hit = r - l >= 1 && b - t >= 1 ? document.elementFromPoint(x, y) : null;
    if (hit && (e.contains(hit) || hit.contains(e))) {
      const around = e.closest(press) ?? e, whole = clip(around.getBoundingClientRect(), screen);
      ways.push({point: [x / width, y / height], box: [whole[0] / width, whole[1] / height, whole[2] / width, whole[3] / height]});
      continue;
    }
    for (let s = e.parentElement; s; s = s.parentElement) {
      const [flowX, flowY] = [getComputedStyle(s).overflowX, getComputedStyle(s).overflowY];
      const more = flow => flow === "auto" || flow === "scroll";
      const down = more(flowY) && s.scrollHeight > s.clientHeight + 2, side = more(flowX) && s.scrollWidth > s.clientWidth + 2;
      if (!down && !side) continue;
      const area = clip(s.getBoundingClientRect(), screen), at = e.getBoundingClientRect();
      const [mx, my] = [(area[0] + area[2]) / 2, (area[1] + area[3]) / 2];
      const top = area[2] - area[0] < 1 || area[3] - area[1] < 1 ? null
        : document.elementFromPoint((area[0] + area[2]) / 2, (area[1] + area[3]) / 2);
      if (!top || !s.contains(top)) break;
      ways.push({area: [area[0] / width, area[1] / height, area[2] / width, area[3] / height],
                   by: [side ? ((at.left + at.right) / 2 - mx) / width : 0, down ? ((at.top + at.bottom) / 2 - my) / height : 0]});
      break;
    }
  }
  if (how !== "field") ways.sort((a, b) => ("area" in a) - ("area" in b));
  return ways[nth] ?? null;
}"""
CARRIES = 1.6
"""How much further than the finger a list moves: MobileGym's input layer lets it run on."""
LONGEST = 0.55
"""Of a finger's way, as a share of what scrolls."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something in sight. point: where to press it; box: all of it."""

    point: Point
    box: Box


@dataclass(frozen=True, slots=True)
class Beyond:
    """Something that must be scrolled to: the finger's way from start to end brings it nearer."""

    start: Point
    end: Point


def find(page: Page, how: How, wanted: str, given: dict[str, str], nth: int = 0) -> Target | Beyond | None:
    """The nth of the things that fit: fields in their order, of others those in sight first. given: parameters that a trigger must have."""
    made: dict[str, Any] | None = page.evaluate(_FIND, how, wanted, given, nth, WIDTH, HEIGHT)
    if made is None:
        return None
    if "box" in made:
        return Target(Point(*made["point"]), Box(*made["box"]))
    left, top, right, bottom = made["area"]
    most = ((right - left) * LONGEST, (bottom - top) * LONGEST)
    x, y = (max(-most_, min(most_, by / CARRIES)) / 2 for by, most_ in zip(made["by"], most, strict=True))
    across, along = (left + right) / 2, (top + bottom) / 2
    if abs(x) > abs(y):
        return Beyond(Point(across + x, along), Point(across - x, along))
    return Beyond(Point(across, along + y), Point(across, along - y))
