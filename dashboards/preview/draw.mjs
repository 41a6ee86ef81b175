#!/usr/bin/env node
/** Draw a dashboard as a picture, with the data of a Prometheus. See README.md. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';
import { build, preview } from 'vite';

const ROOT = dirname(fileURLToPath(import.meta.url));
const USAGE = `usage: node draw.mjs --prometheus URL --dashboard FILE.json --out FILE.png
  [--from TIME] [--to TIME]  ISO, epoch, or like now-1h (default: the dashboard's)
  [--var NAME=VALUE]...      value of a variable, or several (default: the dashboard's)
  [--step 15]                seconds between two scrapes
  [--width 1500] [--theme dark|light] [--timezone UTC] [--chromium /usr/bin/chromium]`;
const BROWSER = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** Files of the fonts, by the names in Grafana's styles. */
const FONTS = {
  'Inter-Regular': 'inter/files/inter-latin-400-normal.woff2',
  'Inter-Medium': 'inter/files/inter-latin-500-normal.woff2',
};
const MONOSPACE = 'roboto-mono/files/roboto-mono-latin-400-normal.woff2';

function readArguments() {
  const string = (fallback) => ({ type: 'string', default: fallback });
  const { values } = parseArgs({
    options: {
      prometheus: string(),
      dashboard: string(),
      out: string(),
      from: string(),
      to: string(),
      var: { type: 'string', multiple: true, default: [] },
      step: string('15'),
      width: string('1500'),
      theme: string('dark'),
      timezone: string('UTC'),
      chromium: string('/usr/bin/chromium'),
    },
  });
  for (const needed of ['prometheus', 'dashboard', 'out']) {
    if (!values[needed]) {
      throw new Error(`--${needed} is missing\n${USAGE}`);
    }
  }
  if (!['dark', 'light'].includes(values.theme)) {
    throw new Error(`--theme is dark or light, not ${values.theme}`);
  }
  return values;
}

/** Parse `NAME=VALUE` texts; return the values of each variable. */
function choices(pairs) {
  const found = {};
  for (const pair of pairs) {
    const [, name, value] = /^(\w+)=(.*)$/.exec(pair) ?? [];
    if (!name) {
      throw new Error(`not NAME=VALUE: ${pair}`);
    }
    (found[name] ??= []).push(value);
  }
  return found;
}

/** Build the page if its sources have changed. */
async function buildIfNeeded() {
  const built = join(ROOT, 'built/index.html');
  const sources = readdirSync(join(ROOT, 'src')).map((name) => `src/${name}`);
  const changed = [...sources, 'index.html', 'vite.config.ts', 'package-lock.json'];
  const age = (path) => statSync(path).mtimeMs;
  if (!existsSync(built) || changed.some((path) => age(join(ROOT, path)) > age(built))) {
    await build({ root: ROOT, logLevel: 'error' });
  }
}

/** Open the page, save the picture, and return the skipped panels and the errors. */
async function picture(page, address, settings, out) {
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => {
    const { url } = message.location();
    // The page reports a rejected query with the reason.
    if (message.type() === 'error' && !url.startsWith(`${address}/api/`)) {
      errors.push(`${message.text()} (${url})`);
    }
  });
  await page.route(`${address}/fonts/**`, (route) => {
    const file = FONTS[basename(route.request().url(), '.woff2')] ?? MONOSPACE;
    return route.fulfill({ path: join(ROOT, 'node_modules/@fontsource', file) });
  });
  // Requests to other servers are blocked.
  await page.route(
    (url) => url.origin !== address,
    (route) => route.abort(),
  );
  await page.addInitScript((given) => Object.assign(window, { settings: given }), settings);
  await page.goto(`${address}/build/`);
  const drawn = await (await page.waitForFunction(() => window.drawn)).jsonValue();
  if (drawn.fatal) {
    throw new Error(drawn.fatal);
  }
  await page.waitForFunction(() => !document.querySelector('svg:empty')); // icons come last
  await page.locator('#page').screenshot({ path: out });
  return { skipped: drawn.skipped, failed: [...drawn.failed, ...errors] };
}

async function draw(given) {
  const { width, theme, from, to } = given;
  const prometheus = given.prometheus.replace(/\/$/, '');
  const settings = {
    ...{ theme, from, to },
    dashboard: JSON.parse(readFileSync(given.dashboard, 'utf8')),
    width: Number(width),
    step: Number(given.step),
    choices: choices(given.var),
  };
  await fetch(`${prometheus}/api/v1/query?query=1`).catch(() => {
    throw new Error(`there is no Prometheus at ${prometheus}`);
  });
  await buildIfNeeded();
  const proxy = { '/api': { target: prometheus, changeOrigin: true } };
  const place = { host: '127.0.0.1', port: 0, proxy };
  const server = await preview({ root: ROOT, logLevel: 'error', preview: place });
  const browser = await chromium.launch({ executablePath: given.chromium, args: BROWSER });
  try {
    // The window has the height of the page, because a browser does not paint what is below it.
    const ends = (settings.dashboard.panels ?? []).map(
      ({ gridPos: at }) => (at?.y ?? 0) + (at?.h ?? 1),
    );
    const viewport = { width: settings.width, height: 100 + 40 * Math.max(0, ...ends) };
    const page = await browser.newPage({ viewport, timezoneId: given.timezone });
    const address = `http://127.0.0.1:${server.httpServer.address().port}`;
    return await picture(page, address, settings, given.out);
  } finally {
    await browser.close();
    await server.close();
  }
}

try {
  const { skipped, failed } = await draw(readArguments());
  skipped.forEach((panel) => console.error(`skipped: ${panel}`));
  failed.forEach((message) => console.error(`error: ${message}`));
  process.exitCode = failed.length > 0 ? 1 : 0;
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 2;
}
