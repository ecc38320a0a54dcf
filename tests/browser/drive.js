// Opens the page in Chromium, does what a user would do, and prints what the page shows.
//
//   node drive.js DIRECTORY PORT   serves the page's directory on 127.0.0.1:PORT
//
// Environment:
//   OUTRIDER_SERVER, OUTRIDER_API_KEY, OUTRIDER_PROJECT   filled into the page's form
//   BROWSER_TOOLS                                         the directory of the npm packages
//   CHROMIUM                                              the browser's program
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { BROWSER_TOOLS, CHROMIUM } = process.env;
const { chromium } = require(require.resolve("playwright-core", { paths: [BROWSER_TOOLS] }));

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const TYPES = { ".html": "text/html", ".js": "text/javascript" };

function serve(directory, port) {
  const server = http.createServer((request, answer) => {
    const name = path.basename(request.url) || "index.html";
    if (!fs.existsSync(path.join(directory, name))) return answer.writeHead(404).end();
    answer.setHeader("content-type", TYPES[path.extname(name)] ?? "application/octet-stream");
    answer.end(fs.readFileSync(path.join(directory, name)));
  });
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

// Presses a button and returns the first line of its output.
async function press(page, name) {
  await page.locator(`button[name=${name}]`).click();
  return line(page, name, /^.+\n/);
}

// Returns the first match of a pattern in an output.
async function line(page, name, form) {
  const output = page.locator(`output#${name}`);
  await output.filter({ hasText: form }).waitFor();
  return (await output.textContent()).match(form)[0].trim();
}

async function main() {
  const [directory, port] = process.argv.slice(2);
  const server = await serve(directory, Number(port));
  const profile = fs.mkdtempSync(path.join(directory, "profile-"));
  const options = { executablePath: CHROMIUM, args: FLAGS };
  const browser = await chromium.launchPersistentContext(profile, options);
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(`http://127.0.0.1:${port}/`);
    const { OUTRIDER_SERVER, OUTRIDER_API_KEY, OUTRIDER_PROJECT } = process.env;
    const form = { server: OUTRIDER_SERVER, key: OUTRIDER_API_KEY, project: OUTRIDER_PROJECT };
    for (const [name, value] of Object.entries(form)) {
      await page.locator(`input[name=${name}]`).fill(value);
    }
    const tail = await press(page, "tail");
    console.log(tail);
    console.log(await press(page, "publish"));
    if (tail === "following") console.log(await line(page, "tail", /event .+/));
  } finally {
    await browser.close();
    server.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
