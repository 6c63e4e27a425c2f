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
  const others = document.createElement("span");
  bar.append(text, " ", link, others);
  let run = "";
  let about = null;
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
    follow();
    const strip = last && last.strip;
    const note = about && about.note;
    if (!strip && !note) { bar.remove(); return; }
    const said = [];
    if (strip) {
      said.push(`${strip.word} - ${strip.text}`);
      if (last.age_s !== null) said.push(`State read ${Math.round(last.age_s + (Date.now() - at) / 1000)} s ago.`);
    }
    if (note) said.push(`This run: ${note}${/[.!?]$/.test(note) ? "" : "."}`);
    text.textContent = said.join(" ");
    others.replaceChildren(...(note ? about.others : []).flatMap((other) => {
      const to = document.createElement("a");
      Object.assign(to, { href: other.href, textContent: `Airflow of ${other.site}`, target: "_blank", rel: "noopener" });
      return [" | ", to];
    }));
    bar.style.background = strip && strip.is_alarm ? "#7a1010" : strip ? "#5a3d00" : "#1f3a5f";
    bar.style.color = "#fff";
    for (const each of bar.querySelectorAll("a")) Object.assign(each.style, { color: "#fff", textDecoration: "underline" });
    place();
  };
  // The run whose page this is: /dags/ID/runs/RUN from Airflow 3 on, /dags/ID/grid?dag_run_id=RUN before.
  const follow = async () => {
    const parts = /\/dags\/([^/]+)(?:\/runs\/([^/]+))?/.exec(location.pathname) || [];
    const id = parts[2] ? decodeURIComponent(parts[2]) : new URLSearchParams(location.search).get("dag_run_id");
    const now = parts[1] && id ? new URLSearchParams({ dag_id: decodeURIComponent(parts[1]), run_id: id }).toString() : "";
    if (now === run) return;
    run = now;
    about = null;
    if (!now) return;
    const found = await get(`run.json?${now}`);
    if (run === now) about = found;
  };
  const get = async (path) => {
    let token = null;
    try { token = localStorage.getItem("token"); } catch { /* no storage */ }
    try {
      const answer = await fetch(new URL(path, home), { credentials: "same-origin", headers: token ? { Authorization: `Bearer ${token}` } : {} });
      return answer.ok ? await answer.json() : null;
    } catch { return undefined; }
  };
  const load = async () => {
    let wait = 5000;
    if (!document.hidden) {
      const found = await get("strip.json");
      if (found) { last = found; at = Date.now(); } else if (found === null) { last = null; wait = 60000; }
    }
    if (last && !last.strip && last.age_s === null) wait = 1000;
    setTimeout(load, wait);
  };
  setInterval(draw, 1000);
  load();
})();
