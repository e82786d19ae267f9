// What the console's pages share: building elements, the socket, and the screen of a device that a person can touch.
// Everything that a model, a goal or a device said is put on a page as text, never as markup.

export const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "on") for (const [name, call] of Object.entries(value)) node.addEventListener(name, call);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
};

export const svg = (tag, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

// The children of a node, without those that are not there.
export const put = (node, ...children) => node.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== ""));

// The page's own place ends with a slash; the token is the first part of it.
export const base = `/${location.pathname.split("/")[1]}/`;

// A socket that comes back by itself. heard(message), state(true or false).
export const connect = (place, heard, state) => {
  let socket = null;
  let wait = 250;
  const open = () => {
    socket = new WebSocket(`ws://${location.host}${base}${place}`);
    socket.addEventListener("open", () => { wait = 250; state(true); });
    socket.addEventListener("message", (event) => heard(JSON.parse(event.data)));
    socket.addEventListener("close", () => { state(false); setTimeout(open, wait); wait = Math.min(4000, wait * 2); });
  };
  open();
  return (message) => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message)); };
};

// ------------------------------------------------------------------------------------------------ actions on a screen

const cased = (make, cls, width) => [make({ class: "halo", "stroke-width": width * 2.2 }), make({ class: cls, "stroke-width": width })];

// What an action looks like on a screen of w x h: {name, at?, to?} as view.py writes it. cls: whose colour.
export const marks = (action, w, h, cls) => {
  if (!action || !action.at) return [];
  const unit = w / 300;
  const [x, y] = [action.at[0] * w, action.at[1] * h];
  if (action.to) {
    const [x2, y2] = [action.to[0] * w, action.to[1] * h];
    const angle = Math.atan2(y2 - y, x2 - x);
    const tip = (turn) => `${x2 - 16 * unit * Math.cos(angle + turn)},${y2 - 16 * unit * Math.sin(angle + turn)}`;
    const d = `M${x},${y}L${x2},${y2}M${tip(0.5)}L${x2},${y2}L${tip(-0.5)}`;
    return cased((rest) => svg("path", { d, ...rest }), `line ${cls}`, 4 * unit);
  }
  const ring = (r) => cased((rest) => svg("circle", { cx: x, cy: y, r: r * unit, ...rest }), `line ${cls}`, 3 * unit);
  const dot = svg("circle", { class: `dot ${cls}`, cx: x, cy: y, r: 5 * unit, "stroke-width": unit });
  return action.name === "long_press" ? [...ring(14), ...ring(22), dot] : [...ring(14), dot];
};

const HOLD = 500; // milliseconds after which a touch is a long press
const SLOP = 0.03; // of the screen's width: a finger that moves further draws
const UNITS = 10000;

// A device's screen. act(action) is called with what a finger, mouse or key did, as talk.py reads it. On the keyboard, arrows
// move a cross; Enter touches there, Shift+Enter holds, Control+arrow swipes from there.
export class Screen {
  constructor(act) {
    this.act = act;
    this.image = el("img", { alt: "the device's screen", draggable: "false" });
    this.overlay = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.root = el("div", { class: "screen", tabindex: "0", role: "application", "aria-label": "screen: arrows move the cross, Enter touches, Shift+Enter holds, Control+arrow swipes" }, this.image, this.overlay);
    this.src = "";
    this.size = [9, 16];
    this.cross = null;
    this.drawn = () => [];
    this.touch = null;
    this.live = false;
    const on = (name, call) => this.root.addEventListener(name, call);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", () => { this.touch = null; this.redraw(); });
    on("contextmenu", (event) => event.preventDefault());
    on("keydown", (event) => this.key(event));
    on("blur", () => { this.cross = null; this.redraw(); });
    this.image.addEventListener("load", () => { this.root.dataset.shown = this.src; });
  }

  // shot: {src, w, h} or null. drawn(w, h): marks. live: whether touches reach the device.
  show(shot, drawn, live) {
    this.live = live;
    this.drawn = drawn;
    this.root.classList.toggle("live", live);
    if (shot && shot.src !== this.src) {
      this.src = shot.src;
      this.size = [shot.w, shot.h];
      this.root.style.aspectRatio = `${shot.w} / ${shot.h}`;
      this.image.src = `${base}screens/${shot.src}`;
    }
    this.root.classList.toggle("empty", !shot);
    this.redraw();
  }

  redraw() {
    const [w, h] = this.size;
    this.overlay.setAttribute("viewBox", `0 0 ${w} ${h}`);
    const nodes = this.drawn(w, h);
    if (this.touch) nodes.push(...marks({ at: this.touch.from, to: this.touch.far ? this.touch.at : undefined, name: this.touch.held ? "long_press" : "click" }, w, h, "person"));
    if (this.cross) {
      const [x, y, r] = [this.cross[0] * w, this.cross[1] * h, w / 14];
      const d = `M${x - r},${y}H${x + r}M${x},${y - r}V${y + r}`;
      nodes.push(...cased((rest) => svg("path", { d, ...rest }), "line person", w / 120));
    }
    this.overlay.replaceChildren(...nodes);
  }

  place(event) {
    const box = this.root.getBoundingClientRect();
    const inside = (value) => Math.min(0.9999, Math.max(0, value));
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
  }

  down(event) {
    if (!this.live || event.button !== 0) return;
    this.root.setPointerCapture(event.pointerId);
    const at = this.place(event);
    const touch = { from: at, at, far: false, held: false, began: performance.now() };
    this.touch = touch;
    setTimeout(() => { if (this.touch === touch && !touch.far) { touch.held = true; this.redraw(); } }, HOLD);
    this.redraw();
  }

  move(event) {
    const touch = this.touch;
    if (!touch) return;
    touch.at = this.place(event);
    const ratio = this.size[1] / this.size[0];
    touch.far = touch.far || Math.hypot(touch.at[0] - touch.from[0], (touch.at[1] - touch.from[1]) * ratio) > SLOP;
    this.redraw();
  }

  up(event) {
    const touch = this.touch;
    if (!touch) return;
    this.move(event);
    this.touch = null;
    this.redraw();
    const seconds = (performance.now() - touch.began) / 1000;
    if (touch.far) this.swipe(touch.from, touch.at);
    else if (seconds * 1000 >= HOLD) this.act({ action: "long_press", coordinate: units(touch.from), time: Math.round(seconds * 10) / 10 });
    else this.act({ action: "click", coordinate: units(touch.from) });
  }

  swipe(from, to) { this.act({ action: "swipe", coordinate: units(from), coordinate2: units(to) }); }

  key(event) {
    const ways = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const way = ways[event.key];
    if (!this.live || event.altKey || event.metaKey || !(way || event.key === "Enter")) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.cross || [0.5, 0.5];
    const moved = (by) => [0, 1].map((axis) => Math.min(0.99, Math.max(0.01, from[axis] + way[axis] * by)));
    if (!way && event.shiftKey) this.act({ action: "long_press", coordinate: units(from), time: 1 });
    else if (!way) this.act({ action: "click", coordinate: units(from) });
    else if (event.ctrlKey) this.swipe(from, moved(0.4));
    else this.cross = moved(event.shiftKey ? 0.1 : 0.02);
    this.redraw();
  }
}

const units = (at) => at.map((value) => Math.round(value * UNITS));
