// The npm package ws. With `deflate` before the port it compresses, at the level of the others.
"use strict";

const { WebSocketServer } = require("ws");

const [port, deflate] = [process.argv.at(-1), process.argv.includes("deflate")];
const perMessageDeflate = deflate && { threshold: 1024, zlibDeflateOptions: { level: 1 } };
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate });
const receivers = new Set();

server.on("connection", (socket, request) => {
  const fan = request.url === "/fan";
  if (fan) {
    receivers.add(socket);
    socket.on("close", () => receivers.delete(socket));
  }
  socket.on("error", () => {});
  socket.on("message", (data, binary) => {
    if (!fan) return socket.send(data, { binary });
    for (const receiver of receivers) receiver.send(data, { binary });
  });
});
