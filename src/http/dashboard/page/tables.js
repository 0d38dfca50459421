// Figures of the moment, and the tables: statements, errors, clients, configuration.

import { attribute, byId, el, keyed, text } from "./dom.js";
import * as format from "./format.js";

// A table row of text cells; `cells`: [(item) => text, class].
function row(cells, extra) {
  return () => {
    const nodes = cells.map(([, name]) => el("td", { class: name }));
    const node = el("tr", null, ...nodes);
    const update = (item) => {
      cells.forEach(([value], index) => value && text(nodes[index], value(item)));
      extra?.(node, nodes, item);
    };
    return { node, update };
  };
}

// One row over all columns, for a table without rows.
function fill(id, items, key, make, nothing) {
  const body = byId(id);
  const columns = body.parentNode.tHead.rows[0].cells.length;
  if (items.length > 0) return keyed(body, items, key, make);
  keyed(body, [nothing], () => "nothing", () => ({ node: el("tr", null, el("td", { colspan: columns, class: "nothing" }, nothing)) }));
}

export function showFigures({ now, clients, databases }) {
  const servers = databases.flatMap((d) => d.shards.flatMap((s) => s.servers));
  const sum = (key) => servers.reduce((total, s) => total + s[key], 0);
  const waiting = clients.waiting;
  const figures = [
    ["Statements", `${format.rate(now.perS)}/s`, `${format.rate(now.readsPerS)} read, ${format.rate(now.writesPerS)} write`],
    ["Latency p50", format.duration(now.p50Us), `over the last ${now.seconds} s`],
    ["Latency p99", format.duration(now.p99Us), `over the last ${now.seconds} s`],
    ["Errors", `${format.rate(now.errorsPerS)}/s`, now.perS ? `${format.percent(now.errorsPerS / now.perS)} of statements` : "no statements"],
    ["Clients", format.count(clients.connected), `${format.count(clients.active)} active, ${format.count(waiting)} waiting`],
    ["Server connections", format.count(sum("inUse")), `in use, ${format.count(sum("open"))} open`],
  ];
  keyed(byId("figures"), figures, ([name]) => name, ([name]) => {
    const value = el("dd", { class: "value" });
    const about = el("dd", { class: "about" });
    const node = el("div", null, el("dt", null, name), value, about);
    return { node, update: ([, v, a]) => { text(value, v); text(about, a); } };
  });
}

const statementCells = [
  [(s) => s.statement || "all other statements", "code"],
  [(s) => [s.routes.join(", "), s.shards.length > 3 ? `${s.shards.length} shards` : s.shards.join(", ")].filter(Boolean).join(": "), "dim"],
  [null, "n share"], // a bar with its number
  [(s) => format.count(s.calls), "n"],
  [(s) => format.count(s.rows), "n"],
  [(s) => format.count(s.errors), "n"],
  [(s) => format.duration(s.meanUs), "n"],
  [(s) => format.duration(s.p99Us), "n"],
];

export function showStatements({ statements, statementsSinceMs, time }) {
  text(byId("statements-note"), `By the time they took together, for ${format.span(time - statementsSinceMs)}. Values are left out.`);
  const make = () => {
    const { node, update } = row(statementCells)();
    const bar = el("i");
    const share = el("span");
    node.cells[2].append(el("span", { class: "meter", "aria-hidden": "true" }, bar), share);
    return {
      node,
      update(item) {
        update(item);
        bar.style.width = `${(100 * item.share).toFixed(1)}%`;
        text(share, format.percent(item.share));
        attribute(node.cells[0], "title", item.database ? `database ${item.database}` : null);
      },
    };
  };
  fill("statements", statements, (s) => `${s.database} ${s.statement}`, make, "No statement yet.");
}

const errorCells = [
  [(e) => format.moment(e.atMs), "time"],
  [(e) => e.sqlstate, "code"],
  [(e) => e.message, "message"],
  [(e) => [e.blame, e.shard, e.server].filter(Boolean).join(" "), "dim"],
  [(e) => [e.user, e.database].filter(Boolean).join("@"), "dim"],
];

export function showErrors({ errors, errorsTotal }) {
  const shown = errors.length < errorsTotal ? `The latest ${errors.length} of ${format.count(errorsTotal)} since the start.` : "";
  text(byId("errors-note"), shown);
  const make = row(errorCells, (node, nodes, item) => attribute(nodes[2], "title", item.statement));
  fill("errors", errors, (e) => `${e.atMs} ${e.sqlstate} ${e.message}`, make, "No error since the start.");
}

const clientCells = [
  [(c) => c.application || "–", ""],
  [(c) => c.user, ""],
  [(c) => c.database, ""],
  [(c) => format.count(c.connected), "n"],
  [(c) => format.count(c.active), "n"],
  [(c) => format.count(c.waiting), "n"],
  [(c) => format.count(c.inTransaction), "n"],
];

export function showClients({ clients }) {
  const { connected, most, active, waiting, idle, inTransaction, groups, ungrouped } = clients;
  const rest = ungrouped ? ` ${format.plural(ungrouped, "client")} of smaller groups not listed.` : "";
  text(byId("clients-note"), `${format.plural(connected, "client")} of at most ${format.count(most)}: ${format.count(active)} active, ${format.count(waiting)} waiting for a server, ${format.count(inTransaction)} idle in a transaction, ${format.count(idle)} idle.${rest}`);
  fill("clients", groups, (c) => JSON.stringify([c.application, c.user, c.database]), row(clientCells), "No client is connected.");
}

let settings = [];

export function showConfig(config) {
  settings = config.settings;
  text(byId("config-note"), `${format.plural(settings.length, "setting")} of ${config.file}`);
  filterConfig();
}

const configCells = [
  [(s) => s.key, "code"],
  [(s) => (s.value === null ? "not set" : [s.value, s.unit].filter(Boolean).join(" ")), ""],
];

export function filterConfig() {
  const wanted = byId("config-filter").value.toLowerCase();
  const shown = settings.filter((s) => `${s.key} ${s.value ?? ""}`.toLowerCase().includes(wanted));
  fill("config", shown, (s) => s.key, row(configCells), "No setting has this in its key or value.");
}
