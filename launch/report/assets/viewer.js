"use strict";
// The trajectory viewer. Data come as scripts that call guiderail.put, because pages opened from disk cannot fetch.
// Everything a model, a goal or a file said is put on the page as text, never as markup.
(() => {
  const PAGE = 40;
  const KEPT_CHUNKS = 6;
  const SYMBOL = { e: "✓", t: "≈", w: "✗", u: "?", c: "–", l: "·" };
  const VERDICT = {
    e: "agrees", t: "right kind of action, wrong details", w: "another action", u: "unreadable answer",
    c: "these rules cannot judge it", l: "live: no expert to compare with",
  };
  const SIGNAL = {
    kept: "kept for training", "all right": "dropped: every rollout is right at every step",
    "all wrong": "dropped: no rollout is right at every step, and all did equally well",
    alike: "dropped: the returns hardly differ",
  };
  const chunks = new Map();
  const waiting = new Map();
  let index = null;
  let shown = [];
  let page = 0;
  let current = null;
  let at = { sample: 0, t: 0 };

  const byId = (id) => document.getElementById(id);
  const el = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "on") for (const [name, call] of Object.entries(value)) node.addEventListener(name, call);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  };
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  // ------------------------------------------------------------------------------------------------------- the data

  window.guiderail = {
    put(name, value) {
      if (name === "index") { index = value; start(); return; }
      chunks.set(name, value);
      if (chunks.size > KEPT_CHUNKS) chunks.delete(chunks.keys().next().value);
      for (const call of waiting.get(name) || []) call(value);
      waiting.delete(name);
    },
  };
  const script = (name) => {
    const tag = el("script", { src: `data/${name}.js?${document.documentElement.dataset.stamp || ""}` });
    tag.addEventListener("load", () => tag.remove());
    tag.addEventListener("error", () => { tag.remove(); byId("walk").replaceChildren(el("p", {}, `data/${name}.js is missing.`)); });
    document.head.append(tag);
  };
  const chunk = (name, call) => {
    if (chunks.has(name)) { call(chunks.get(name)); return; }
    if (waiting.has(name)) { waiting.get(name).push(call); return; }
    waiting.set(name, [call]);
    script(name);
  };

  // ------------------------------------------------------------------------------------------------------- the list

  const outcomeFilters = {
    all: () => true,
    right: (row) => row.paths.some((path) => path.ok === true),
    wrong: (row) => row.paths.some((path) => path.ok === false),
    mixed: (row) => row.paths.some((path) => path.ok) && row.paths.some((path) => path.ok === false),
    patched: (row) => row.paths.some((path) => /[A-Z]/.test(path.turns)),
    taught: (row) => row.taught,
    unreadable: (row) => row.paths.some((path) => /u/i.test(path.turns)),
  };
  const filter = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const keep = outcomeFilters[byId("outcome").value];
    const group = byId("group").value;
    shown = index.entries.filter((row) => keep(row) && (group === "all" || row.signal === group)
      && words.every((word) => row.text.includes(word)));
    page = 0;
    list();
  };
  const path = (one) => el("span", { class: "path" }, ...[...one.turns].map((letter) => {
    const low = letter.toLowerCase();
    return el("i", { class: letter === low ? low : `${low} patched` });
  }));
  const list = () => {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(0, page), pages - 1);
    byId("entries").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map((row) => el("li", {},
      el("a", { href: hash(row.key, 0, 0), "aria-current": current && current.key === row.key ? "true" : null },
        el("span", { class: "meta" }, el("span", {}, row.episode),
          el("span", {}, row.generation === null ? (row.episode.startsWith(row.template) ? "" : row.template) : `generation ${row.generation}`)),
        el("span", { class: "goal" }, row.goal || "(goal unknown)"),
        el("span", { class: "paths", "aria-hidden": "true" }, ...row.paths.slice(0, 16).map(path)),
        el("span", { class: "sr" }, `${row.paths.filter((p) => p.ok).length} of ${row.paths.length} right`)))));
    byId("pages").textContent = shown.length ? `${page * PAGE + 1}–${Math.min(shown.length, (page + 1) * PAGE)} of ${shown.length}` : "none";
    byId("before").disabled = page === 0;
    byId("after").disabled = page >= pages - 1;
  };
  const markCurrent = () => {
    for (const a of byId("entries").querySelectorAll("a")) {
      if (current && a.getAttribute("href").startsWith(`#${encodeURIComponent(current.key)}/`)) a.setAttribute("aria-current", "true");
      else a.removeAttribute("aria-current");
    }
  };

  // -------------------------------------------------------------------------------------------------- places in the URL

  const hash = (key, sample, t) => `#${encodeURIComponent(key)}/${sample}/${t}`;
  const locate = () => {
    const [name, sample, t] = location.hash.slice(1).split("/");
    let key = "";
    try { key = decodeURIComponent(name || ""); } catch { key = name; }
    const row = index.entries.find((one) => one.key === key)
      || index.entries.findLast((one) => one.episode === key) || (key ? null : shown[0] || index.entries[0]);
    if (!name && index.first) { location.replace(hash(...index.first)); return; }
    if (!row) { byId("walk").replaceChildren(el("p", {}, key ? `No episode ${key} in this run.` : "No rollouts yet.")); return; }
    chunk(row.chunk, (entries) => {
      const entry = entries.find((one) => one.key === row.key);
      if (!entry) return;
      const before = at.sample;
      const fresh = current !== entry;
      current = entry;
      at = { sample: Number(sample) || 0, t: Number(t) || 0 };
      if (!entry.rollouts.some((one) => one.sample === at.sample) && entry.rollouts.length) at.sample = entry.rollouts[0].sample;
      if (fresh) {
        const place = shown.indexOf(row);
        if (place >= 0 && Math.floor(place / PAGE) !== page) { page = Math.floor(place / PAGE); list(); }
        strip();
        markCurrent();
      } else if (entry.live && at.sample !== before) strip();
      select();
    });
  };
  const go = (sample, t) => { location.replace(hash(current.key, sample, t)); };
  const next = (by) => {
    const place = shown.findIndex((row) => row.key === current.key) + by;
    if (place >= 0 && place < shown.length) location.hash = hash(shown[place].key, 0, 0);
  };

  // --------------------------------------------------------------------------------------------------------- drawing

  const shot = (image, step, layers, label) => {
    const w = (step && step.w) || 9;
    const h = (step && step.h) || 16;
    const frame = el("span", { class: image ? "shot" : "shot blank" });
    frame.style.aspectRatio = `${w} / ${h}`;
    if (image) {
      const picture = el("img", { src: `${document.documentElement.dataset.up}images/${encodeURIComponent(image)}`, alt: label, loading: "lazy", decoding: "async" });
      picture.addEventListener("error", () => { picture.remove(); frame.classList.add("blank"); });
      frame.append(picture);
    } else frame.append(el("span", { class: "sr" }, `${label}: screenshot missing`));
    frame.append(svg("svg", { viewBox: `0 0 ${w} ${h}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...layers(w, h)));
    return frame;
  };
  const cased = (make, cls, unit, width) => [make({ class: "halo", "stroke-width": unit * width * 2.1 }), make({ class: cls, "stroke-width": unit * width })];
  const arrow = (mark, w, h, cls, unit) => {
    const [x1, y1, x2, y2] = [mark.at[0] * w, mark.at[1] * h, mark.to[0] * w, mark.to[1] * h];
    const angle = Math.atan2(y2 - y1, x2 - x1);
    const tip = (turn) => `${x2 - 16 * unit * Math.cos(angle + turn)},${y2 - 16 * unit * Math.sin(angle + turn)}`;
    const d = `M${x1},${y1}L${x2},${y2}M${tip(0.5)}L${x2},${y2}L${tip(-0.5)}`;
    return cased((rest) => svg("path", { d, ...rest }), cls, unit, 3.5);
  };
  const expertMarks = (step, w, h, unit, width) => {
    const marks = [];
    const box = step.boxes && step.boxes[0];
    if (box) {
      const place = { x: box[0] * w, y: box[1] * h, width: (box[2] - box[0]) * w, height: (box[3] - box[1]) * h, rx: 3 * unit };
      marks.push(svg("rect", { class: "area", ...place }), ...cased((rest) => svg("rect", { ...place, ...rest }), "mark-expert", unit, width));
    }
    const mark = step.expert;
    if (mark && mark.to) marks.push(...arrow(mark, w, h, "mark-expert", unit));
    else if (mark && mark.at) marks.push(...cased((rest) => svg("circle", { cx: mark.at[0] * w, cy: mark.at[1] * h, r: 9 * unit, ...rest }), "mark-expert", unit, width));
    return marks;
  };
  const policyMarks = (mark, w, h, unit) => {
    if (!mark || !mark.at) return [];
    if (mark.to) return arrow(mark, w, h, "mark-policy", unit);
    const [x, y, r] = [mark.at[0] * w, mark.at[1] * h, 11 * unit];
    return [...cased((rest) => svg("path", { d: `M${x - r},${y}H${x + r}M${x},${y - r}V${y + r}`, ...rest }), "mark-policy", unit, 2.6),
      svg("circle", { class: "solid-policy", cx: x, cy: y, r: 4.5 * unit, "stroke-width": unit })];
  };

  // -------------------------------------------------------------------------------------------- one episode on the page

  const rollout = () => current.rollouts.find((one) => one.sample === at.sample);
  const turnAt = (one, t) => one && one.turns.find((turn) => turn.t === t);
  const length = () => Math.max(current.steps.length, ...current.rollouts.map((one) => (one.turns.length ? one.turns[one.turns.length - 1].t + 1 : 0)));
  const ended = (one) => {
    if (one.success !== null && one.success !== undefined) return one.success ? "success" : `failed, ${one.ended.replaceAll("_", " ")}`;
    return one.ended;
  };

  const taught = () => current.rollouts.some((one) => one.turns.some((turn) => turn.taught || turn.shown));
  const strip = () => {
    const steps = [...Array(length()).keys()];
    const heads = steps.map((t) => {
      const turn = turnAt(rollout() || current.rollouts[0], t);
      const step = current.live ? turn || {} : current.steps[t] || {};
      const label = step.expert ? step.expert.label : "";
      const show = () => go(at.sample, t);
      return el("th", { scope: "col", "data-t": t }, el("button", { class: "thumb", title: label, on: { click: show } },
        shot(step.image, step, (w, h) => (current.live ? policyMarks(turn && turn.said, w, h, w / 110) : expertMarks(step, w, h, w / 110, 2.2)), `step ${t}`)),
      el("span", { class: "cap" }, `${t}  ${label}`));
    });
    const rows = current.rollouts.map((one) => el("tr", {},
      el("th", { scope: "row" }, `${current.live ? "trial" : "rollout"} ${one.sample} `, el("span", { class: "muted" }, ended(one))),
      ...steps.map((t) => {
        const turn = turnAt(one, t);
        if (!turn) return el("td", {}, el("span", { class: "cell none", "aria-hidden": "true" }, ""));
        const label = turn.said ? turn.said.label : "unreadable";
        return el("td", {}, el("button", {
          class: `cell ${turn.outcome}`, "data-sample": one.sample, "data-t": t, title: `${label}: ${turn.why}`,
          "aria-label": `rollout ${one.sample}, step ${t}: ${label}, ${VERDICT[turn.outcome]}${turn.repair ? ", patched" : ""}${turn.taught || turn.shown ? ", taught" : ""}`,
          on: { click: () => go(one.sample, t) },
        }, turn.repair ? el("span", { class: "patchmark" }, "⟲") : null, turn.taught || turn.shown ? el("span", { class: "patchmark" }, "◆") : null, `${SYMBOL[turn.outcome]} ${label}`));
      })));
    const about = [`episode ${current.episode}`, current.template];
    if (current.generation !== null) about.push(`generation ${current.generation}`);
    if (current.signal) about.push(SIGNAL[current.signal] || current.signal);
    byId("walk").replaceChildren(
      el("h1", {}, current.goal || "(goal unknown: the recording is missing)"),
      el("p", { class: "muted small" }, about.join(" · ")),
      el("div", { class: "stage" }, el("div", { class: "strip", id: "strip", tabindex: "-1" }, el("table", {}, el("caption", { class: "sr" }, "film strip: recorded steps and every rollout's answers"),
        el("thead", {}, el("tr", {}, el("th", {}), ...heads)), el("tbody", {}, ...rows))),
      el("div", { class: "detail", id: "detail", "aria-live": "polite" })),
      el("p", { class: "keys" }, el("kbd", {}, "←"), " ", el("kbd", {}, "→"), " step   ", el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"),
        " rollout   ", el("kbd", {}, "p"), " ", el("kbd", {}, "n"), " episode   ", el("kbd", {}, "/"), " search"),
      el("ul", { class: "legend signs" }, ...["e", "t", "w", "u"].filter(() => !current.live).map((letter) => el("li", {}, el("span", { class: `sign ${letter}` }, SYMBOL[letter]), VERDICT[letter])),
        current.live ? null : el("li", {}, el("span", { class: "sign patchmark" }, "⟲"), "patched: later steps see the expert's action instead"),
        taught() ? el("li", {}, el("span", { class: "sign patchmark" }, "◆"), "taught: a teacher spoke about this turn") : null));
    byId("walk").scrollTop = 0;
  };

  // Sideways only: scrollIntoView would also move the page.
  const inView = (cell) => {
    const strip = byId("strip");
    const [frame, place] = [strip.getBoundingClientRect(), cell.getBoundingClientRect()];
    const names = strip.querySelector("tbody th").offsetWidth;
    if (place.left < frame.left + names) strip.scrollLeft -= frame.left + names - place.left;
    if (place.right > frame.right) strip.scrollLeft += place.right - frame.right;
  };

  // What the marks on the picture mean, for those that are on it.
  const sign = (...drawn) => svg("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, ...drawn);
  const legend = (step, turn, others) => {
    const said = turn && turn.said;
    const line = (cls) => svg("path", { class: cls, d: "M2,15L17,5M11,5H17V11", "stroke-width": 2.4 });
    const rows = [
      [step.boxes && step.boxes[0], sign(svg("rect", { class: "mark-expert", x: 2, y: 4, width: 16, height: 12, "stroke-width": 2.2 })), "the expert's target"],
      [step.expert && step.expert.at && !step.expert.to, sign(svg("circle", { class: "mark-expert", cx: 10, cy: 10, r: 6, "stroke-width": 2.4 })), "where the expert touched"],
      [step.expert && step.expert.to, sign(line("mark-expert")), "the expert's swipe"],
      [said && said.at && !said.to, sign(svg("path", { class: "mark-policy", d: "M1,10H19M10,1V19", "stroke-width": 2.2 }), svg("circle", { class: "solid-policy", cx: 10, cy: 10, r: 4 })), current.live ? "where the agent touched" : "where this rollout touched"],
      [said && said.to, sign(line("mark-policy")), current.live ? "the agent's swipe" : "this rollout's swipe"],
      [others.length, sign(svg("circle", { class: "other", cx: 10, cy: 10, r: 5 })), "the group's other rollouts"],
    ].filter(([there]) => there);
    return rows.length ? el("figcaption", {}, el("ul", { class: "legend" }, ...rows.map(([, mark, text]) => el("li", {}, mark, text)))) : null;
  };

  const select = () => {
    at.t = Math.min(Math.max(0, at.t), Math.max(0, length() - 1));
    for (const cell of byId("strip").querySelectorAll(".cell[data-t]")) {
      const on = Number(cell.dataset.sample) === at.sample && Number(cell.dataset.t) === at.t;
      cell.setAttribute("aria-pressed", on);
      if (on) inView(cell);
    }
    for (const head of byId("strip").querySelectorAll("th[data-t]")) head.classList.toggle("on", Number(head.dataset.t) === at.t);
    const one = rollout();
    const turn = turnAt(one, at.t);
    const step = current.live ? turn || {} : current.steps[at.t] || {};
    const others = current.live ? [] : current.rollouts.filter((r) => r !== one).map((r) => turnAt(r, at.t)).filter((other) => other && other.said && other.said.at && !other.said.to);
    const layers = (w, h) => {
      const unit = w / 300;
      return [...expertMarks(step, w, h, unit, 2.6), ...others.map((other) => svg("circle", { class: "other", cx: other.said.at[0] * w, cy: other.said.at[1] * h, r: 4.5 * unit, "stroke-width": unit })),
        ...policyMarks(turn && turn.said, w, h, unit)];
    };
    const picture = el("figure", { class: "picture" }, shot(step.image, step, layers, `step ${at.t}`), legend(step, turn, others));
    byId("detail").replaceChildren(...[picture, saying(step, one, turn), credit(turn)].filter(Boolean));
  };

  const says = (who, kind, ...parts) => el("div", { class: `says ${kind}` }, el("div", { class: "who" }, who), ...parts);
  const saying = (step, one, turn) => {
    const parts = [el("h2", {}, `Step ${at.t}, ${current.live ? "trial" : "rollout"} ${at.sample}`)];
    if (turn) {
      parts.push(el("span", { class: `verdict ${turn.outcome}` }, `${SYMBOL[turn.outcome]} ${VERDICT[turn.outcome]}`));
      if (turn.why) parts.push(el("p", { class: "why" }, turn.why));
    } else parts.push(el("p", { class: "muted" }, one ? "This rollout ended before this step." : "No rollout."));
    if (!current.live && step.expert) {
      parts.push(says("Expert", "expert", el("p", {}, step.expert.label), step.thought ? el("p", { class: "muted" }, step.thought) : null,
        step.instruction ? el("p", { class: "muted" }, step.instruction) : null));
    }
    if (turn) {
      parts.push(says({ person: "A person", expert: "The task's expert" }[turn.by] || "Policy", "policy", el("p", {}, turn.said ? turn.said.label : "no readable action"),
        turn.thought ? el("p", { class: "thought muted" }, turn.thought) : null));
      if (turn.repair) parts.push(says(`Patched: ${turn.repair.strategy}`, "patch", el("p", { class: "muted" }, "Later steps see this instead:"), el("pre", {}, turn.repair.text)));
      parts.push(el("details", { open: turn.outcome === "u" }, el("summary", {}, `The raw answer${turn.tokens ? `, ${turn.tokens} tokens` : ""}${turn.finish === "length" ? ", cut by the token limit" : ""}`),
        el("pre", {}, turn.text)));
    }
    if (turn && turn.taught) parts.push(lesson(turn.taught, "this answer"));
    if (turn && turn.shown) parts.push(lesson(turn.shown, "the expert's answer, after this history"));
    if (!current.live && step.taught) parts.push(lesson(step.taught, "the expert's answer, after the expert's history"));
    parts.push(...onceMore(turn));
    if (one && one.reason) parts.push(el("p", { class: "muted" }, one.reason));
    return el("div", { class: "said" }, ...parts);
  };

  const lesson = window.guiderailLessons(el, chunk);
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const command = () => {
    return `guiderail explain ${quoted(index.folder)} --episode ${quoted(current.episode)} --rollout ${at.sample} --step ${at.t} --generation ${current.generation}${current.visit === null ? "" : ` --visit ${current.visit}`}`;
  };
  const onceMore = (turn) => (turn && index.again ? [el("p", { class: "small" }, "Try this from here, in the console:"),
    el("pre", { class: "small" }, `guiderail console --from ${quoted(index.folder)} --episode ${quoted(current.episode)} --rollout ${at.sample} --step ${at.t}`)] : []);
  const number = (value) => (value === undefined ? "" : (value < 0 ? "−" : "") + Math.abs(value).toFixed(3));
  // The return's chain is shown only when it adds up to the recorded return.
  const chain = (turns, from) => {
    const { gamma, returns } = index.credit;
    const terms = [];
    let sum = 0;
    for (let k = from; k < turns.length; k += 1) {
      const wrong = turns[k].outcome !== "e";
      if (returns === "released" && wrong && k > from) break;
      sum += gamma ** (k - from) * turns[k].reward;
      terms.push(k === from ? turns[k].reward.toFixed(2) : `${gamma}${k - from > 1 ? `^${k - from}` : ""}·${turns[k].reward.toFixed(2)}`);
      if (returns !== "full" && wrong) break;
    }
    return Math.abs(sum - turns[from].return) < 1e-6 && terms.length > 1 ? `= ${terms.join(" + ")}` : "";
  };
  const credit = (turn) => {
    if (!turn || turn.reward === undefined) return null;
    const line = (name, value, note, cls) => el("tr", { class: cls }, el("th", { scope: "row" }, name, note ? el("div", { class: "muted small" }, note) : null), el("td", { class: "n" }, number(value)));
    const turns = rollout().turns;
    const alive = current.rollouts.map((one) => ({ one, turn: turnAt(one, at.t) })).filter((row) => row.turn && row.turn.return !== undefined);
    const returns = alive.map((row) => row.turn.return);
    const mean = returns.reduce((a, b) => a + b, 0) / returns.length;
    const deviation = Math.sqrt(returns.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(1, returns.length - 1));
    return el("section", { class: "credit" }, el("h2", {}, "Credit"),
      el("table", {}, el("tbody", {}, line("reward", turn.reward), line("return", turn.return, chain(turns, turns.indexOf(turn))),
        line("episode advantage", turn.episode), line("step advantage", turn.step),
        line("advantage", turn.sum, current.signal && current.signal !== "kept" ? "not trained on: the group was dropped" : "", "sum"))),
      el("h3", {}, "The group at this step"),
      el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "rollout"), el("th", { class: "n" }, "return"), el("th", { class: "n" }, "step adv."))),
        el("tbody", {}, ...alive.map((row) => el("tr", { class: row.turn === turn ? "on" : null }, el("td", {}, row.one.sample), el("td", { class: "n" }, number(row.turn.return)), el("td", { class: "n" }, number(row.turn.step)))))),
      el("p", { class: "muted small" }, `mean ${number(mean)}, standard deviation ${number(deviation)}, ${alive.length} alive`),
      el("p", { class: "small" }, "Every term:"), el("pre", { class: "small" }, command()));
  };

  // ------------------------------------------------------------------------------------------------------------ start

  const moved = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "/") { event.preventDefault(); byId("find").focus(); return; }
    if (!current) return;
    const samples = current.rollouts.map((one) => one.sample);
    const place = samples.indexOf(at.sample);
    const moves = {
      ArrowRight: () => go(at.sample, Math.min(length() - 1, at.t + 1)), ArrowLeft: () => go(at.sample, Math.max(0, at.t - 1)),
      ArrowDown: () => go(samples[Math.min(samples.length - 1, place + 1)], at.t), ArrowUp: () => go(samples[Math.max(0, place - 1)], at.t),
      n: () => next(1), p: () => next(-1),
    };
    if (moves[event.key]) { event.preventDefault(); moves[event.key](); }
  };
  const start = () => {
    for (const row of index.entries) {
      row.text = `${row.goal} ${row.episode} ${row.template} ${row.generation === null ? "" : `generation ${row.generation}`}`.toLowerCase();
      row.paths = row.paths.map(([turns, ok]) => ({ turns, ok }));
    }
    if (!index.entries.some((row) => row.taught)) byId("outcome").querySelector("[value=taught]").remove();
    byId("group").hidden = !index.entries.some((row) => row.signal);
    byId("search").addEventListener("submit", (event) => event.preventDefault());
    byId("find").addEventListener("input", filter);
    byId("outcome").addEventListener("change", filter);
    byId("group").addEventListener("change", filter);
    byId("before").addEventListener("click", () => { page -= 1; list(); });
    byId("after").addEventListener("click", () => { page += 1; list(); });
    window.addEventListener("hashchange", locate);
    document.addEventListener("keydown", moved);
    filter();
    locate();
  };
  script("index");
})();
