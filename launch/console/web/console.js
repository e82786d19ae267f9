// The console: a device on the left, the agent's thinking on the right. What is shown follows from the last message alone.
import { base, connect, el, marks, put, Screen } from "./shared.js";

const byId = (id) => document.getElementById(id);
const WHO = { agent: "agent", person: "you", expert: "expert" };
const PHASE = { opening: "making device and agent ready", ready: "waiting for you", thinking: "the agent is thinking", acting: "acting", asking: "waits for your answer", over: "ended" };
const ENDED = { finished: "finished", gave_up: "gave up", out_of_steps: "out of steps", stopped: "stopped", crashed: "the machine failed", mismatch: "left the path" };
const SLOW = 5; // seconds after which the page says how long something has taken

let offer = null;
let active = 0;
let views = [];

const send = connect("talk", (message) => {
  if (message.error) { problem(message.error); return; }
  views = message.lanes;
  if (!offer) { offer = message.offer; fill(); }
  problem("");
  draw();
}, (open) => { byId("line").textContent = open ? "" : "the console has gone; trying again"; document.body.classList.toggle("gone", !open); });

const problem = (text) => { byId("problem").textContent = text; byId("problem").hidden = !text; };

// --------------------------------------------------------------------------------------------------------------- setup

const fill = () => {
  byId("devices").replaceChildren(...offer.devices.map((name) => el("option", { value: name })));
  if (!byId("device").value) byId("device").value = offer.devices[0] || "";
  for (const number of [0, 1]) byId(`agent-${number}`).replaceChildren(...offer.agents.map((name) => el("option", { value: name }, name === "nobody" ? "nobody: I act alone" : name)));
  if (offer.agents.length > 1) byId("agent-1").selectedIndex = 1;
  if (views.some(Boolean)) byId("new").open = false;
};

const comparing = () => byId("compare").checked;

byId("setup").addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = { device: byId("device").value.trim(), goal: byId("goal").value, seed: Number(byId("seed").value) };
  for (const number of [0, 1]) {
    if (number === 0 || comparing()) send({ do: "start", lane: number, agent: byId(`agent-${number}`).value, ...asked });
    else if (views[1]) send({ do: "leave", lane: 1 });
  }
  active = 0;
  document.activeElement.blur();
  byId("new").open = false;
});
byId("compare").addEventListener("change", () => { document.querySelector(".second").hidden = !comparing(); });

// --------------------------------------------------------------------------------------------------------------- lanes

class Lane {
  constructor(number) {
    this.number = number;
    this.looking = null; // the step that is looked at again; null: live
    this.rows = []; // of the steps
    this.seen = Date.now();
    const act = (action) => { this.say("act", { action, thought: this.thought.value }); this.thought.value = ""; };
    this.act = act;
    this.screen = new Screen(act);
    const button = (name, label, key, title, call) => { this[name] = el("button", { type: "button", title: `${title} (${key})`, on: { click: call } }, label); return this[name]; };
    const press = (name) => button(name.toLowerCase(), name, name[0].toLowerCase(), `press ${name}`, () => act({ action: "system_button", button: name }));
    this.type = el("input", { maxlength: "2000", placeholder: "text to type", "aria-label": "text to type", autocomplete: "off" });
    this.thought = el("input", { maxlength: "2000", placeholder: "why (optional)", "aria-label": "why you act: joins the history with what you do", autocomplete: "off" });
    this.kind = el("select", { "aria-label": "what to do with the text" }, ...[["type", "type"], ["open", "open app"], ["answer", "answer the user"], ["key", "press key"]].map(([value, label]) => el("option", { value }, label)));
    const text = el("form", { class: "row text", on: { submit: (event) => {
      event.preventDefault();
      if (this.type.value) { act({ action: this.kind.value, text: this.type.value }); this.type.value = ""; }
    } } }, this.type, this.kind, el("button", {}, "Do"));
    this.status = el("p", { class: "status", role: "status" });
    this.later = el("button", { type: "button", class: "quiet", hidden: true, title: "Escape", on: { click: () => { this.looking = null; this.again(); } } }, "back to now");
    this.ask = el("div", { class: "ask", role: "alertdialog", "aria-label": "allow this?", hidden: true });
    this.controls = el("div", { class: "row controls" },
      button("go", "Run", "space", "let the agent go on, or pause it", () => this.toggle()),
      button("one", "Step", "s", "one step of the agent", () => this.say("step")),
      button("undo", "Undo", "u", "take the last step back", () => this.say("undo")),
      button("end", "Stop", "x", "end the attempt now", () => this.say("stop")));
    this.go.classList.add("main");
    this.hand = el("section", { class: "hand" }, el("p", { class: "label" }, "Act yourself: touch the screen, or"),
      text, this.thought,
      el("div", { class: "row" }, button("wait", "Wait 2 s", "w", "wait", () => act({ action: "wait", time: 2 })),
        button("done", "It is done", "d", "end it: the goal is reached", () => act({ action: "terminate", status: "success" })),
        button("cannot", "It cannot be done", "shift+d", "end it: the goal cannot be reached", () => act({ action: "terminate", status: "failure" }))));
    this.keys = el("div", { class: "row keys" }, press("Back"), press("Home"), press("Menu"), press("Enter"));
    this.title = el("h1", { class: "title" });
    this.about = el("p", { class: "about" });
    this.now = el("section", { class: "now", "aria-live": "polite" });
    this.steps = el("ol", { class: "steps" });
    this.judge = el("div", { class: "judge", hidden: true });
    this.root = el("section", { class: "lane", "data-lane": number, on: { pointerdown: () => activate(number), focusin: () => activate(number) } },
      el("div", { class: "head" }, this.title, this.about),
      el("div", { class: "device" }, el("div", { class: "frame" }, this.screen.root, this.keys), el("div", { class: "state" }, this.status, this.later), this.ask, this.controls, this.hand),
      el("div", { class: "mind" }, this.judge, this.now, el("h2", { class: "label" }, "Steps"), this.steps));
  }

