// Drives the dashboard in headless Chromium. The test that starts it owns the servers and the proxy: this script says on
// stdout what is to happen next ("do: …"), and goes on when a line comes on stdin. It ends with 0 if all held.
// Arguments: URL, directory for screenshots, address of the replica that will be stopped.

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const [url, out, replica] = process.argv.slice(2);
const PATIENCE_MS = 30_000;
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const wrong = []; // all that must not happen, as it happens
let gone = false; // whether the proxy is meant to be away

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(what) {
  console.log(`do: ${what}`);
  const { done } = await lines.next();
  if (done) throw new Error("the test has gone");
}

function check(holds, what) {
  if (!holds) throw new Error(`not so: ${what}`);
  console.log(`ok: ${what}`);
}

// A function that runs in the page, until it gives something true.
async function eventually(page, what, holds, argument) {
  await page.waitForFunction(holds, argument, { timeout: PATIENCE_MS }).catch((error) => {
    throw new Error(`never: ${what} (${error.message.split("\n")[0]})`);
  });
  console.log(`ok: ${what}`);
}

function watch(page) {
  page.on("pageerror", (error) => wrong.push(`error in the page: ${error}`));
  page.on("console", (message) => {
    const lost = gone && /Failed to load resource|ERR_/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !lost) wrong.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) wrong.push(`request to ${request.url()}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) wrong.push(`${response.status()} for ${response.url()}`);
  });
}

async function axe(page, how) {
  const { violations } = await page.evaluate(() => window.axe.run(document));
  const told = violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.any[0]?.message ?? ""}`).join("; ")}`);
  check(violations.length === 0, `axe finds nothing, ${how} ${told.join(" | ")}`);
}

async function liveAndComplete(page) {
  await eventually(page, "all shards are well", () => document.querySelector("#verdict").dataset.state === "well");
  await eventually(page, "statements a second are shown", () => {
    const value = [...document.querySelectorAll("#figures .value")][0]?.textContent ?? "";
    return /\/s$/.test(value) && Number.parseFloat(value.replaceAll("\u202f", "")) > 0;
  });
  await eventually(page, "charts are drawn", () =>
    document.querySelector("#throughput .stroke.series-0") && document.querySelectorAll("#latency .stroke").length === 2);
  await eventually(page, "each shard has a histogram", () => {
    const figures = [...document.querySelectorAll("#spread figure")];
    return figures.length === 3 && figures.every((f) => f.querySelectorAll(".bar").length > 10);
  });
  await eventually(page, "partitions have sizes", () => {
    const sizes = [...document.querySelectorAll(".partition .size")].map((node) => node.textContent);
    return sizes.length === 5 && sizes.every((text) => /^[\d.\u202f]+\u00a0[KM]?i?B$/.test(text));
  });
  await eventually(page, "top statements are listed", () => document.querySelectorAll("#statements tr").length > 3);
  await eventually(page, "clients are counted", () => /pgherd/.test(document.querySelector("#clients").textContent));
  const drawn = await page.locator(".lane").count();
  check(drawn === 3 && (await page.locator(".server").count()) === 6, "three lanes with six servers");
}

async function hostileTextStaysText(page) {
  await eventually(page, "the hostile error is shown as text", () =>
    document.querySelector("#errors").textContent.includes("<img src=x onerror="));
  await eventually(page, "the hostile application is shown as text", () =>
    document.querySelector("#clients").textContent.includes("<script>"));
  const made = await page.evaluate(() => ({ hacked: window.hacked, images: document.images.length, scripts: document.scripts.length }));
  check(made.hacked === undefined && made.images === 0 && made.scripts === 1, "nothing hostile became markup");
}

async function keyboard(page) {
  await page.keyboard.press("Tab");
  const skip = await page.evaluate(() => document.activeElement.textContent);
  check(skip === "Skip to the herd", "the first stop leads past the head");
  await page.keyboard.press("Tab");
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  check(ring === "solid", "focus can be seen");
  await page.keyboard.press("Enter");
  check((await page.evaluate(() => document.documentElement.dataset.theme)) === "light", "Enter switches the theme");
  await page.keyboard.press("Enter");
  check((await page.evaluate(() => document.documentElement.dataset.theme)) === "dark", "and again");
  await page.keyboard.press("Enter");
  await page.focus("#throughput .canvas");
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  const read = await page.locator("#throughput .readout").textContent();
  check(/^\d\d:\d\d:\d\d: all /.test(read), `arrow keys read earlier moments: ${read}`);
  await page.focus("summary");
  await page.keyboard.press("Enter");
  await page.fill("#config-filter", "max_unauthenticated");
  await eventually(page, "the configuration is filtered", () => document.querySelector("#config").rows.length === 1);
  check((await page.locator("#config").textContent()).includes("1000"), "and says what is in force");
  const seconds = await page.locator("#contact").textContent();
  await eventually(page, "the page lives on", (then) => document.querySelector("#contact").textContent !== then, seconds);
  check((await page.inputValue("#config-filter")) === "max_unauthenticated", "new figures leave what was typed alone");
  await page.keyboard.press("Escape");
}

async function replicaDownAndUp(page) {
  await ask("stop the replica");
  await eventually(page, "shard2 turns degraded", () => document.querySelector('[data-shard="shard2"]').dataset.state === "degraded");
  await eventually(page, "the headline says so", () => document.querySelector("#headline").textContent === "shard2 is degraded");
  const reason = await page.locator("#reason").textContent();
  check(reason.includes(`replica ${replica} is down`), `and why: ${reason}`);
  check((await page.title()).startsWith("▲ degraded"), "the tab says so");
  check((await page.locator(`[data-address="${replica}"]`).getAttribute("data-state")) === "down", "the replica is drawn as down");
  check((await page.locator('.lane[data-state="well"]').count()) === 2, "the other shards are well");
  await axe(page, "with an ill shard");
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: path.join(out, "ill.png") });
  await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
  await ask("start the replica");
  await eventually(page, "all are well again", () => document.querySelector("#headline").textContent === "All 3 shards are well");
}

async function proxyGoneAndBack(page) {
  gone = true;
  await ask("kill the proxy");
  await eventually(page, "the page says that there is no contact", () => {
    const alert = document.querySelector("#lost");
    return !alert.hidden && /^No contact with the proxy since \d\d:\d\d:\d\d/.test(alert.textContent);
  });
  check((await page.locator("#headline").textContent()).startsWith("Unknown since"), "and claims nothing");
  check((await page.title()).startsWith("✕ no contact"), "the tab says so");
  const seen = await page.locator("#lost").evaluate((node) => node.getBoundingClientRect().top >= 0);
  check(seen, "which is in sight though the page is scrolled down");
  await axe(page, "without contact");
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: path.join(out, "gone.png") });
  await ask("start the proxy");
  await eventually(page, "the page recovers by itself", () =>
    document.querySelector("#lost").hidden && document.querySelector("#verdict").dataset.state === "well");
  gone = false;
}

async function looks(browser, name, viewport, colorScheme) {
  const context = await browser.newContext({ viewport, colorScheme, bypassCSP: true });
  const page = await context.newPage();
  watch(page);
  await page.addInitScript({ path: require.resolve("axe-core") });
  await page.goto(url);
  await eventually(page, `${name}: figures are there`, () => document.querySelector("#throughput .stroke.series-0"));
  const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
  check(wide <= 0, `${name}: nothing is wider than the window`);
  await axe(page, name);
  await page.screenshot({ path: path.join(out, `${name}.png`), fullPage: name !== "phone" });
  await context.close();
}

async function main() {
  fs.mkdirSync(out, { recursive: true });
  const executablePath = process.env.CHROMIUM ?? BROWSERS.find((file) => fs.existsSync(file));
  if (!executablePath) throw new Error("no Chromium: scripts/prerequisites.sh installs it");
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  // The page's own policy is in force here; axe is put in by the debugger, which it does not bind.
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
  watch(page);
  await page.addInitScript({ path: require.resolve("axe-core") });
  await page.goto(url);
  await liveAndComplete(page);
  await hostileTextStaysText(page);
  await keyboard(page);
  await looks(browser, "desktop", { width: 1280, height: 900 }, "light");
  await looks(browser, "dark", { width: 1280, height: 900 }, "dark");
  await looks(browser, "phone", { width: 390, height: 844 }, "light");
  await replicaDownAndUp(page);
  await proxyGoneAndBack(page);
  await browser.close();
  check(wrong.length === 0, `no error in the console, no request elsewhere ${wrong.join(" | ")}`);
}

main().then(() => process.exit(0), (error) => {
  console.log(`failed: ${error.message} ${wrong.join(" | ")}`);
  process.exit(1);
});
