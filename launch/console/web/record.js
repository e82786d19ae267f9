// The recorder: a person acts, and each step is written. What is shown follows from the last answer of the server, but for the
// touch that waits for its target, and the boxes to black out.
import { el, marks, Screen } from "./shared.js";
import { area, asker, byId, holds, onKeys, rectangle, thumbnail } from "./asked.js";

let view = null;
let pending = null; // {action, at, box, drawn}: a touch that waits for its target
let dragging = ""; // what a drag draws: "" acts, "hide" blacks out, "box" draws the target
let shown = new Set(); // boxes found by pattern that the person wants to be seen, as text
let marked = []; // boxes to black out by hand; they stay until they are removed

const ask = asker((said) => {
  const fresh = !view || !view.screen || !said.screen || view.screen.src !== said.screen.src;
  view = said;
  if (fresh) { pending = null; shown = new Set(); }
  draw();
});

const units = (action) => [action.coordinate[0] / 10000, action.coordinate[1] / 10000];
const screen = new Screen((action) => (dragging ? dragged(action) : touched(action)));
byId("screen").append(screen.root);

const touched = (action) => {
  if (!action.coordinate || action.coordinate2) { act({ action }); return; }
  const at = units(action);
  const held = view.elements.filter((one) => holds(one.box, at)).sort((a, b) => b.touch - a.touch || area(a.box) - area(b.box));
  pending = { action, at, held, box: held.length ? held[0].box : null, drawn: false };
  if (byId("at-once").checked) act(pending);
  else draw();
};

const dragged = (action) => {
  if (!action.coordinate2) return;
  const [a, b] = [units(action), action.coordinate2.map((value) => value / 10000)];
  const box = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  if (dragging === "hide") marked.push(box);
  else if (pending) { pending.box = box; pending.drawn = true; }
  dragging = "";
  draw();
};

const hidden = () => [...view.hidden.filter((one) => !shown.has(String(one.box))).map((one) => one.box), ...marked];

const act = async ({ action, box, drawn }) => {
  const done = await ask({ do: "act", action, box, drawn, hide: hidden(), thought: byId("thought").value, instruction: byId("instruction").value });
  if (!done) return;
  byId("thought").value = byId("instruction").value = "";
};

const now = (call) => () => { if (view && view.under_way) call(); };
const finish = (status, sure) => async () => {
  const done = await ask({ do: "finish", status, sure });
  byId("anyway").hidden = done || status !== "success";
};

// ------------------------------------------------------------------------------------------------------------- drawing

const draw = () => {
  byId("about").textContent = `${view.folder}${view.annotator ? ` · ${view.annotator}` : ""} · ${view.written[0]} episodes, ${view.written[1]} failed`;
  byId("attempt").hidden = !view.under_way;
  byId("begin").textContent = view.unfinished ? "Go on with it" : "Begin";
  byId("begin").disabled = view.under_way;
  byId("discard").hidden = !(view.unfinished || view.under_way);
  byId("goal").placeholder = view.unfinished ? view.goal : view.asks_goal ? "what is to be done, in words" : "empty: the task's own goal";
  byId("number-of").hidden = view.asks_goal;
  if (!view.under_way && document.activeElement !== byId("number")) byId("number").value = view.number;
  byId("note").textContent = view.unfinished ? "An attempt was left unfinished. Bring the device to where it was, then go on; or throw it away." : view.note;
  byId("title").textContent = view.goal;
  if (!view.under_way) { pending = null; return; }
  screen.show(view.screen, overlay, true);
  choices();
  byId("hidden").replaceChildren(...chips());
  byId("redo").disabled = !view.steps.length;
  byId("redo").textContent = !view.steps.length || view.can_redo ? "Take the last step back" : "Take the last step out";
  for (const name of ["hide", "draw"]) byId(name).setAttribute("aria-pressed", String(dragging === (name === "hide" ? "hide" : "box")));
  byId("steps").replaceChildren(...view.steps.map((step, number) => el("li", {}, thumbnail(step.screen, `screen of step ${number}`),
    el("span", {}, el("b", {}, step.action.label), el("span", { class: "thought" }, step.instruction || step.thought)),
    el("button", { type: "button", class: "quiet", "aria-label": `cut step ${number}`, on: { click: () => ask({ do: "cut", step: number }) } }, "Cut"))).reverse());
};

const overlay = (w, h) => {
  const nodes = hidden().map((box) => rectangle(box, w, h, "hidden"));
  if (pending) {
    for (const one of pending.held) nodes.push(rectangle(one.box, w, h, ""));
    if (pending.box) nodes.push(rectangle(pending.box, w, h, "target"));
    nodes.push(...marks({ name: pending.action.action, at: pending.at }, w, h, "person"));
  }
  return nodes;
};

