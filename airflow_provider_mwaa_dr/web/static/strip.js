"use strict";
// The strip on every page of Airflow. It is a React app without content for Airflow 3.1 and later, and a script before.
(() => {
  const script = document.currentScript;
  const home = new URL(".", (script && script.src) || new URL("mwaa-dr/strip.js", document.baseURI));
  globalThis.mwaa_dr_strip = () => null;
  if (globalThis.mwaaDrStripStarted) return;
  globalThis.mwaaDrStripStarted = true;
  const bar = document.createElement("div");
  const text = document.createElement("span");
  const link = document.createElement("a");
  bar.id = "mwaa-dr-strip";
  bar.setAttribute("role", "status");
  link.href = home.href;
  link.textContent = "Disaster recovery";
  bar.append(text, " ", link);
  let last = null;
  let at = 0;
  const place = () => {
    const inner = document.querySelector('[data-testid="main-content"], body > .container, body > main');
    const isFixed = !inner;
    if (bar.isConnected && (isFixed ? bar.parentNode === document.body : bar.parentNode === inner)) return;
    Object.assign(bar.style, {
      position: isFixed ? "fixed" : "sticky", bottom: isFixed ? "0" : "auto", top: isFixed ? "auto" : "0", left: "0", right: "0",
      zIndex: "1000", padding: "6px 12px", font: "14px/1.4 system-ui, sans-serif", overflowWrap: "anywhere", borderRadius: "4px" });
    (inner || document.body).prepend(bar);
  };
  const draw = () => {
    const strip = last && last.strip;
    if (!strip) { bar.remove(); return; }
    const age = last.age_s === null ? "" : ` State read ${Math.round(last.age_s + (Date.now() - at) / 1000)} s ago.`;
    text.textContent = `${strip.word} - ${strip.text}${age}`;
    bar.style.background = strip.is_alarm ? "#7a1010" : "#5a3d00";
    bar.style.color = link.style.color = "#fff";
    link.style.textDecoration = "underline";
    place();
  };
  const load = async () => {
    let wait = 5000;
    if (!document.hidden) {
      let token = null;
      try { token = localStorage.getItem("token"); } catch { /* no storage */ }
      try {
        const answer = await fetch(new URL("strip.json", home), { credentials: "same-origin", headers: token ? { Authorization: `Bearer ${token}` } : {} });
        if (answer.ok) { last = await answer.json(); at = Date.now(); } else { last = null; wait = 60000; }
      } catch { /* the next read tries again */ }
    }
    if (last && !last.strip && last.age_s === null) wait = 1000;
    setTimeout(load, wait);
  };
  setInterval(draw, 1000);
  load();
})();
