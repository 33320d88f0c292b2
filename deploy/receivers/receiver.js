// A receiver for edgespool in JavaScript; needs only the package zeromq. The wire is described in PROTOCOL.md.
//
//     node receiver.js tcp://gateway:5556 messages.jsonl     (add --bind where gateways call us)
//
// With CURVE, add --secret-key FILE and --server-key FILE, or where gateways call us --secret-key FILE and
// --clients FILE. `edgespool keygen` makes such files.

const fs = require("node:fs");
const { parseArgs } = require("node:util");
const zmq = require("zeromq");

const file = { type: "string" };
const { values: said, positionals: [endpoint, path] } = parseArgs({
  allowPositionals: true,
  options: { bind: { type: "boolean" }, "secret-key": file, "server-key": file, clients: file },
});

// The first word of each line.
const keys = (path) => fs.readFileSync(path, "utf8").split("\n").map((line) => line.split(/\s/)[0]).filter(Boolean);

const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
function z85(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4)
    for (let power = 4; power >= 0; power--) text += DIGITS[Math.floor(bytes.readUInt32BE(at) / 85 ** power) % 85];
  return text;
}

// Knows who is let in: libzmq asks for each gateway that calls us.
async function answerAt(gate) {
  for await (const [version, request, , , , , key] of gate) {
    const known = key && keys(said.clients).includes(z85(key));
    await gate.send([version, request, ...(known ? ["200", "", "gateway"] : ["400", "not let in", ""]), ""]);
  }
}

async function main() {
  const options = { heartbeatInterval: 2000, heartbeatTimeout: 60000, receiveHighWaterMark: 0, sendTimeout: 0 };
  if (said["secret-key"]) {
    [options.curveSecretKey] = keys(said["secret-key"]);
    if (said.bind) {
      const gate = new zmq.Reply();
      await gate.bind("inproc://zeromq.zap.01");
      answerAt(gate).catch(leave);
      // Without an answer from the gate nobody is let in.
      Object.assign(options, { curveServer: true, zapDomain: "edgespool", zapEnforceDomain: true });
    } else {
      [options.curvePublicKey] = keys(said["secret-key"] + ".pub");
      [options.curveServerKey] = keys(said["server-key"]);
    }
  }
  // Probe and immediate together: every new connection is announced.
  const socket = said.bind ? new zmq.Router(options) : new zmq.Dealer({ ...options, probeRouter: true, immediate: true });
  const out = fs.openSync(path, "a");
  if (said.bind) await socket.bind(endpoint);
  else {
    // After these two ZeroMQ does not call again.
    const refused = () => leave(new Error(`${endpoint}: not let in; is our key among its clients, do both ends use keys?`));
    for (const event of ["handshake:error:auth", "handshake:error:protocol"]) socket.events.on(event, refused);
    socket.connect(endpoint);
  }

  // What cannot be sent at once is an answer to a lost connection; the gateway will ask again.
  const say = (frames) => socket.send(frames).catch((error) => { if (error.code !== "EAGAIN") throw error; });

  for await (const frames of socket) {
    const to = said.bind ? [frames.shift()] : [];
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

function leave(error) { console.error(error.message); process.exit(1); }

main().catch(leave);
