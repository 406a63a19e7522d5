// A page in Chromium, driven by a test.
import http from "node:http";
import fs from "node:fs";
import { buildSync } from "esbuild";
import { chromium } from "playwright-core";
import { serve } from "./lines.mjs";

buildSync({ entryPoints: ["page.mjs"], bundle: true, outfile: "page.js", logLevel: "error" });

const types = { "/page.html": "text/html", "/page.js": "text/javascript" };
const site = http.createServer(({ url }, response) => {
  response.writeHead(types[url] ? 200 : 404, { "Content-Type": types[url] ?? "text/plain" });
  response.end(types[url] && fs.readFileSync(`.${url}`));
});
await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${site.address().port}/page.html`;

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
let context, page;

await serve({
  // Show the page to a user who has not visited it before.
  visit: async () => {
    await context?.close();
    context = await browser.newContext();
    page = await context.newPage();
    await page.goto(address);
  },
  reload: () => page.reload(),
  offline: ({ value }) => context.setOffline(value),
  // Run a module that imports packages, and return the first line that it logs.
  run: async ({ code }) => {
    const stdin = { contents: code, resolveDir: "." };
    const { outputFiles } = buildSync({ stdin, bundle: true, format: "esm", write: false });
    const logged = page.waitForEvent("console", { predicate: (each) => each.type() === "log" });
    await page.addScriptTag({ type: "module", content: outputFiles[0].text });
    return (await logged).text();
  },
  choose: ({ path }) => page.setInputFiles("input", path),
  // Return the value of an expression, which may be a promise.
  evaluate: ({ code }) => page.evaluate(code),
  // Evaluate an expression, and return at once.
  start: ({ code }) => page.evaluate(`void (${code})`),
  until: ({ code }) => page.waitForFunction(code, undefined, { polling: 20 }).then(() => null),
});

await browser.close();
process.exit();
