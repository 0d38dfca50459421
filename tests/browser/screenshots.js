// Takes the pictures of examples/dashboard from a running demo that has been under load for a while.
// Arguments: URL, directory, name, width, height, "light" or "dark", milliseconds to wait.

const path = require("node:path");
const { chromium } = require("playwright-core");

const [url, out, name, width, height, colorScheme, wait] = process.argv.slice(2);

(async () => {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
  const page = await browser.newPage({ viewport: { width: Number(width), height: Number(height) }, colorScheme });
  await page.goto(url);
  await page.waitForSelector("#throughput .stroke.series-0");
  await page.waitForFunction(() => !document.querySelector("#sizes").textContent.startsWith("Sizes are being"));
  console.log("seen");
  await page.waitForTimeout(Number(wait));
  await page.screenshot({ path: path.join(out, `${name}.png`) });
  await browser.close();
})();
