// What the recorder's and the review's page share: one question at a time by HTTP, and boxes on a screen.
import { base, el, svg } from "./shared.js";

export const byId = (id) => document.getElementById(id);

// ask(message) shows what comes back. One at a time: what is asked meanwhile is dropped, as the server would refuse it.
export const asker = (draw) => {
  let waiting = false;
  const problem = (text) => { byId("problem").textContent = text; byId("problem").hidden = !text; };
  return async (message) => {
    if (waiting) return false;
    waiting = true;
    document.body.classList.add("busy");
    try {
      const answer = await fetch(`${base}do`, { method: "POST", body: JSON.stringify(message) });
      const said = await answer.json();
      problem(said.error || "");
      if (said.error) return false;
      draw(said);
      return true;
    } catch {
      problem("the page's server has gone; start it again");
      return false;
    } finally {
      waiting = false;
      document.body.classList.remove("busy");
    }
  };
};

export const holds = (box, at) => box[0] <= at[0] && at[0] <= box[2] && box[1] <= at[1] && at[1] <= box[3];
export const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);

// A box [left, top, right, bottom] in fractions, on a screen of w x h.
export const rectangle = (box, w, h, cls) => svg("rect", {
  class: `box ${cls}`, x: box[0] * w, y: box[1] * h, width: (box[2] - box[0]) * w, height: (box[3] - box[1]) * h, "stroke-width": w / 110,
});

export const thumbnail = (screen, label) => {
  const small = el("span", { class: "thumb" }, el("img", { src: `${base}screens/${screen.src}`, alt: label, loading: "lazy" }));
  small.style.aspectRatio = `${screen.w} / ${screen.h}`;
  return small;
};

// keys: [[key, words, call], ...]. They are told apart from typing.
// waits(): whether something waits for its Enter, which the screen would else take as a touch where its cross is.
export const onKeys = (keys, waits) => {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || !waits() || event.target.matches("input, select, button")) return;
    event.preventDefault();
    event.stopPropagation();
    keys.find(([key]) => key === "Enter")[2]();
  }, true);
  byId("key-list").replaceChildren(...keys.flatMap(([key, words]) => [el("dt", {}, el("kbd", {}, key === " " ? "space" : key)), el("dd", {}, words)]));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    if ([" ", "Enter"].includes(event.key) && event.target.matches("button, summary, a")) return;
    const found = keys.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  });
};
