// One upload with tus-js-client, in Node as in a browser.

// Return what became of the upload: its URL, all requests that were answered, and the error, if it
// failed. Each request is [method, status, Upload-Offset].
//
// stopAt: abort, as a user would, once this many bytes have been accepted.
// resume: go on with an upload that the URL storage knows.
export async function run(tus, file, options, { stopAt, resume, onChunk } = {}) {
  const requests = [];
  let upload;
  const outcome = await new Promise(async (resolve) => {
    upload = new tus.Upload(file, {
      ...options,
      onAfterResponse: (request, response) => {
        const offset = request.getHeader("Upload-Offset") ?? null;
        requests.push([request.getMethod(), response.getStatus(), offset]);
      },
      onChunkComplete: async (_, accepted, total) => {
        onChunk?.(accepted, total);
        if (stopAt && accepted >= stopAt) {
          await upload.abort();
          resolve({ stopped: accepted });
        }
      },
      onSuccess: ({ lastResponse }) => {
        const headers = ["Content-Location", "ETag", "Upload-Expires", "Tus-Resumable"];
        resolve({
          body: lastResponse.getBody(),
          headers: Object.fromEntries(headers.map((name) => [name, lastResponse.getHeader(name) ?? null])),
        });
      },
      onError: (error) => {
        const response = error.originalResponse;
        resolve({ error: error.message, status: response?.getStatus(), body: response?.getBody() });
      },
    });
    if (resume) {
      const [previous] = await upload.findPreviousUploads();
      upload.resumeFromPreviousUpload(previous);
    }
    upload.start();
  });
  return { ...outcome, url: upload.url, requests };
}
