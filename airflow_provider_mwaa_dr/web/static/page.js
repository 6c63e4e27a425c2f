"use strict";
// The data of this page is status.json. The page changes nothing: its links lead to forms of Airflow.
(() => {
  const EVERY_MS = 5000;
  const main = document.getElementById("main");
  const age = document.getElementById("age");
  let last = null;
  let receivedAt = 0;
  let failure = "";

  function el(name, attributes, ...children) {
    const found = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) found.setAttribute(key, value);
    for (const child of children.flat()) if (child !== null && child !== undefined) found.append(child);
    return found;
  }

  const seconds = (value) => {
    if (value === null || value === undefined) return "-";
    if (value < 120) return `${Math.round(value)} s`;
    return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
  };
  const time = (iso) => (iso ? `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC` : "unknown");
  const list = (entries) => el("ul", {}, entries.map((entry) => el("li", {}, entry)));
  const section = (title, ...children) => el("section", {}, el("h2", {}, title), ...children);
  const form = (text) => el("a", { href: "../dags/dr_failover", target: "_top" }, text);
  const alarm = (text) => el("p", { class: "alarm" }, `! ${text}`);

  function active(found) {
    const who = found.web.active;
    const alarms = (found.problems || []).map(alarm);
    if (!who) return section("Active site", el("p", {}, "Unknown: the state has not been read."), ...alarms);
    const since = who.since ? `since ${time(who.since)}, by ${who.by || "unknown"}: ${who.reason || "no reason"}` : "since the set was created";
    return section("Active site", el("div", { class: "box" },
      el("p", { class: "lead" }, alarms.length ? "No site has a role, and every site holds every run." : `${who.site} is active.`),
      el("p", {}, since), ...alarms,
      el("p", { class: "soft" }, `This is the web server of ${found.web.site}. `, form("Open the form of dr_failover"))));
  }

  function notes(site, found) {
    const alarms = [];
    for (const claim of site.claims) alarms.push(`an environment holds every run: ${claim.problem}`);
    if (site.unpublished) alarms.push(`it became active without its ledger at ${time(site.unpublished.at)}: ${site.unpublished.why}`);
    if (site.held_tasks) alarms.push(`its fence has held tasks since ${time(site.held_tasks.since)}: ${site.held_tasks.why}`);
    if (!site.schedulers) alarms.push(site.agent_age_s === null ? "no scheduler has sent a heartbeat" : `its schedulers have sent no heartbeat for ${seconds(site.agent_age_s)}`);
    for (const problem of site.problems) alarms.push(`a setting is wrong: ${problem}`);
    if (site.held_because) alarms.push(`it holds every run: ${site.held_because}`);
    if (site.fence_ok === false) alarms.push("a task ended without the fence");
    if (site.ledger_error) alarms.push(`its ledger cannot be used: ${site.ledger_error}`);
    if (site.schedulers && site.reconciled_epoch !== null && site.reconciled_epoch !== found.epoch) alarms.push(`it has not reconciled its open runs of epoch ${site.reconciled_epoch} yet`);
    for (const gap of site.unread) alarms.push(gap);
    return alarms.map(alarm);
  }

  function card(name, site, found) {
    const row = (term, text) => [el("dt", {}, term), el("dd", {}, text)];
    const lag = site.ledger_error ? "unusable" : site.role === "active" ? seconds(site.ledger_lag_s) : "- (publishes nothing)";
    return el("div", { class: "box" },
      el("h3", {}, `${name}: ${site.role.toUpperCase()}`),
      el("dl", {},
        row("Environment", found.web.names[name] || "-"),
        row("Heartbeat", site.agent_age_s === null ? "never seen" : `${seconds(site.agent_age_s)} old`),
        row("Schedulers", String(site.schedulers)),
        row("Fence", { true: "ok", false: "MISSING" }[site.fence_ok] || "not seen yet"),
        row("RPO now", lag),
        row("MWAA", site.environment_status || "not known here (mwaa-dr status shows it)")),
      ...notes(site, found));
  }

  function plan(found) {
    const open = found.plan;
    const view = found.web.plan;
    if (!open || !view) return section("Open failover", el("p", {}, "None."));
    const steps = view.steps.map((step) => el("li", step.detail ? { title: step.detail } : {}, step.name, el("br"), seconds(step.seconds)));
    steps.push(el("li", { class: "now" }, found.phase.toLowerCase(), el("br"), view.is_halted ? "halted" : "now"));
    return section("Open failover", el("div", { class: view.is_halted || view.is_silent ? "box alarm-box" : "box" },
      el("p", { class: "lead" }, `${open.from} to ${open.to} (${open.mode}), ${found.phase}`),
      el("p", {}, `By ${open.by} since ${time(open.started_at)}: ${open.reason}`),
      el("p", {}, `${view.meaning}.`),
      el("ol", { class: "steps" }, steps),
      el("p", { class: view.is_silent ? "alarm" : "" }, view.owner),
      view.ways.map((way) => el("p", {}, `${way.what}: `, form(`dr_failover to ${way.to}`), ", or ", el("code", {}, way.command)))));
  }

  function waiting(found) {
    const entries = Object.entries(found.regions || {}).flatMap(([name, site]) => [
      ...site.waiting.map((run) => `${name}: ${run}`),
      ...site.repeats.map((run) => `${name}: ${run}`),
      ...((site.unpublished || {}).runs || []).map((run) => `${name}: ${run} (closed without the ledger)`)]);
    return section("Interrupted runs that wait", entries.length ? list(entries) : el("p", {}, "None."));
  }

  function history(found) {
    const records = found.web.history;
    if (!records.length) return section("History", el("p", {}, "No failover has been recorded."));
    const rows = records.map((record) => el("tr", {},
      el("td", {}, time(record.started_at)), el("td", {}, `${record.from} to ${record.to}`), el("td", {}, record.mode || "?"),
      el("td", {}, record.outcome), el("td", {}, seconds(record.seconds)), el("td", {}, `${record.by}: ${record.reason}`),
      el("td", {}, el("details", { "data-key": record.id }, el("summary", {}, `${record.steps.length} steps`),
        list(record.steps.map((step) => `${step.name}: ${seconds(step.seconds)}${step.detail ? `, ${step.detail}` : ""}`)),
        record.not_unpaused.length ? [el("p", {}, "DAGs that could not be unpaused:"), list(record.not_unpaused)] : null,
        record.ended_in_standby.length ? [el("p", {}, "Runs that the target had ended as a standby:"), list(record.ended_in_standby)] : null))));
    const heads = ["Started", "Sites", "Mode", "Outcome", "Took", "By", "Report"].map((head) => el("th", {}, head));
    return section("History", el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))));
  }

  function draw(found) {
    const opened = new Set([...main.querySelectorAll("details[open]")].map((each) => each.dataset.key));
    const sites = Object.entries(found.regions || {});
    main.replaceChildren(...[
      active(found),
      section("Sites", sites.length ? el("div", { class: "cards" }, sites.map(([name, site]) => card(name, site, found))) : el("p", {}, "Not read yet.")),
      plan(found), waiting(found), history(found)]);
    for (const each of main.querySelectorAll("details")) each.open = opened.has(each.dataset.key);
  }

  function tick() {
    const elapsed = (Date.now() - receivedAt) / 1000;
    const error = failure || (last && last.web.error);
    let text = "Reading the state ...";
    if (last && last.web.age_s !== null) text = `State read ${seconds(last.web.age_s + elapsed)} ago.`;
    if (error) text += ` The last read failed: ${error}`;
    const is_old = last && last.web.age_s !== null && last.web.age_s + elapsed > 30;
    age.textContent = is_old ? `${text} Do not rely on this page: use mwaa-dr status.` : text;
    age.className = error || is_old ? "alarm" : "";
  }

  async function load() {
    // Airflow 3.0 keeps the token of the user in the storage of the browser; later versions use a cookie.
    let token = null;
    try { token = localStorage.getItem("token"); } catch { /* no storage */ }
    try {
      const answer = await fetch("status.json", { credentials: "same-origin", cache: "no-store", headers: token ? { Authorization: `Bearer ${token}` } : {} });
      if (answer.status === 401) failure = "you are not logged in. Open Airflow and log in.";
      else if (answer.status === 403) failure = "your role may not see this page.";
      else if (!answer.ok) failure = `the web server answered ${answer.status}.`;
      else {
        last = await answer.json();
        receivedAt = Date.now();
        failure = "";
        draw(last);
      }
    } catch { failure = "the web server did not answer."; }
    tick();
    const isFirst = last && last.web.details_age_s === null;
    setTimeout(load, isFirst ? 1000 : EVERY_MS);
  }

  setInterval(tick, 1000);
  load();
})();
