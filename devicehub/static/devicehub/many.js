"use strict";
/* The parameters of the chosen command alone; without a script those of all commands are there. */
(() => {
  const choices = [...document.querySelectorAll('input[type=radio][name="command"]')];
  const show = () => {
    for (const choice of choices) {
      for (const input of document.querySelectorAll(`[name^="${CSS.escape(choice.value)}."]`)) {
        const row = input.closest(".field");
        if (row) row.hidden = !choice.checked;
      }
    }
  };
  for (const choice of choices) choice.addEventListener("change", show);
  show();
})();

/* The page of an act whose answer is a file: the browser saves the file and stays, so the page says how far it is. */
(() => {
  const note = document.querySelector("[data-file-note]");
  if (!note) return;
  const form = note.closest("form");
  const text = note.querySelector("[data-progress-text]");
  const bar = note.querySelector("progress");
  const address = note.dataset.progress;

  const show = (found) => {
    text.textContent = found.text;
    if (bar) {
      bar.max = Math.max(found.total, 1);
      bar.value = found.done;
    }
  };

  const watch = async () => {
    try {
      const answer = await fetch(address, { headers: { Accept: "application/json" } });
      if (!answer.ok) return;
      const found = await answer.json();
      show(found);
      if (found.over) return;
    } catch {
      /* The next look may succeed. */
    }
    setTimeout(watch, 1000);
  };

  if (form) {
    form.addEventListener("submit", () => {
      note.hidden = false;
      // The values must be sent before the fields are locked.
      setTimeout(() => {
        for (const button of form.querySelectorAll("button[type=submit]")) button.disabled = true;
      }, 0);
      if (address) setTimeout(watch, 700);
    });
  } else {
    note.hidden = false;
    if (address) watch();
  }
})();
