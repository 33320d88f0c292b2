// A receiver for edgespool in JavaScript; needs only the package zeromq. The wire is described in PROTOCOL.md,
// packs in PACKS.md.
//
//     node receiver.js tcp://gateway:5556 messages.jsonl     (add --bind where gateways call us)
//
// With CURVE, add --secret-key FILE and --server-key FILE, or where gateways call us --secret-key FILE and
// --clients FILE. `edgespool keygen` makes such files.

const fs = require("node:fs");
const { parseArgs } = require("node:util");
const zlib = require("node:zlib");
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

// The messages of a pack, or the one that is none, each as [what is known of it, payload].
function unpacked(meta, payload) {
  const { pack } = meta.headers ?? {};
  if (!pack) return [[meta, payload]];
  const bound = { maxOutputLength: 1 << 20 };
  if (meta.content_encoding === "deflate") payload = zlib.inflateSync(payload, bound);
  if (meta.content_encoding === "zstd") payload = zlib.zstdDecompressSync(payload, bound); // Node.js 22.15
  const found = [];
  if (pack === "length_prefixed") {
    const part = () => payload.subarray(at + 4, (at += 4 + payload.readUInt32BE(at)));
    let at = 4;
    while (at < payload.length) found.push([JSON.parse(part()), part()]);
  } else {
    const text = payload.toString();
    for (const one of pack === "json" ? JSON.parse(text) : text.trimEnd().split("\n").map((line) => JSON.parse(line)))
      found.push([one, one.payload_b64 ? Buffer.from(one.payload_b64, "base64") : Buffer.from(one.payload)]);
  }
  return found.map(([{ properties, payload_b64, ...rest }, body]) => [{ ...rest, ...properties }, body]);
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
      const all = messages.flatMap((meta, n) => unpacked(meta, frames[3 + n]));
      const lines = all.map(([message, payload]) => JSON.stringify({ ...message, payload: payload.toString() }));
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
