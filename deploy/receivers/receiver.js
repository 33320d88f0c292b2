// A receiver for edgespool in JavaScript; needs only the package zeromq. The wire is described in PROTOCOL.md.
//
//     node receiver.js tcp://gateway:5556 messages.jsonl     (add --bind where gateways call us)

const fs = require("node:fs");
const zmq = require("zeromq");

const words = process.argv.slice(2);
const bind = words.includes("--bind");
const [endpoint, path] = words.filter((word) => word !== "--bind");

async function main() {
  const options = { heartbeatInterval: 2000, receiveHighWaterMark: 0, sendTimeout: 0 };
  // Probe and immediate together: every new connection is announced.
  const socket = bind ? new zmq.Router(options) : new zmq.Dealer({ ...options, probeRouter: true, immediate: true });
  const out = fs.openSync(path, "a");
  if (bind) await socket.bind(endpoint);
  else socket.connect(endpoint);

  // What cannot be sent at once is an answer to a lost connection; the gateway will ask again.
  const say = (frames) => socket.send(frames).catch((error) => { if (error.code !== "EAGAIN") throw error; });

  for await (const frames of socket) {
    const to = bind ? [frames.shift()] : [];
    const word = frames[0].toString();
    if (word === "WHO") {
      await say([...to, "HELLO", JSON.stringify({ version: 1, window: 10000, name: "receiver.js" })]);
    } else if (word === "BATCH") {
      const messages = JSON.parse(frames[2].toString());
      const lines = messages.map((message, n) => JSON.stringify({ ...message, payload: frames[3 + n].toString() }));
      fs.writeSync(out, lines.join("\n") + "\n");
      fs.fsyncSync(out); // answered means safe
      await say([...to, "ACK", frames[1]]);
    } else if (word === "SORRY") {
      throw new Error(`${endpoint}: ${frames[1]}`);
    }
  }
}

main().catch((error) => { console.error(error.message); process.exit(1); });
