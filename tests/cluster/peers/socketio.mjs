// Socket.IO with its Redis adapter: two servers in processes of their own, and clients of both in this one, over WebSockets.
import { fork } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import process, { argv, exit, hrtime } from "node:process";
import { fileURLToPath } from "node:url";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";
import { io } from "socket.io-client";

const [url, role] = argv.slice(2);
const [HOPS, MESSAGES] = [5_000, 100_000];

async function serve() {
    const publishes = createClient({ url });
    const hears = publishes.duplicate();
    await Promise.all([publishes.connect(), hears.connect()]);
    const http = createServer();
    const server = new Server(http, { adapter: createAdapter(publishes, hears), transports: ["websocket"] });
    server.on("connection", (socket) => {
        const { user } = socket.handshake.query;
        socket.join(user);
        // Whoever is told is another tab of the same user.
        socket.on("tell", (text) => server.to(user).emit("told", text));
        socket.on("burst", (room, count) => {
            for (let number = 0; number < count; number++) server.to(room).emit("told", `x ${number}`);
        });
        socket.emit("ready");
    });
    http.listen(0, "127.0.0.1", () => process.send(http.address().port));
}

async function connect(port, user) {
    const socket = io(`http://127.0.0.1:${port}`, { query: { user }, transports: ["websocket"], forceNew: true });
    await new Promise((ready) => socket.on("ready", ready));
    return socket;
}

function print(name, times) {
    times.sort((a, b) => a - b);
    const [p50, p99] = [0.5, 0.99].map((part) => `${times[Math.floor(times.length * part)].toFixed(1)}us`);
    console.log(`${name.padEnd(44)} ${p50.padStart(10)} ${p99.padStart(10)}`);
}

async function rounds(count, round) {
    const times = [];
    for (let number = 0; number < count; number++) {
        const began = hrtime.bigint();
        await round();
        times.push(Number(hrtime.bigint() - began) / 1000);
    }
    return times;
}

async function tell(from, to) {
    const both = [from, to].map((socket) => new Promise((told) => socket.once("told", told)));
    from.emit("tell", "x");
    await Promise.all(both);
}

async function main() {
    const nodes = [0, 1].map(() => fork(fileURLToPath(import.meta.url), [url, "node"]));
    const [a, b] = await Promise.all(nodes.map(async (node) => (await once(node, "message"))[0]));
    const [tab, same] = [await connect(a, "alice"), await connect(a, "alice")];
    const [here, far] = [await connect(a, "bob"), await connect(b, "bob")];
    // What is compiled as it runs is compiled by then.
    await rounds(HOPS, () => tell(tab, same));
    print("a user's other tab, on the same server", await rounds(HOPS, () => tell(tab, same)));
    await rounds(HOPS, () => tell(here, far));
    print("a user's other tab, on another server", await rounds(HOPS, () => tell(here, far)));

    const carol = await connect(b, "carol");
    const began = hrtime.bigint();
    let came = 0;
    const all = new Promise((done) => carol.on("told", () => ++came === MESSAGES && done()));
    tab.emit("burst", "carol", MESSAGES);
    await all;
    const rate = MESSAGES / (Number(hrtime.bigint() - began) / 1e9);
    console.log(`${rate.toFixed(0)} messages a second to another server`);
    nodes.forEach((node) => node.kill());
    exit();
}

await (role === "node" ? serve() : main());
