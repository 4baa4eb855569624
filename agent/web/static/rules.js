// Sends the beginning of a chosen or dropped DICOM file to the rule tester and shows the answer.
"use strict";
(() => {
  const HEAD_BYTES = 63 * 1024; // the server takes 64 KB; a header is far shorter
  const input = document.getElementById("file");
  const drop = document.getElementById("drop");
  const trial = document.getElementById("trial");
  const problem = document.getElementById("file-problem");
  if (!input) return;

  async function test(file) {
    problem.hidden = true;
    try {
      const answer = await fetch("/rules/file", {
        method: "POST",
        headers: { "Content-Type": "application/octet-stream" },
        body: await file.slice(0, HEAD_BYTES).arrayBuffer(),
      });
      if (answer.ok) {
        trial.innerHTML = await answer.text(); // escaped by the server's templates
        return;
      }
      throw new Error(answer.status === 422 ? "This is not a DICOM file, or its header is too long." : `The server answered ${answer.status}.`);
    } catch (error) {
      trial.replaceChildren();
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  input.addEventListener("change", () => input.files[0] && test(input.files[0]));
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) test(event.dataTransfer.files[0]);
  });
})();