  say(name, more) { send({ do: name, lane: this.number, ...more }); if (name !== "undo") this.looking = null; }
  toggle() { this.say(this.view.running ? "pause" : "run"); }

  draw(view) {
    const fresh = !this.view || ["number", "revision", "kept", "problem"].some((name) => this.view[name] !== view[name]);
    if (this.view && this.view.number !== view.number) this.looking = null;
    this.view = view;
    this.seen = Date.now();
    if (!fresh && this.drawn) return;
    this.drawn = true;
    const over = view.phase === "over";
    if (this.looking !== null && this.looking >= view.turns.length) this.looking = null;
    this.title.textContent = view.goal || (view.phase === "opening" ? "…" : "(no goal)");
    const facts = [view.asked.device, view.unit, `step ${view.turns.length} of ${view.max_steps}`].filter(Boolean);
    put(this.about, el("b", {}, view.asked.agent), ` · ${facts.join(" · ")}`);
    this.picture();
    this.state();
    this.go.textContent = view.running ? "Pause" : view.turns.some((turn) => turn.by === "person") && !over ? "Hand back" : "Run";
    const alone = view.asked.agent === "nobody";
    this.go.disabled = over || alone;
    this.one.disabled = over || alone || view.running;
    this.undo.disabled = !view.can_undo;
    this.end.disabled = over;
    this.hand.hidden = over;
    for (const key of this.keys.children) key.disabled = over || view.phase === "opening";
    this.asking();
    this.verdict();
    this.thinking();
    this.list();
    byId("welcome").hidden = true;
  }

  // The live screen with what was just proposed or done, or an earlier step as the agent saw it.
  picture() {
    const view = this.view;
    const turn = this.looking === null ? null : view.turns[this.looking];
    if (turn) this.screen.show(turn.screen, (w, h) => turnMarks(turn, w, h), false);
    else this.screen.show(view.screen, (w, h) => (view.proposal ? turnMarks(view.proposal, w, h) : []), view.phase !== "over" && view.phase !== "opening");
    this.screen.root.classList.toggle("past", Boolean(turn));
  }

  state() {
    const view = this.view;
    const seconds = view.seconds + (Date.now() - this.seen) / 1000;
    const busy = ["opening", "thinking", "acting"].includes(view.phase);
    let text = PHASE[view.phase];
    if (view.phase === "over") text = view.reason ? `${ENDED[view.ended]}: ${view.reason}` : ENDED[view.ended];
    else if (this.looking !== null) text = `looking at step ${this.looking}`;
    else if (busy && seconds > SLOW) text += `, for ${Math.round(seconds)} s`;
    if (view.note) text += `. ${view.note}`;
    if (this.status.textContent !== text) this.status.textContent = text;
    this.later.hidden = this.looking === null;
    this.status.className = `status ${view.phase} ${busy && seconds > SLOW ? "slow" : ""} ${view.success === true ? "good" : view.success === false ? "bad" : ""}`;
  }

  asking() {
    const view = this.view;
    const asks = view.phase === "asking" && Boolean(view.question);
    if (asks && this.ask.hidden) {
      put(this.ask, el("p", {}, view.question), el("div", { class: "row" },
        el("button", { type: "button", class: "main", on: { click: () => this.say("allow") } }, "Allow ", el("kbd", {}, "y")),
        el("button", { type: "button", on: { click: () => this.say("deny") } }, "No ", el("kbd", {}, "n"))));
    }
    this.ask.hidden = !asks;
  }

