// The herd: a lane for each shard, with its primary, its replicas, its partitions and what it does.

import { attribute, byId, el, keyed, text } from "./dom.js";
import * as format from "./format.js";

const WORDS = { well: "well", degraded: "degraded", down: "down", unknown: "not asked yet" };

export function showHerd(snapshot) {
  const several = snapshot.databases.length > 1;
  keyed(byId("herd"), snapshot.databases, (d) => d.name, (d) => database(several, d));
  text(byId("sizes"), sizesNote(snapshot));
}

function database(several, { name }) {
  const lanes = el("ol", { class: "lanes", "aria-label": `Shards of database ${name}` });
  const title = el("h3", { class: several ? "database" : "quiet" }, `Database ${name}`);
  const node = el("div", null, title, lanes);
  const update = (d) => {
    attribute(title, "class", d.several ? "database" : "quiet");
    keyed(lanes, d.shards, (s) => s.name, lane);
  };
  return { node, update };
}

function lane() {
  const parts = {
    name: el("h4"),
    state: el("span", { class: "state" }),
    problems: el("ul", { class: "problems" }),
    servers: el("ul", { class: "servers", "aria-label": "Servers" }),
    partitions: el("ul", { class: "partitions", "aria-label": "Partitions" }),
    load: el("p", { class: "load" }),
    rate: el("strong"),
    times: el("span"),
    errors: el("span", { class: "failed" }),
  };
  parts.load.append(parts.rate, parts.times, parts.errors);
  const head = el("div", { class: "head" }, el("div", { class: "title" }, parts.name, parts.state));
  const node = el("li", { class: "lane" }, head, parts.servers, parts.partitions, parts.load, parts.problems);
  return { node, update: (shard) => updateLane(node, parts, shard) };
}

function updateLane(node, parts, shard) {
  attribute(node, "data-state", shard.state);
  attribute(node, "data-shard", shard.name);
  text(parts.name, shard.name);
  text(parts.state, WORDS[shard.state]);
  keyed(parts.problems, shard.problems, (p) => p, (p) => ({ node: el("li", null, p) }));
  parts.problems.hidden = shard.problems.length === 0;
  keyed(parts.servers, shard.servers, (s) => s.address, server);
  keyed(parts.partitions, shard.partitions, (p) => p.name, partition);
  if (shard.partitions.length === 0) {
    keyed(parts.partitions, [shard], () => "whole", () => whole());
  }
  text(parts.rate, `${format.rate(shard.perS)}/s`);
  text(parts.times, shard.total ? `p50 ${format.duration(shard.p50Us)}, p99 ${format.duration(shard.p99Us)}` : "no statements");
  text(parts.errors, shard.errors ? format.plural(shard.errors, "error") : "");
}

function server() {
  const sign = el("span", { class: "sign", "aria-hidden": "true" });
  const role = el("span", { class: "role" });
  const address = el("span", { class: "address" });
  const state = el("span", { class: "word" });
  const used = el("i");
  const meter = el("span", { class: "meter", "aria-hidden": "true" }, used);
  const use = el("span", { class: "use" });
  const lag = el("span", { class: "lag" });
  const node = el("li", { class: "server" }, sign,
    el("p", null, role, state), el("p", null, address), el("p", { class: "in-use" }, meter, use), el("p", null, lag));
  const update = (s) => {
    for (const part of [node, sign]) attribute(part, "data-state", s.state);
    attribute(node, "data-role", s.role);
    attribute(node, "data-address", s.address);
    attribute(sign, "data-sign", s.role);
    text(role, s.role);
    text(address, s.address);
    text(state, s.state);
    attribute(node, "title", `since ${format.moment(s.sinceMs)}${s.version ? `, PostgreSQL ${s.version}` : ""}`);
    used.style.width = `${Math.min(100, (100 * s.inUse) / Math.max(1, s.size))}%`;
    const waiting = s.waiting ? `, ${format.count(s.waiting)} waiting` : "";
    text(use, `${s.inUse} of ${s.size} in use${waiting}`);
    text(lag, lagOf(s));
  };
  return { node, update };
}

function lagOf(s) {
  if (s.state === "down") return `since ${format.moment(s.sinceMs)}`;
  if (s.role !== "replica") return "takes writes";
  if (s.lagBytes === null) return "lag unknown";
  if (s.lagBytes === 0) return "no lag";
  return `lag ${format.bytes(s.lagBytes)}, ${format.duration(s.lagUs ?? 0)}`;
}

function partition() {
  const name = el("strong");
  const share = el("span");
  const size = el("span", { class: "size" });
  const node = el("li", { class: "partition" }, name, share, size);
  const update = (p) => {
    node.style.flexGrow = Math.max(1, p.weight);
    text(name, p.name);
    text(share, `weight ${p.weight}`);
    text(size, p.bytes === null ? "size unknown" : format.bytes(p.bytes));
    const rows = p.rows === null ? "" : `, about ${format.count(p.rows)} rows`;
    attribute(node, "title", `partition ${p.name}: ${format.percent(p.share)} of the hash slots${rows}`);
  };
  return { node, update };
}

function whole() {
  const size = el("span", { class: "size" });
  const node = el("li", { class: "partition" }, el("strong", null, "all rows"), size);
  const update = (shard) => text(size, shard.bytes === null ? "size unknown" : format.bytes(shard.bytes));
  return { node, update };
}

function sizesNote({ databases, time }) {
  const trouble = databases.map((d) => d.sizesError).find(Boolean);
  const asked = databases.map((d) => d.sizesAtMs).filter(Boolean);
  if (asked.length === 0) return trouble ? `Sizes are not known: ${trouble}` : "Sizes are being asked for.";
  const note = `Sizes are estimates, asked once a minute, ${format.span(time - Math.min(...asked))} ago: tables with their indexes and TOAST, divided among a shard's partitions as a sample of their rows is.`;
  return trouble ? `${note} The last try failed: ${trouble}` : note;
}

const listed = new Intl.ListFormat("en", { type: "conjunction" });

// What is to be said of the herd: a headline, and the reason if there is one.
export function verdict({ databases }) {
  const several = databases.length > 1;
  const shards = databases.flatMap((d) => d.shards.map((s) => ({ ...s, label: several ? `${d.name}/${s.name}` : s.name })));
  const of = (state) => shards.filter((s) => s.state === state);
  const said = ["down", "degraded", "unknown"].filter((state) => of(state).length > 0);
  if (said.length === 0) {
    return { state: "well", headline: shards.length === 1 ? "The shard is well" : `All ${shards.length} shards are well`, reason: "" };
  }
  const sentence = (state) => `${listed.format(of(state).map((s) => s.label))} ${of(state).length === 1 ? "is" : "are"} ${WORDS[state]}`;
  const reasons = said.flatMap(of).map((s) => (shards.length > 1 ? `${s.label}: ` : "") + s.problems.join("; "));
  const more = reasons.length > 3 ? ` And ${reasons.length - 3} more.` : "";
  return { state: said[0], headline: said.map(sentence).join(", "), reason: `${reasons.slice(0, 3).join(". ")}.${more}` };
}
