"use strict";
// While a run is under way, its pages poll for a new stamp and reload when they find one.
(() => {
  const seen = document.documentElement.dataset.stamp;
  const place = document.documentElement.dataset.stampAt;
  if (!place) return;
  const notice = () => {
    if (document.querySelector(".notice")) return;
    const box = document.createElement("div");
    const button = document.createElement("button");
    box.className = "notice";
    box.setAttribute("role", "status");
    box.append("New rollouts have come in.", button);
    button.textContent = "Show them";
    button.addEventListener("click", () => location.reload());
    document.body.append(box);
  };
  window.guiderailStamp = (stamp) => {
    if (stamp === seen) return;
    if (document.querySelector(".walks")) notice();
    else location.reload();
  };
  setInterval(() => {
    const script = document.createElement("script");
    script.src = `${place}?${Date.now()}`;
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => script.remove());
    document.head.append(script);
  }, 4000);
})();
