// Comfort only: without this script the page shows everything. Switches for runs, copy buttons, fewer tab stops.
"use strict";
(function () {
  const status = document.getElementById("status");
  const say = (text) => { status.textContent = ""; setTimeout(() => { status.textContent = text; }, 30); };

  // Each entry of the runs' legend becomes a button that shows and hides that run in all figures.
  for (const entry of document.querySelectorAll(".switches > li")) {
    const run = entry.dataset.run;
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.append(button);
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isShown));
      for (const part of document.querySelectorAll("main [data-run]")) {
        if (part.dataset.run === run) part.classList.toggle("is-off", !isShown);
      }
      say(button.textContent.trim() + (isShown ? " is shown" : " is hidden"));
    });
  }

  const select = (code) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  for (const command of document.querySelectorAll(".command")) {
    const code = command.querySelector("code");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy: " + command.firstElementChild.textContent);
    command.append(button);
    button.addEventListener("click", async () => {
      let isCopied = false;
      try {
        await navigator.clipboard.writeText(code.textContent);
        isCopied = true;
      } catch {
        select(code);
        isCopied = document.execCommand("copy");
      }
      button.textContent = isCopied ? "Copied" : "Selected: press Ctrl+C";
      say(button.textContent);
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
  }

  // A table that fits needs no scrolling, so the keyboard need not stop there.
  const boxes = document.querySelectorAll(".scroll");
  const settle = () => {
    for (const box of boxes) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
    }
  };
  settle();
  window.addEventListener("resize", settle);
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", settle);
})();
