// The npm package ws.
"use strict";

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });
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
