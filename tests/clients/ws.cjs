// The client `ws` against the echo server, whose URL is the argument.
"use strict";

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const WebSocket = require("ws");

const url = process.argv[2];
const TEXT = "Grüße, 世界 🦀";
// The server is at no IPv6 address, which some versions of Node.js would try alone.
const HERE = { family: 4 };
const PLAIN = { perMessageDeflate: false };
// What "close me" gives.
const ASKED = { code: 4001, reason: "asked" };
// Nothing that works takes so long, in milliseconds.
const DEADLINE = 10_000;

// 251 is prime: a block that is lost, doubled or in the wrong place changes the bytes behind it.
const payload = (size) => Buffer.alloc(size, Uint8Array.from({ length: 251 }, (_, index) => index));

// An open client that keeps what arrives until it is asked for.
async function open(protocols, options, path = "") {
  const ws = new WebSocket(url + path, protocols, { ...options, ...HERE });
  ws.on("upgrade", ({ headers }) => (ws.answer = headers["sec-websocket-extensions"]));
  const arrived = [];
  let wake = () => {};
  const keep = (event) => {
    arrived.push(event);
    wake();
  };
  ws.on("message", (data, isBinary) => keep(isBinary ? data : data.toString()));
  ws.on("close", (code, reason) => keep({ code, reason: reason.toString() }));
  ws.on("error", (error) => keep({ error: error.message }));
  ws.next = async () => {
    while (arrived.length === 0) {
      await new Promise((resolve) => (wake = resolve));
    }
    return arrived.shift();
  };
  await once(ws, "open");
  return ws;
}

async function pong(ws, sent) {
  ws.ping(sent);
  const [received] = await once(ws, "pong");
  assert.deepEqual(received, Buffer.from(sent));
}