  verdict() {
    const view = this.view;
    this.judge.hidden = view.phase !== "over";
    if (view.phase !== "over") return;
    const words = view.success === true ? "The goal is reached" : view.success === false ? "The goal is not reached" : "Nobody has checked whether the goal is reached";
    const by = view.checked_by === "state" ? ", says the device's state" : view.checked_by === "person" ? ", you say" : "";
    const helped = view.turns.some((turn) => turn.by === "person") ? " You took part, so this attempt is no score of the agent." : "";
    this.judge.className = `judge ${view.success === true ? "good" : view.success === false ? "bad" : ""}`;
    put(this.judge, el("p", {}, `${words}${by}.${helped}`),
      view.ended === "crashed" ? null : el("div", { class: "row" },
        el("button", { type: "button", on: { click: () => this.say("worked") } }, "It worked"),
        el("button", { type: "button", on: { click: () => this.say("failed") } }, "It did not")),
      view.kept ? el("p", { class: "hint" }, "kept in ", el("code", {}, view.kept)) : null,
      view.problem ? el("p", { class: "hint bad" }, view.problem) : null);
  }

  // What the agent thinks: of the step looked at, else of its proposal, else of its last turn.
  thinking() {
    const view = this.view;
    const turn = this.looking !== null ? view.turns[this.looking] : view.proposal || view.turns[view.turns.length - 1];
    if (!turn) {
      const alone = view.asked.agent === "nobody";
      put(this.now, el("p", { class: "hint" }, view.phase === "opening" ? "The device and the agent are being made ready." : alone ? "You act alone: touch the screen." : "Run lets the agent begin. Step shows one step at a time."));
      return;
    }
    const proposed = turn === view.proposal;
    put(this.now, 
      el("p", { class: "label" }, el("span", { class: `who ${turn.by}` }, WHO[turn.by]), proposed ? " would do next" : ` did at step ${turn.index}`),
      el("p", { class: "thought" }, turn.thought || (turn.by === "person" ? "" : "(no thought)")),
      el("p", { class: `action ${turn.by}` }, turn.action ? turn.action.label : `nothing: ${turn.note}`),
      chances(turn),
      el("details", {}, el("summary", {}, "the words themselves"), el("pre", {}, turn.text)));
  }

