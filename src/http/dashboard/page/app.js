// Puts the page together: follows the stream, shows each snapshot, says when there is no contact.

import * as charts from "./charts.js";
import { attribute, byId, keyed, text } from "./dom.js";
import { follow } from "./events.js";
import * as format from "./format.js";
import { showHerd, verdict } from "./herd.js";
import * as tables from "./tables.js";
import { startTheme } from "./theme.js";

const throughput = charts.throughput();
const latency = charts.latency();
let heardMs = null; // when the last snapshot came, by the clock of this machine
let lost = null; // { sinceMs, why } while there is no contact
let said = { state: "unknown", headline: "Waiting for the first figures", reason: "" };

function show(snapshot) {
  byId("main").hidden = false;
  tables.showFigures(snapshot);
  showHerd(snapshot);
  throughput.update(snapshot.series, snapshot.time, snapshot.windowMs);
  latency.update(snapshot.series, snapshot.time, snapshot.windowMs);
  const several = snapshot.databases.length > 1;
  const spreads = snapshot.databases.flatMap((d) => d.shards.map((s) => (
    { ...s, boundsUs: snapshot.boundsUs, label: several ? `${d.name}/${s.name}` : s.name })));
  keyed(byId("spread"), spreads, (s) => s.label, charts.spreadChart);
  tables.showStatements(snapshot);
  tables.showErrors(snapshot);
  tables.showClients(snapshot);
  text(byId("about"), `pgherd ${snapshot.version}, running for ${format.span(snapshot.time - snapshot.startedMs)}.`);
  said = verdict(snapshot);
}

function showContact() {
  const root = document.documentElement;
  attribute(root, "data-contact", lost ? "lost" : heardMs ? "live" : "connecting");
  const word = byId("contact");
  const alert = byId("lost");
  if (lost) {
    text(word, "no contact");
    const old = heardMs === null ? "" : " What stands below is what was known then.";
    text(alert, `No contact with the proxy since ${format.moment(lost.sinceMs)}: ${lost.why}. Trying again.${old}`);
  } else if (heardMs !== null) {
    text(word, `live, ${format.moment(heardMs)}`);
  }
  alert.hidden = !lost;
  const line = byId("verdict");
  line.hidden = Boolean(lost && heardMs === null);
  attribute(line, "data-state", lost ? "unknown" : said.state);
  text(byId("headline"), lost ? `Unknown since ${format.moment(lost.sinceMs)}` : said.headline);
  text(byId("reason"), lost ? "" : said.reason);
  const sign = lost ? "✕ no contact" : { well: "✓ well", degraded: "▲ degraded", down: "✕ down", unknown: "? unknown" }[said.state];
  const title = `${sign} – pgherd`;
  if (document.title !== title) document.title = title;
}

startTheme(byId("theme"));
byId("config-filter").addEventListener("input", tables.filterConfig);
follow("/api/events", {
  onEvent(name, data) {
    heardMs = Date.now();
    lost = null;
    if (name === "snapshot") show(data);
    if (name === "config") tables.showConfig(data);
    showContact();
  },
  onLost(why) {
    lost = { sinceMs: lost?.sinceMs ?? heardMs ?? Date.now(), why };
    showContact();
  },
});
