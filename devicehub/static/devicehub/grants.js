// The forms of grants and groups: suggestions, the fields of the chosen subject, a live preview, members to add.
(() => {
  "use strict";
  const PAUSE = 250; // Milliseconds after the last key.

  const later = (run) => {
    let timer;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(run, PAUSE);
    };
  };

  const suggest = (input) => {
    const list = document.getElementById(input.getAttribute("list"));
    let asked = 0;
    const fill = later(async () => {
      const number = ++asked;
      const url = new URL(input.dataset.suggest, location.href);
      url.searchParams.set("q", input.value);
      const answer = await fetch(url, { headers: { Accept: "application/json" } }).catch(() => null);
      if (!answer || !answer.ok || number !== asked) return;
      const { results } = await answer.json();
      list.replaceChildren(
        ...results.map(({ value, label }) => {
          const option = document.createElement("option");
          option.value = value;
          option.label = label;
          return option;
        }),
      );
    });
    input.addEventListener("input", fill);
    input.addEventListener("focus", fill);
  };

  // Show the fields of the chosen kind alone. Without a script all of them are there.
  const choose = (form, name, fields) => {
    const chosen = () => form.querySelector(`[name="${name}"]:checked`)?.value;
    const rows = Object.entries(fields).flatMap(([kind, names]) =>
      names.map((field) => [kind, form.querySelector(`.field-${field}`)?.closest(".form-row")]),
    );
    const show = () => rows.forEach(([kind, row]) => row && (row.hidden = kind !== chosen()));
    form.addEventListener("change", (event) => event.target.name === name && show());
    show();
  };

  const preview = (box) => {
    const form = box.closest("form");
    const place = document.createElement("div");
    let asked = 0;
    const refresh = later(async () => {
      const number = ++asked;
      const answer = await fetch(new URL(box.dataset.preview, location.href), {
        method: "POST",
        body: new FormData(form),
        headers: { "X-Requested-With": "fetch" },
      }).catch(() => null);
      if (!answer || !answer.ok || number !== asked) return;
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      place.replaceChildren(...found.body.childNodes);
      box.replaceChildren(place);
    });
    form.addEventListener("input", refresh);
    form.addEventListener("change", refresh);
    // An empty form would only list what is missing before anything is typed.
    if ([...form.querySelectorAll("input[type=text], textarea")].some(({ value }) => value.trim())) refresh();
  };

  // A chosen device becomes one more line of the members.
  const collect = (input) => {
    const lines = document.getElementById(input.dataset.into);
    const add = () => {
      const key = input.value.trim();
      if (!key) return;
      const all = lines.value.split("\n").filter((line) => line.trim());
      lines.value = [...new Set([...all, key])].join("\n") + "\n";
      input.value = "";
      lines.dispatchEvent(new Event("input", { bubbles: true }));
    };
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      add();
    });
    input.addEventListener("change", add);
  };

  const start = () => {
    document.querySelectorAll("[data-suggest]").forEach(suggest);
    document.querySelectorAll("[data-into]").forEach(collect);
    document.querySelectorAll("[data-preview]").forEach(preview);
    document.querySelectorAll("form").forEach((form) => {
      if (form.querySelector('[name="kind"]')) choose(form, "kind", { type: ["type"], group: ["group"], device: ["device"], account: ["account"] });
      if (form.querySelector('[name="how"]')) choose(form, "how", { chosen: ["members", "add_member"], filter: ["types", "sites", "tags"] });
    });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
