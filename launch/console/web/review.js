// The review: one divergence after the other, each answered by a click or a key.
import { el, marks, Screen } from "./shared.js";
import { asker, byId, onKeys, rectangle, thumbnail } from "./asked.js";

let view = null;
let own = null; // an action of the person that waits for its Enter

const ask = asker((said) => { view = said; own = null; byId("thought").value = ""; draw(); });
const screen = new Screen((action) => { own = action; draw(); });
byId("screen").append(screen.root);

const say = (name, more) => view && view.question && ask({ do: name, place: view.question.place, thought: byId("thought").value, ...more });
const label = (action) => {
  const point = (at) => at.map((value) => `${Math.round(value / 100)} %`).join(", ");
  return [action.action.replace("_", " "), action.button, action.text, action.coordinate && `at ${point(action.coordinate)}`, action.coordinate2 && `to ${point(action.coordinate2)}`].filter(Boolean).join(" ");
};
const ours = (action) => ({ name: action.action, at: action.coordinate && action.coordinate.map((v) => v / 10000), to: action.coordinate2 && action.coordinate2.map((v) => v / 10000) });

const draw = () => {
  const question = view.question;
  byId("about").textContent = `${view.run} · ${view.left} left, ${view.answered} answered`;
  byId("question").hidden = !question;
  byId("empty").hidden = Boolean(question);
  if (!question) return;
  byId("title").textContent = question.goal;
  byId("where").textContent = [`${question.place[0]}, step ${question.place[1]} of ${question.steps}`, question.before.length ? `before: ${question.before.join(", ")}` : "", `${question.alike} failures like this one`].filter(Boolean).join(" · ");
  byId("agent").textContent = question.agent ? question.agent.label : "said nothing that can be read";
  byId("agent-thought").textContent = question.thought;
  byId("expert").textContent = question.expert.label;
  byId("why").textContent = question.why;
  byId("right").disabled = !question.agent;
  byId("own").hidden = !own;
  byId("own-action").textContent = own ? label(own) : "";
  byId("after").hidden = !question.next;
  byId("next").replaceChildren(...(question.next ? [thumbnail(question.next, "the next recorded screen")] : []));
  screen.show(question.screen, (w, h) => [
    ...question.boxes.map((box) => rectangle(box, w, h, "expert")), ...marks(question.expert, w, h, "expert"),
    ...marks(question.agent, w, h, "agent"), ...(own ? marks(ours(own), w, h, "person") : [])], true);
};

const propose = (action) => { own = action; draw(); };
byId("buttons").append(...["Back", "Home", "Menu", "Enter"].map((name) => el("button", { type: "button", on: { click: () => propose({ action: "system_button", button: name }) } }, name)),
  el("button", { type: "button", on: { click: () => propose({ action: "wait", time: 2 }) } }, "Wait"),
  el("button", { type: "button", on: { click: () => propose({ action: "terminate", status: "success" }) } }, "Done"));
byId("text").addEventListener("submit", (event) => {
  event.preventDefault();
  if (byId("type").value) propose({ action: byId("kind").value, text: byId("type").value });
  byId("type").value = "";
  document.activeElement.blur();
});

const COMMANDS = {
  right: () => say("agent"), recorded: () => say("expert"), pass: () => say("pass"),
  this: () => { if (own) say("person", { action: own }); },
};
for (const [name, call] of Object.entries(COMMANDS)) byId(name).addEventListener("click", call);
onKeys([
  ["a", "the agent is right too", () => { if (!byId("right").disabled) COMMANDS.right(); }], ["e", "only the recording is right", COMMANDS.recorded],
  ["s", "not now", COMMANDS.pass], ["Enter", "the action you gave is right", COMMANDS.this], ["Escape", "drop it", () => { own = null; draw(); }],
  ["p", "the screen: arrows, Enter, Shift+Enter, Control+arrow", () => screen.root.focus()],
  ["t", "text", () => byId("type").focus()], ["r", "the thought", () => byId("thought").focus()],
  ["?", "these keys", () => byId("keys").showModal()],
], () => own !== null);
ask({ do: "show" });
