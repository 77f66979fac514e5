// Drives the examples `echo` and `push`, and the echo server of `tests/conformance` over TLS, with a real browser.
// Started by `run`: node test.mjs FOLDER-OF-THE-EXAMPLES

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const EXAMPLES = process.argv[2];
const PORT = 8000;
const SITE = `http://localhost:${PORT}/`;
const ENDPOINT = `ws://localhost:${PORT}/websocket`;

// Where its certificate is left, which the browser takes unseen.
const TLS_SERVER = "conformance-echo";
const TLS_FOLDER = process.cwd();

const START_SECONDS = 15;
const STOP_SECONDS = 5;
const WAIT_SECONDS = 10;
const CASE_SECONDS = 30;
const ALL_SECONDS = 180;

// ---------------------------------------------------------------------------------------------------------------------
// Waiting, never without a deadline.

async function within(seconds, what, promise) {
  const timer = new AbortController();
  const late = sleep(seconds * 1000, null, { signal: timer.signal }).then(
    () => { throw new Error(`${what}: nothing within ${seconds} s`); },
    () => {},
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}

async function until(seconds, what, condition) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s`);
    await sleep(20);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// An example as a process of its own.

const running = new Set();
process.on("exit", () => running.forEach((server) => server.process.kill("SIGKILL")));

function accepts() {
  return new Promise((resolve) => {
    const socket = net.connect(PORT, "127.0.0.1");
    socket.on("connect", () => resolve(true));
    socket.on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });
}

async function start(name) {
  assert(!(await accepts()), `port ${PORT} is taken by another program`);
  const child = spawn(path.join(EXAMPLES, name), name === TLS_SERVER ? [PORT, TLS_FOLDER] : [], {
    env: { ...process.env, RUST_LOG: "info" },
    // The server for TLS runs until its input ends.
    stdio: ["pipe", "pipe", "pipe"],
  });
  const server = { name, process: child, output: "", log: "", exit: null };
  running.add(server);
  child.stdout.setEncoding("utf8").on("data", (text) => (server.output += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (server.log += text));
  server.ended = new Promise((resolve) => {
    const end = (how) => {
      running.delete(server);
      resolve((server.exit ??= how));
    };
    child.on("error", (error) => end(error.message));
    // Not "exit": the log has to be complete.
    child.on("close", (code, signal) => end(code ?? signal));
  });
  await until(START_SECONDS, `${name} listens`, async () => {
    if (server.exit !== null) throw new Error(`${name} ended with ${server.exit}\n${server.log}`);
    return accepts();
  });
  return server;
}

async function stop(server) {
  server.process.kill("SIGINT");
  return within(STOP_SECONDS, `${server.name} ends after SIGINT`, server.ended);
}

// ---------------------------------------------------------------------------------------------------------------------
// The browser.

// Runs in every page, before its own scripts.
function helpers() {
  // The first event of one of these types.
  window.nextEvent = (socket, ...types) =>
    new Promise((resolve) => types.forEach((type) => socket.addEventListener(type, resolve, { once: true })));

  window.expectEvent = async (socket, type) => {
    const event = await nextEvent(socket, type, "close");
    if (event.type !== type) throw new Error(`expected ${type}, got close ${event.code} ${event.reason}`);
    return event;
  };

  window.openSocket = async (endpoint) => {
    const socket = new WebSocket(endpoint);
    socket.binaryType = "arraybuffer";
    await expectEvent(socket, "open");
    return socket;
  };

  window.nextMessage = async (socket) => (await expectEvent(socket, "message")).data;

  window.endOf = async (socket) => {
    const { code, reason, wasClean } = await nextEvent(socket, "close");
    return { code, reason, wasClean };
  };
}

async function newContext(browser) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  await context.addInitScript(helpers);
  context.console = [];
  context.on("console", (message) => context.console.push(message.text()));
  return context;
}

async function newPage(context, url) {
  const page = await context.newPage();
  await page.goto(url);
  return page;
}

const messages = (page) => page.locator("#messages li").allTextContents();

async function shows(page, text) {
  await until(WAIT_SECONDS, `a message ${text}`, async () => (await messages(page)).some((one) => one.match(text)));
}

async function hasStatus(page, status) {
  await until(WAIT_SECONDS, `status "${status}"`, async () => (await page.textContent("#status")) === status);
}

// ---------------------------------------------------------------------------------------------------------------------
// The cases. Each gets a context, which is a visitor with cookies of its own, and the running server.

async function echoesText({ context }) {
  // Any page of the same origin may connect, also the one that says 404.
  const page = await newPage(context, SITE);
  const answers = await page.evaluate(async (endpoint) => {
    const socket = await openSocket(endpoint);
    const answers = [];
    for (const text of ["hello", "", "häh? ⚙ 🦀"]) {
      socket.send(text);
      answers.push(await nextMessage(socket));
    }
    return answers;
  }, ENDPOINT);
  assert.deepEqual(answers, ["hello", "", "häh? ⚙ 🦀"]);
}

async function echoesBinary({ context }) {
  const page = await newPage(context, SITE);
  const answer = await page.evaluate(async (endpoint) => {
    const socket = await openSocket(endpoint);
    socket.send(new Uint8Array([0, 1, 127, 128, 255]).buffer);
    const data = await nextMessage(socket);
    return { type: data.constructor.name, bytes: [...new Uint8Array(data)] };
  }, ENDPOINT);
  assert.deepEqual(answer, { type: "ArrayBuffer", bytes: [0, 1, 127, 128, 255] });
}

async function echoesOneMebibyte({ context }) {
  const page = await newPage(context, SITE);
  const answer = await page.evaluate(async (endpoint) => {
    const socket = await openSocket(endpoint);
    const text = "0123456789abcdef".repeat(1 << 16);
    socket.send(text);
    const sameText = await nextMessage(socket) === text;

    const bytes = new Uint8Array(1 << 20).map((_, index) => (index * 31) >> 3);
    socket.send(bytes.buffer);
    const back = new Uint8Array(await nextMessage(socket));
    const sameBytes = back.length === bytes.length && back.every((byte, index) => byte === bytes[index]);
    return { sameText, sameBytes };
  }, ENDPOINT);
  assert.deepEqual(answer, { sameText: true, sameBytes: true });
}

async function compresses({ context }) {
  const page = await newPage(context, SITE);
  const seen = await page.evaluate(async (endpoint) => {
    const socket = await openSocket(endpoint);
    const same = [];
    // The first and the last go out as they are, the others are compressed.
    for (const length of [10, 2000, 100_000, 5000, 20]) {
      const text = Array.from({ length: length / 10 }, (_, index) => `line ${index * index % 1000}\n`).join("");
      socket.send(text);
      same.push(await nextMessage(socket) === text);
    }
    return { extensions: socket.extensions, same };
  }, ENDPOINT);
  assert.deepEqual(seen, {
    extensions: "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    same: [true, true, true, true, true],
  });
}

async function answersClose({ context, server }) {
  const page = await newPage(context, SITE);
  const close = await page.evaluate(async (endpoint) => {
    const socket = await openSocket(endpoint);
    socket.close(1000, "bye");
    return endOf(socket);
  }, ENDPOINT);
  assert.deepEqual(close, { code: 1000, reason: "bye", wasClean: true });
  await until(WAIT_SECONDS, "the log has the reason", () => server.log.includes('code=1000 reason="bye" by=client'));
}

async function refusesOtherOrigins({ context }) {
  const elsewhere = http.createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>elsewhere</title>");
  });
  await new Promise((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
  try {
    const origin = `http://localhost:${elsewhere.address().port}`;
    const page = await newPage(context, `${origin}/`);
    const seen = await page.evaluate(async (endpoint) => {
      const { type, code, wasClean } = await nextEvent(new WebSocket(endpoint), "open", "close");
      return { type, code, wasClean };
    }, ENDPOINT);
    assert.deepEqual(seen, { type: "close", code: 1006, wasClean: false });
    await until(WAIT_SECONDS, "the console names the status", () =>
      context.console.some((line) => line.includes("Unexpected response code: 403")));

    assert.equal(await handshakeStatus(origin), 403);
    assert.equal(await handshakeStatus(`http://localhost:${PORT}`), 101);
  } finally {
    elsewhere.closeAllConnections();
    elsewhere.close();
  }
}

