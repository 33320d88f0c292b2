// MQTT.js behind a line protocol: a JSON object a line in, {id, ok | error} out, and {client, message} as it comes.

const readline = require("node:readline");
const mqtt = require("mqtt");

const clients = new Map();
const tell = (told) => process.stdout.write(JSON.stringify(told) + "\n");
const text = (bytes) => (bytes === undefined ? null : Buffer.from(bytes).toString("base64"));

const verbs = {
  async connect({ client: key, url, options, will }) {
    if (will) options.will = { ...will, payload: Buffer.from(will.payload, "base64") };
    const client = mqtt.connect(url, { ...options, reconnectPeriod: 0 });
    clients.set(key, client);
    client.on("message", (topic, payload, { qos, retain, properties = {} }) =>
      tell({
        client: key, topic, payload: text(payload), qos, retain,
        expiry_s: properties.messageExpiryInterval ?? null,
        response_topic: properties.responseTopic ?? null,
        correlation_data: text(properties.correlationData),
      }));
    return new Promise((done, fail) => {
      client.once("connect", ({ sessionPresent }) => done(sessionPresent));
      client.once("error", fail);
    });
  },
  subscribe: ({ client, filter, qos }) => clients.get(client).subscribeAsync(filter, { qos }),
  async publish({ client, topic, payload, options }) {
    const properties = options.properties;
    if (properties?.correlationData) properties.correlationData = Buffer.from(properties.correlationData, "base64");
    await clients.get(client).publishAsync(topic, Buffer.from(payload, "base64"), options);
  },
  async drop({ client }) { clients.get(client).stream.destroy(); },
  leave: ({ client }) => clients.get(client).endAsync(),
};

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const asked = JSON.parse(line);
  try {
    tell({ id: asked.id, ok: (await verbs[asked.verb](asked)) ?? null });
  } catch (error) {
    tell({ id: asked.id, error: String(error) });
  }
}).on("close", () => process.exit(0));
