// Keys, focus, announcements and the timer. The page is a form that works without any of it; what the server answers is
// put in place of what stands there. Text is never made into markup here: the server's page is read as a document.
"use strict";
(() => {
  const NOT_KEPT = "Not kept: the server does not answer. You are still at the same item; try again.";
  const said = document.getElementById("said");
  const keys = document.getElementById("keys");
  const TOO_SOON = 400; // milliseconds: nobody has read two answers by then, and a key or button that was hit twice comes
  let busy = false;
  let last = "";
  let began = performance.now();
  let away = 0;
  let leftAt = document.hidden ? began : null;

  const main = () => document.getElementById("main");

  const announce = (text, wrong) => {
    said.classList.toggle("wrong", Boolean(wrong));
    said.textContent = "";
    requestAnimationFrame(() => { said.textContent = text; }); // the same words twice are read twice
  };

  const startTimer = () => {
    began = performance.now();
    away = 0;
    leftAt = document.hidden ? began : null;
  };

  const seconds = () => {
    const gone = away + (leftAt === null ? 0 : performance.now() - leftAt);
    return ((performance.now() - began - gone) / 1000).toFixed(2);
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      leftAt = performance.now();
    } else if (leftAt !== null) {
      away += performance.now() - leftAt;
      leftAt = null;
    }
  });

  const place = (page, button) => {
    const pressed = button ? button.id : "";
    const was = main().dataset.showing;
    const fresh = document.adoptNode(page.getElementById("main"));
    main().replaceWith(fresh);
    document.title = page.title;
    const failed = fresh.querySelector(".failed");
    if (failed) {
      announce("");
      failed.tabIndex = -1;
      failed.focus();
      scrollTo(0, 0);
      return;
    }
    const remark = fresh.querySelector(".remark");
    const words = page.getElementById("said").textContent || (remark ? remark.textContent : "");
    if (fresh.dataset.showing === was && pressed.startsWith("look-")) {
      const button = document.getElementById(pressed);
      button.focus({ preventScroll: true });
      const name = button.firstChild.textContent.trim();
      announce(remark ? words : `${name}: ${button.getAttribute("aria-pressed") === "true" ? "on" : "off"}.`);
      return;
    }
    startTimer();
    last = button && button.name === "choice" ? button.value : "";
    document.getElementById("choices").focus({ preventScroll: true });
    scrollTo(0, 0);
    announce(`${words} ${document.getElementById("progress-text").textContent}.`);
  };

  const send = async (form, button) => {
    const twice = button && button.name === "choice" && button.value === last && performance.now() - began < TOO_SOON;
    if (busy || twice) {
      return;
    }
    busy = true;
    document.body.classList.add("busy");
    if (form.elements.seconds) {
      form.elements.seconds.value = seconds();
    }
    const fields = new URLSearchParams(new FormData(form));
    if (button && button.name) {
      fields.append(button.name, button.value);
    }
    const address = (button && button.getAttribute("formaction")) || form.getAttribute("action");
    try {
      const answer = await fetch(address, {
        method: "POST", body: fields, headers: { "x-part": "main" }, signal: AbortSignal.timeout(30000),
      });
      const text = await answer.text();
      const page = new DOMParser().parseFromString(text, "text/html");
      if (page.getElementById("main")) {
        place(page, button);
      } else {
        announce(text.trim(), true);
      }
    } catch {
      announce(NOT_KEPT, true);
    } finally {
      busy = false;
      document.body.classList.remove("busy");
    }
  };

  document.addEventListener("submit", (event) => {
    event.preventDefault();
    send(event.target, event.submitter);
  });

  document.addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest("button[name=choice]")) {
      event.preventDefault(); // the second half of a double click would vote on what nobody has seen
    }
  });

  const asked = (event) => {
    // On some keyboards digits need Shift: what the key writes counts first.
    const isArrow = /^Arrow/.test(event.key);
    if (isArrow && (event.shiftKey || event.target.closest(".answer, .whole"))) {
      return undefined; // it selects, or scrolls
    }
    const digit = /^Digit([1-9])$/.exec(event.code);
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const wanted = event.shiftKey && digit && !/^[0-9]$/.test(name) ? `Shift+${digit[1]}` : name;
    return [...document.querySelectorAll("[data-keys]")].find((one) => one.dataset.keys.split(" ").includes(wanted));
  };

  const isTyping = (target) => target.matches("textarea, input:not([type=checkbox]), select, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) {
      return;
    }
    if (isTyping(event.target)) {
      if (event.key === "Escape") {
        event.preventDefault();
        document.getElementById("choices").focus({ preventScroll: true });
      } else if (event.key === "Enter" && event.target.id === "reason") {
        event.preventDefault();
        if (!event.repeat) {
          document.getElementById("skip").click();
        }
      }
      return;
    }
    if (event.key === "Enter" && event.target.matches("input")) {
      event.preventDefault(); // Enter on a reason would send the form
      return;
    }
    const one = keys.checked && !event.repeat ? asked(event) : null; // a key that is held down chooses once
    if (!one) {
      return;
    }
    event.preventDefault();
    if (one.matches("textarea, input:not([type=checkbox])")) {
      one.focus();
      announce(one.id === "note" ? "Note. Escape goes back to the choice." : "Why? Enter skips, Escape goes back.");
    } else {
      one.click();
      if (one.type === "checkbox") {
        announce(`${one.value}: ${one.checked ? "on" : "off"}.`);
      }
    }
  });

  const hint = () => document.documentElement.classList.toggle("with-keys", keys.checked);

  if (keys) {
    keys.checked = localStorage.getItem("keys") !== "off";
    keys.addEventListener("change", () => {
      localStorage.setItem("keys", keys.checked ? "on" : "off");
      hint();
    });
    hint();
    document.getElementById("keys-act").hidden = false;
  }
})();