function handshakeStatus(origin) {
  return new Promise((resolve, reject) => {
    const request = http.get(`http://localhost:${PORT}/websocket`, {
      agent: false,
      headers: {
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        Origin: origin,
      },
    });
    const done = ({ statusCode }) => {
      resolve(statusCode);
      request.destroy();
    };
    request.on("response", done);
    request.on("upgrade", done);
    request.on("error", reject);
  });
}

async function saysGoodbye({ context, server }) {
  const page = await newPage(context, SITE);
  await page.evaluate(async (endpoint) => {
    const socket = await openSocket(endpoint);
    window.end = endOf(socket);
  }, ENDPOINT);
  const exit = await stop(server);
  const close = await page.evaluate(() => window.end);
  assert.deepEqual(close, { code: 1001, reason: "the server shuts down", wasClean: true });
  assert.equal(exit, 0);
}

async function logsConnections({ server }) {
  const lines = server.log.split("\n");
  const connected = lines.filter((line) => line.includes("websocket connected connection="));
  const closed = lines.filter((line) => line.includes("websocket closed connection="));
  assert(connected.length > 0, "no line says that a client connected");
  assert.equal(closed.length, connected.length, "as many were closed as were connected");
  assert(lines.some((line) => /Client .* connected to the echo server/.test(line)), "the handler's own line");
  assert(closed.some((line) => line.includes("code=1001")), "the close at shutdown");
}

