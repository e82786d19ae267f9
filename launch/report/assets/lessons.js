"use strict";
// What a teacher said of a turn, token by token. Everything a model said is put on the page as text, never as markup.
window.guiderailLessons = (el, chunk) => {
  const share = (value) => (value === null ? "?" : value >= 0.0005 || value === 0 ? value.toFixed(3) : value.toExponential(0));
  const ratio = (student, teacher) => (student && teacher ? Math.log(teacher / student) : null);
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
  const shade = (value) => {
    if (value === null) return "unknown";
    const size = Math.abs(value);
    return size < 0.1 ? "h0" : `${value > 0 ? "g" : "b"}${1 + [0.5, 1, 2, 4].filter((bound) => size >= bound).length}`;
  };
  const visible = (text) => text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥") || "∅";
  const told = ([text, student, teacher, best, bestP]) => {
    const rest = ratio(student, teacher) === null ? "" : `, log ratio ${signed(ratio(student, teacher))}`;
    const choice = best === text ? "the teacher's choice too" : `the teacher's choice: ${visible(best).trim() || "a space"} (${share(bestP)})`;
    return `student ${share(student)}, teacher ${share(teacher)}${rest}; ${choice}`;
  };
  const row = (token, i) => {
    const [text, student, teacher, best, bestP] = token;
    const value = ratio(student, teacher);
    return el("tr", {}, el("td", { class: "n" }, i), el("td", { class: "mono" }, visible(text)), el("td", { class: "n" }, share(student)), el("td", { class: "n" }, share(teacher)),
      el("td", { class: `n ${shade(value).replace("h0", "")}` }, value === null ? "" : signed(value)), el("td", { class: "mono" }, ...(best === text ? [el("span", { class: "muted" }, "the same")] : [visible(best), el("span", { class: "muted" }, ` ${share(bestP)}`)])));
  };
  const table = (tokens) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "every token in numbers" }, el("table", {},
    el("thead", {}, el("tr", {}, ...["", "token", "student", "teacher", "log ratio", "its choice"].map((name, i) => el("th", { scope: "col", class: [0, 2, 3, 4].includes(i) ? "n" : null }, name)))),
    el("tbody", {}, ...tokens.map(row))));
  const scale = [["g4", "more likely to the teacher"], ["h0", "alike"], ["b4", "less likely"], ["unknown", "one of the two is not known"]];

  const drawn = (lesson, whose) => {
    const { tokens, n, answer } = lesson;
    const known = tokens.filter(([, student, teacher]) => ratio(student, teacher) !== null);
    const sum = known.reduce((total, [, student, teacher]) => total + ratio(student, teacher), 0);
    const agree = tokens.filter(([text, , , best]) => text === best).length;
    const words = [`Of ${tokens.length}${n > tokens.length ? ` (the first of ${n})` : ""} tokens, ${agree} are the teacher's own choice.`,
      known.length ? `log p(teacher) − log p(student), summed: ${signed(sum)}.` : "No probability of the student is recorded: it did not sample them."];
    const numbers = el("details", {}, el("summary", {}, "Every token in numbers"));
    numbers.addEventListener("toggle", () => { if (numbers.open && numbers.children.length === 1) numbers.append(table(tokens)); });
    return [el("h3", {}, `The teacher on ${whose}`), el("p", { class: "muted small" }, words.join(" ")),
      el("p", { class: "tokens mono" }, ...tokens.map((token) => el("span", { class: shade(ratio(token[1], token[2])), title: told(token) }, visible(token[0])))),
      known.length ? el("ul", { class: "legend tokens" }, ...scale.map(([cls, text]) => el("li", {}, el("span", { class: cls }, "abc"), ` ${text}`))) : "",
      answer === undefined ? "" : el("div", { class: "says teacher" }, el("div", { class: "who" }, "The teacher's own answer"), el("pre", {}, answer)), numbers];
  };
  // An empty box, which is filled once the lesson is there. place: [script, number].
  return (place, whose) => {
    const box = el("section", { class: "taught" });
    chunk(place[0], (lessons) => { if (lessons[place[1]]) box.replaceChildren(...drawn(lessons[place[1]], whose).filter(Boolean)); });
    return box;
  };
};