const choices = () => {
  byId("pending").hidden = !pending;
  if (!pending) return;
  byId("pending-action").textContent = pending.action.action === "click" ? "Click" : "Long press";
  const same = (box) => !pending.drawn && String(box) === String(pending.box);
  byId("targets").replaceChildren(...pending.held.map((one, number) => el("li", {}, el("button", {
    type: "button", "aria-pressed": String(same(one.box)), on: { click: () => { pending.box = one.box; pending.drawn = false; draw(); } },
  }, `${one.text || one.kind} `, el("kbd", {}, number + 1)))), ...(pending.drawn ? [el("li", {}, el("button", { type: "button", "aria-pressed": "true" }, "the box you drew"))] : []),
    ...(pending.held.length || pending.drawn ? [] : [el("li", { class: "hint" }, "no element is known here; draw the box, or go on without one")]));
};

const chips = () => {
  const made = [
    ...view.hidden.map((one) => ({ name: one.pattern, box: one.box, off: shown.has(String(one.box)) })),
    ...marked.map((box) => ({ name: "by hand", box, hand: true }))];
  if (!made.length) return [el("span", { class: "hint" }, "nothing")];
  return made.map((one) => el("span", { class: "chip" }, one.off ? `${one.name}: shown` : one.name, el("button", {
    type: "button", "aria-label": one.hand ? "remove this box" : one.off ? "black it out" : "show it",
    on: { click: () => {
      if (one.hand) marked = marked.filter((box) => box !== one.box);
      else if (one.off) shown.delete(String(one.box));
      else shown.add(String(one.box));
      draw();
    } },
  }, one.off ? "hide" : "×")));
};

// ------------------------------------------------------------------------------------------------------------ commands

byId("setup").addEventListener("submit", async (event) => {
  event.preventDefault();
  document.activeElement.blur();
  const begun = await ask({ do: "begin", goal: byId("goal").value, number: Number(byId("number").value) });
  if (begun) byId("goal").value = "";
});
byId("text").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!byId("type").value) return;
  act({ action: { action: byId("kind").value, text: byId("type").value } });
  byId("type").value = "";
});
const button = (name) => el("button", { type: "button", title: name[0].toLowerCase(), on: { click: () => act({ action: { action: "system_button", button: name } }) } }, name);
byId("buttons").append(...["Back", "Home", "Menu", "Enter"].map(button),
  el("button", { type: "button", title: "w", on: { click: () => act({ action: { action: "wait", time: 2 } }) } }, "Wait"));

const mode = (name) => () => { dragging = dragging === name ? "" : name; draw(); };
const COMMANDS = {
  do: () => { if (pending) act(pending); },
  cancel: () => { pending = null; dragging = ""; draw(); },
  draw: mode("box"), hide: mode("hide"),
  done: finish("success"), cannot: finish("failure"), answered: finish(null), anyway: finish("success", true),
  failed: () => ask({ do: "fail" }), redo: () => ask({ do: "redo" }), look: () => ask({ do: "look" }),
};
for (const [name, call] of Object.entries(COMMANDS)) byId(name).addEventListener("click", call);
byId("discard").addEventListener("click", () => ask({ do: "discard" }));

const choose = (number) => now(() => { if (pending && pending.held[number]) { pending.box = pending.held[number].box; pending.drawn = false; draw(); } });
const press = (number) => now(() => byId("buttons").children[number].click());
onKeys([
  ["g", "the goal", () => byId("goal").focus()], ["Enter", "do the touch that waits", now(COMMANDS.do)], ["Escape", "drop it", now(COMMANDS.cancel)],
  ["1", "the likeliest target", choose(0)], ["2", "the next target", choose(1)], ["3", "the third target", choose(2)],
  ["x", "draw the target's box", now(COMMANDS.draw)], ["o", "black out more", now(COMMANDS.hide)],
  ["p", "the screen: arrows, Enter, Shift+Enter, Control+arrow", () => screen.root.focus()],
  ["t", "text to type", now(() => byId("type").focus())], ["r", "the thought", now(() => byId("thought").focus())], ["i", "the instruction", now(() => byId("instruction").focus())],
  ["b", "Back", press(0)], ["h", "Home", press(1)], ["m", "Menu", press(2)], ["e", "Enter", press(3)], ["w", "wait", press(4)],
  ["u", "take the last step back", now(COMMANDS.redo)], ["l", "look again", now(COMMANDS.look)],
  ["d", "it is done", now(COMMANDS.done)], ["a", "the answer ends it", now(COMMANDS.answered)], ["D", "it cannot be done", now(COMMANDS.cannot)], ["f", "I got lost", now(COMMANDS.failed)],
  ["?", "these keys", () => byId("keys").showModal()],
], () => pending !== null);
ask({ do: "show" });