async function pushes({ context }) {
  const page = await newPage(context, SITE);
  await hasStatus(page, "open");
  await page.click("#hello");
  await shows(page, /^hey there$/);
  await shows(page, /^up for \d+ s$/);
}

async function pushesToOneSession({ context, browser }) {
  const strangers = await newContext(browser);
  try {
    const one = await newPage(context, SITE);
    const two = await newPage(context, SITE);
    const stranger = await newPage(strangers, SITE);
    for (const page of [one, two, stranger]) await hasStatus(page, "open");

    await one.click("#hello");
    await shows(one, /^hey there$/);
    await shows(two, /^hey there$/);

    // What is pushed to everyone after it has arrived: so would have been the greeting.
    const before = (await messages(stranger)).length;
    await until(WAIT_SECONDS, "another push", async () => (await messages(stranger)).length >= before + 2);
    const seen = await messages(stranger);
    assert(seen.every((message) => message !== "hey there"), `the stranger saw ${seen}`);
  } finally {
    await strangers.close();
  }
}

async function showsShutdown({ context, server }) {
  const page = await newPage(context, SITE);
  await hasStatus(page, "open");
  const exit = await stop(server);
  await hasStatus(page, "closed 1001");
  assert.equal(exit, 0);
}

async function comesBackOverTls({ context, server }) {
  const listens = /^.*:\d+\n.*:(\d+)\n/;
  await until(WAIT_SECONDS, "the address for TLS", () => listens.test(server.output));
  const [, port] = listens.exec(server.output);
  const page = await newPage(context, `https://localhost:${port}/nothing`);
  const seen = await page.evaluate(async () => {
    const seen = [];
    for (let round = 0; round < 10; round += 1) {
      const socket = await openSocket(`wss://${location.host}/`);
      const text = `${round}: ${"0123456789abcdef".repeat(1 << 16)}`;
      socket.send(text);
      const isSame = await nextMessage(socket) === text;
      socket.send("close me");
      seen.push({ isSame, ...await endOf(socket) });
    }
    return seen;
  });
  assert.deepEqual(seen, Array(10).fill({ isSame: true, code: 4001, reason: "asked", wasClean: true }));
}

const PLAN = {
  echo: [
    ["text comes back", echoesText],
    ["binary comes back", echoesBinary],
    ["1 MiB comes back", echoesOneMebibyte],
    ["messages are compressed both ways", compresses],
    ["close(1000, \"bye\") is answered", answersClose],
    ["a page of another origin is refused", refusesOtherOrigins],
    ["SIGINT closes with 1001, exit code 0", saysGoodbye],
    ["the log says who connected and left", logsConnections],
  ],
  push: [
    ["a click and the clock push to the page", pushes],
    ["both tabs of a session get it, a stranger does not", pushesToOneSession],
    ["SIGINT shows in the page, exit code 0", showsShutdown],
  ],
  [TLS_SERVER]: [
    ["over TLS a page gets its message and 4001, and comes back", comesBackOverTls],
  ],
};

async function runCase(name, test, browser, server) {
  const context = await newContext(browser);
  const began = Date.now();
  try {
    await within(CASE_SECONDS, name, test({ browser, context, server }));
    console.log(`ok    ${name} (${Date.now() - began} ms)`);
    return true;
  } catch (error) {
    console.log(`FAIL  ${name}\n${error.stack}`);
    console.log(`--- console of the pages\n${context.console.join("\n")}`);
    console.log(`--- log of the server\n${server.log.split("\n").slice(-30).join("\n")}`);
    return false;
  } finally {
    await context.close();
  }
}

async function runAll() {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  let failed = 0;
  try {
    for (const [example, cases] of Object.entries(PLAN)) {
      const server = await start(example);
      try {
        for (const [name, test] of cases) {
          if (!(await runCase(`${example}: ${name}`, test, browser, server))) failed += 1;
        }
      } finally {
        if (running.has(server)) await stop(server);
      }
    }
  } finally {
    await browser.close();
  }
  return failed;
}

try {
  const failed = await within(ALL_SECONDS, "the whole test", runAll());
  console.log(failed === 0 ? "all passed" : `${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
} catch (error) {
  console.log(`FAIL  ${error.stack}`);
  process.exit(1);
}
