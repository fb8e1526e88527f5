/* A symbol of unfold is a word in a font of pictures: "memory Weather stations". Screen readers skip the word. */
"use strict";
(() => {
  const hide = () => {
    for (const symbol of document.querySelectorAll(".material-symbols-outlined:not([aria-hidden])")) {
      const word = symbol.textContent.trim();
      if (!word) continue;
      const control = symbol.closest("a, button");
      const isAll = control && control.textContent.trim() === word;
      if (isAll && !control.title && !control.ariaLabel) control.ariaLabel = word.replaceAll("_", " ");
      symbol.setAttribute("aria-hidden", "true");
    }
  };
  new MutationObserver(hide).observe(document.documentElement, { childList: true, subtree: true });
})();
