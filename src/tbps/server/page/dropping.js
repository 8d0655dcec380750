// Input of files: dropped anywhere on the page, pasted, or chosen.

import { at, show } from "./dom.js";

const STILL = 300; // milliseconds without a drag event after which the drag counts as having left the window

export const pickPicture = () => at("picture-files").click();

/** take(files): called with the files, if `allowed()`. */
export function prepare(take, allowed) {
  let timer = 0;
  const over = (is) => {
    clearTimeout(timer);
    show(at("drop-here"), is && allowed() && !at("indexing").open);
    if (is) timer = setTimeout(() => over(false), STILL);
  };
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      over(true);
    });
  }
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    over(false);
    if (allowed()) take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (!allowed() || !event.clipboardData?.files.length) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
  at("add-picture").addEventListener("click", pickPicture);
  at("picture-files").addEventListener("change", () => {
    take(at("picture-files").files);
    at("picture-files").value = "";
  });
}

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