const checks = {
  async text() {
    const ws = await open();
    for (const sent of [TEXT, ""]) {
      ws.send(sent);
      assert.equal(await ws.next(), sent);
    }
    ws.close();
  },

  async "fragments, with a ping between them"() {
    const ws = await open();
    // The cut is inside of a character.
    const whole = Buffer.from(TEXT.repeat(1000));
    ws.send(whole.subarray(0, 3), { binary: false, fin: false });
    await pong(ws, "between");
    ws.send("", { fin: false });
    ws.send(whole.subarray(3), { fin: true });
    assert.equal(await ws.next(), whole.toString());
    ws.send(payload(100), { fin: false });
    ws.send(payload(70_000), { fin: true });
    assert.deepEqual(await ws.next(), Buffer.concat([payload(100), payload(70_000)]));
    ws.close();
  },

  async ping() {
    const ws = await open();
    for (const sent of ["", "hello", payload(125)]) {
      await pong(ws, sent);
    }
    ws.close();
  },

  async "50 pipelined messages"() {
    const ws = await open();
    const sent = Array.from({ length: 50 }, (_, number) => `${number}: ${"x".repeat(number * 97)}`);
    sent.forEach((message) => ws.send(message));
    for (const message of sent) {
      assert.equal(await ws.next(), message);
    }
    ws.close();
  },

  async subprotocol() {
    for (const [offered, wanted] of [
      [[], ""],
      [["echo.v1"], "echo.v1"],
      [["other", "echo.v2"], "echo.v2"],
      [["echo.v1", "echo.v2"], "echo.v1"],
    ]) {
      const ws = await open(offered);
      assert.equal(ws.protocol, wanted);
      ws.close();
    }
  },

  async "compression, without context and with it"() {
    for (const [path, extensions] of [
      ["", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"],
      ["context", "permessage-deflate"],
    ]) {
      const ws = await open([], { perMessageDeflate: { threshold: 0 } }, path);
      assert.equal(ws.extensions, "permessage-deflate");
      assert.equal(ws.answer, extensions);
      const before = ws._socket.bytesRead;
      const sent = Array.from({ length: 50 }, (_, number) => `${number}: ${TEXT.repeat(number + 50)}`);
      sent.forEach((message) => ws.send(message));
      for (const message of sent) {
        assert.equal(await ws.next(), message);
      }
      const length = sent.reduce((sum, message) => sum + message.length, 0);
      assert.ok(ws._socket.bytesRead - before < length / 4, "little is saved");
      ws.send(payload(70_000), { fin: false });
      ws.send(payload(100), { fin: true });
      assert.deepEqual(await ws.next(), Buffer.concat([payload(70_000), payload(100)]));
      ws.close();
    }
  },

  async "close by the client"() {
    for (const [code, reason] of [[1000, ""], [4000, TEXT], [3999, "x".repeat(123)]]) {
      const ws = await open();
      const began = performance.now();
      ws.close(code, reason);
      // Those of the server's frame; the event comes when the server has ended the TCP connection, too.
      assert.deepEqual(await ws.next(), { code, reason });
      assert.ok(performance.now() - began < DEADLINE / 2, "the server ends the connection late");
    }
  },

  async "close by the client without a code"() {
    const ws = await open();
    ws.close();
    // 1005 stands for a frame without a code.
    assert.deepEqual(await ws.next(), { code: 1005, reason: "" });
  },

  async "close by the server, after what was sent before"() {
    const ws = await open();
    for (let number = 0; number < 10; number += 1) {
      ws.send(String(number));
    }
    ws.send("close me");
    for (let number = 0; number < 10; number += 1) {
      assert.equal(await ws.next(), String(number));
    }
    assert.deepEqual(await ws.next(), ASKED);
  },

  async "close by the server, 50 times"() {
    for (let round = 0; round < 50; round += 1) {
      const ws = await open();
      ws.send("close me");
      assert.deepEqual(await ws.next(), ASKED);
    }
  },

  async "close by the server, with more on the way to it"() {
    for (let round = 0; round < 10; round += 1) {
      const ws = await open([], PLAIN);
      ws.send("close me");
      const more = payload(100_000);
      for (let number = 0; number < 30; number += 1) {
        ws.send(more);
      }
      assert.deepEqual(await ws.next(), ASKED);
    }
  },

  async "close by the client, with more on the way to it"() {
    for (let round = 0; round < 10; round += 1) {
      const ws = await open([], PLAIN);
      const more = payload(100_000);
      for (let number = 0; number < 10; number += 1) {
        ws.send(more);
      }
      ws.close(4000, TEXT);
      for (let number = 0; number < 10; number += 1) {
        assert.deepEqual(await ws.next(), more);
      }
      assert.deepEqual(await ws.next(), { code: 4000, reason: TEXT });
    }
  },

  async "3 messages of 16 MiB, both ways at once"() {
    const ws = await open([], PLAIN);
    const large = randomBytes(16 << 20);
    for (let number = 0; number < 3; number += 1) {
      ws.send(large);
    }
    for (let number = 0; number < 3; number += 1) {
      assert.ok(large.equals(await ws.next()), "another message comes back");
    }
    ws.close();
  },

  async "100 at once"() {
    const one = async (number) => {
      const ws = await open();
      for (const size of [number, 70_000]) {
        ws.send(payload(size));
        assert.deepEqual(await ws.next(), payload(size));
      }
      number % 2 ? ws.send("close me") : ws.close(4000);
      assert.deepEqual(await ws.next(), number % 2 ? ASKED : { code: 4000, reason: "" });
    };
    await Promise.all(Array.from({ length: 100 }, (_, number) => one(number)));
  },

  async "a question, which the documented lines answer"() {
    const source = readFileSync(join(__dirname, "../../src/comms/ask.rs"), "utf8");
    const [, documented] = /```js\n([^]*?)```/.exec(source);
    const lines = documented.replaceAll(/^ *\/\/\/ ?/gm, "");
    const ws = await open([], {}, "asked");
    const questions = [];
    const confirm = (question) => questions.push(question) < 2;
    new Function("socket", "confirm", lines)(ws, confirm);
    for (const answer of [true, false]) {
      ws.send("ask me");
      assert.match(await ws.next(), /^rwf-question \d+\n/);
      assert.equal(await ws.next(), `answered: Ok(Text("${answer}"))`);
    }
    assert.deepEqual(questions, Array(2).fill("Delete the file?\nReally?"));
    ws.close();
  },
};

for (const size of [0, 125, 126, 65_535, 65_536, 1 << 20]) {
  checks[`binary of ${size} bytes`] = async () => {
    const ws = await open();
    ws.send(payload(size));
    assert.deepEqual(await ws.next(), payload(size));
    ws.close();
  };
}

async function main() {
  const client = `ws, ${new URL(url).protocol.slice(0, -1)}`;
  let failed = 0;
  for (const [name, check] of Object.entries(checks)) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`took more than ${DEADLINE} ms`)), DEADLINE);
    });
    try {
      await Promise.race([check(), late]);
      console.log(`ok      ${client}: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${client}: ${name}: ${error.message}`);
      console.error(error.stack);
    }
    clearTimeout(timer);
  }
  // A connection that a failed check left open would keep the program alive.
  process.exit(failed > 0 ? 1 : 0);
}

main();