  // A step that has not changed keeps its node, so that a long attempt costs no more than a short one.
  list() {
    const turns = this.view.turns;
    while (this.rows.length > turns.length) this.rows.pop().node.remove();
    turns.forEach((turn, k) => {
      const same = JSON.stringify([turn.by, turn.action, turn.thought, turn.screen.src]);
      if (!this.rows[k] || this.rows[k].same !== same) {
        const node = this.row(turn);
        if (this.rows[k]) this.rows[k].node.replaceWith(node);
        else this.steps.prepend(node);
        this.rows[k] = { same, node };
      }
      const button = this.rows[k].node.firstChild;
      if (this.looking === k) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
  }

  row(turn) {
    const label = turn.action ? turn.action.label : "unreadable";
    const look = () => { this.looking = this.looking === turn.index ? null : turn.index; this.again(); };
    return el("li", {}, el("button", { type: "button", class: "step", "aria-label": `step ${turn.index}, ${WHO[turn.by]}: ${label}`, on: { click: look } },
      thumb(turn), el("span", { class: "words" },
        el("span", { class: "line" }, el("span", { class: `who ${turn.by}` }, WHO[turn.by]), el("b", {}, label)),
        el("span", { class: "thought" }, turn.thought || "")), el("span", { class: "number" }, turn.index)));
  }

  again() { this.drawn = false; if (this.view) this.draw(this.view); }
  look(by) {
    const last = this.view.turns.length - 1;
    if (last < 0) return;
    const at = this.looking === null ? last + (by < 0 ? 0 : 1) : this.looking + by;
    this.looking = at > last ? null : Math.max(0, at);
    this.again();
  }
}

const turnMarks = (turn, w, h) => [
  ...turn.likely.filter((one) => !one.chosen).flatMap((one) => marks(one.action, w, h, "other")),
  ...marks(turn.action, w, h, turn.by)];

const thumb = (turn) => {
  const small = el("span", { class: "thumb" }, el("img", { src: `${base}screens/${turn.screen.src}`, alt: "", loading: "lazy" }));
  small.style.aspectRatio = `${turn.screen.w} / ${turn.screen.h}`;
  return small;
};

const percent = (value) => `${Math.round(100 * value)} %`;
const chances = (turn) => {
  const rows = turn.likely.map((one) => {
    const bar = el("span", { class: `bar ${one.chosen ? turn.by : "other"}` });
    bar.style.width = `${100 * one.share}%`;
    const nameless = one.action && one.action.at && !one.action.to && !one.action.label.includes("“");
    const at = nameless ? ` at ${percent(one.action.at[0])}, ${percent(one.action.at[1])}` : "";
    return el("li", {}, el("span", { class: "name" }, one.action ? `${one.action.label}${at}` : "unreadable"), el("span", { class: "track" }, bar), el("span", { class: "n" }, percent(one.share)));
  });
  const drawn = turn.likely.length ? turn.likely[0].drawn : 0;
  if (!rows.length && turn.p === null) return null;
  return el("div", { class: "chances" }, rows.length ? el("ul", {}, ...rows) : null,
    el("p", { class: "hint" }, [drawn ? `Shares of ${drawn} answers drawn at temperature 1.` : "", turn.p === null ? "" : `These exact words: ${percent(turn.p)}.`].join(" ").trim()));
};

const lanes = [new Lane(0), new Lane(1)];

byId("both").addEventListener("click", () => {
  const going = views.some((view) => view && view.running);
  for (const lane of lanes) if (views[lane.number] && views[lane.number].phase !== "over") lane.say(going ? "pause" : "run");
});
const activate = (number) => { active = number; for (const lane of lanes) lane.root.classList.toggle("active", lane.number === number); };

const draw = () => {
  const shown = lanes.filter((lane) => views[lane.number]);
  byId("lanes").classList.toggle("two", shown.length > 1);
  byId("both").hidden = shown.length < 2 || shown.every((lane) => views[lane.number].phase === "over");
  byId("both").textContent = shown.some((lane) => views[lane.number].running) ? "Pause both" : "Run both";
  const roots = shown.map((lane) => lane.root);
  if (roots.length !== byId("lanes").children.length || roots.some((root, k) => byId("lanes").children[k] !== root)) byId("lanes").replaceChildren(...roots);
  if (!views[active]) activate(0);
  for (const lane of shown) lane.draw(views[lane.number]);
  document.body.classList.toggle("empty", shown.length === 0);
};
setInterval(() => { for (const lane of lanes) if (views[lane.number] && lane.view) lane.state(); }, 500);

// ---------------------------------------------------------------------------------------------------------------- keys

const lane = () => lanes[active];
const tap = (name) => () => lane()[name].click();
const KEYS = [
  ["g", "the goal", () => { byId("new").open = true; byId("goal").focus(); }], [" ", "run, pause, hand back", tap("go")], ["s", "one step", tap("one")],
  ["u", "undo", tap("undo")], ["x", "stop", tap("end")], ["y", "allow", () => lane().view.question && lane().say("allow")],
  ["n", "do not allow", () => lane().view.question && lane().say("deny")],
  ["p", "the screen: arrows, Enter, Shift+Enter, Control+arrow", () => lane().screen.root.focus()],
  ["t", "text to type", () => lane().type.focus()], ["r", "why you act", () => lane().thought.focus()],
  ["b", "Back", tap("back")], ["h", "Home", tap("home")], ["m", "Menu", tap("menu")], ["e", "Enter", tap("enter")],
  ["w", "wait", tap("wait")], ["d", "it is done", tap("done")], ["D", "it cannot be done", tap("cannot")],
  ["j", "the step after", () => lane().look(1)], ["k", "the step before", () => lane().look(-1)],
  ["Escape", "back to now", () => lane().later.click()],
  ["1", "the left device", () => activate(0)], ["2", "the right device", () => views[1] && activate(1)],
  ["a", "run or pause both", () => byId("both").click()], ["c", "compare two", () => { byId("new").open = true; byId("compare").click(); }], ["?", "these keys", () => byId("keys").showModal()],
];
byId("key-list").replaceChildren(...KEYS.flatMap(([key, words]) => [el("dt", {}, el("kbd", {}, key === " " ? "space" : key)), el("dd", {}, words)]));
byId("help").addEventListener("click", () => byId("keys").showModal());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === " " && event.target.matches("button, summary, a") && !event.target.closest("dialog")) return;
  const found = KEYS.find(([key]) => key === event.key);
  if (!found || (!"gc?12".includes(found[0]) && !views[active])) return;
  event.preventDefault();
  found[2]();
});

fetch(`${base}pages`).then((answer) => answer.json()).then((pages) => {
  if (pages.length > 1) byId("pages").replaceChildren(...pages.map((page) => el("a", { href: `${base}${page.place.slice(1)}`, "aria-current": page.place === "/" ? "page" : null }, page.title)));
});
activate(0);
document.body.classList.add("empty");
