// The script of page.html.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";
import * as tus from "tus-js-client";
import { run } from "./upload.mjs";

const chosen = () => document.querySelector("input").files[0];

Object.assign(window, {
  Tus,
  Uppy,
  tus,
  chosen,
  run,
  accepted: 0,
  upload: (options, how) => {
    const onChunk = (accepted) => (window.accepted = accepted);
    return run(tus, chosen(), options, { ...how, onChunk });
  },
});
