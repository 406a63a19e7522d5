// kinto.js clients, driven by a test: a command on each line of stdin, its result on a line of stdout.
import "fake-indexeddb/auto";
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(import.meta.url);
const Kinto = require("kinto").default;
const KintoClient = require("kinto-http/dist/kinto-http.js");

const [, , remote, bucket, collection, authorization] = process.argv;
const clients = {};
const http = new KintoClient(remote, { headers: { Authorization: authorization } })
  .bucket(bucket)
  .collection(collection);

function open(name) {
  clients[name] ??= new Kinto({
    remote,
    bucket,
    adapterOptions: { dbName: name },
    headers: { Authorization: authorization },
  }).collection(collection, { idSchema: { generate: () => crypto.randomUUID(), validate: () => true } });
  return clients[name];
}

const commands = {
  sync: async (records, strategy) => {
    const result = await records.sync({ strategy });
    return { ok: result.ok, errors: result.errors, conflicts: result.conflicts.length };
  },
  resolve: async (records, side) => {
    const { conflicts } = await records.sync({ strategy: "manual" });
    for (const conflict of conflicts) {
      const chosen = conflict[side] ?? { id: conflict.remote.id, _status: "deleted" };
      await records.resolve(conflict, chosen);
    }
    const result = await records.sync({ strategy: "manual" });
    return { ok: result.ok, errors: result.errors, conflicts: result.conflicts.length };
  },
  create: async (records, data) => (await records.create(data, { useRecordId: true })).data,
  update: async (records, data) => {
    const { data: before } = await records.get(data.id);
    return (await records.update({ ...before, ...data })).data;
  },
  remove: async (records, id) => (await records.delete(id)).data,
  // kinto-http.js, which asks the server at once.
  attach: async (_, { record, uri, options }) => http.addAttachment(uri, record, options),
  detach: async (_, id) => http.removeAttachment(id),
  put: async (_, { record, options }) => http.updateRecord(record, options),
  list: async (records) => (await records.list()).data,
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { client, command, argument } = JSON.parse(line);
  let answer;
  try {
    answer = { result: await commands[command](open(client), argument) };
  } catch (error) {
    answer = { error: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(answer));
}
