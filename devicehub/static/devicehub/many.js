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
  const { rotation, rotationProgress } = note.dataset;
  let address = form ? "" : note.dataset.progress;

  const show = (found) => {
    text.textContent = found.text;
    bar.max = Math.max(found.total, 1);
    bar.value = found.done;
    bar.hidden = found.over;
    if (form) form.querySelector("h1").textContent = found.title;
    note.classList.toggle("busy", !found.over);
    note.classList.toggle("good", found.over && found.done === found.total);
    note.classList.toggle("warn", found.over && found.done < found.total);
  };

  // The answer with the file has a cookie with its name, marked by the end of the form's nonce.
  const begun = () => {
    const mark = form.elements.nonce.value.slice(-12);
    const number = document.cookie.match(new RegExp(`(?:^|; )devicehub_file=${mark}[.][a-z]+-(\\d+)`))?.[1];
    if (!number) return;
    address = note.dataset.progress ?? rotationProgress.replace("/0/", `/${number}/`);
    if (!rotation) return;
    const link = note.querySelector("a");
    link.href = rotation.replace("/0/", `/${number}/`);
    link.textContent = "Show the rotation";
  };

  const watch = async () => {
    if (!address) begun();
    try {
      const answer = address && (await fetch(address, { headers: { Accept: "application/json" } }));
      if (answer?.ok) {
        const found = await answer.json();
        show(found);
        if (found.over && form) return;
        if (found.over) location.reload();
      }
    } catch {
      /* The next look may succeed. */
    }
    setTimeout(watch, address ? 1000 : 300);
  };

  if (form) {
    form.addEventListener("submit", () => {
      // The values must be sent before the fields go.
      setTimeout(() => {
        form.querySelector("h1").textContent = "The file is being written.";
        for (const part of form.children) part.hidden = part !== note && part.localName !== "h1";
        note.hidden = false;
        watch();
      }, 0);
    });
  } else {
    note.hidden = false;
    if (address) watch();
  }
})();
