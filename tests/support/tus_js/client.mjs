// tus-js-client in Node, driven by a test.
import fs from "node:fs";
import { PassThrough } from "node:stream";
import * as tus from "tus-js-client";
import { serve } from "./lines.mjs";
import { run } from "./upload.mjs";

await serve({
  // path: of the file. asStream: hide its size. urls: a file that remembers URLs of uploads.
  // dieAt: kill this process once so many bytes have been accepted.
  upload: async ({ path, asStream, urls, dieAt, options, ...how }) => {
    const file = fs.createReadStream(path);
    if (urls) {
      options.urlStorage = new tus.FileUrlStorage(urls);
    }
    const onChunk = (accepted) => dieAt && accepted >= dieAt && process.kill(process.pid, "SIGKILL");
    return run(tus, asStream ? file.pipe(new PassThrough()) : file, options, { ...how, onChunk });
  },
  terminate: ({ url, options }) => tus.Upload.terminate(url, options),
});
