"use strict";
// Draws the document with @asyncapi/react-component, and then goes where the address points.
(() => {
  const place = document.getElementById("asyncapi");

  function tell(text) {
    const told = document.createElement("p");
    told.className = "told";
    told.setAttribute("role", "alert");
    told.textContent = text;
    place.replaceChildren(told);
  }

  // The anchors are there only once the document is drawn: too late for the browser's own way to them.
  // Drawing goes on for a while, and moves what is below; whoever has begun to read is left alone.
  function arrive() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    if (!wanted || wanted === place.id) return;
    const follow = () => document.getElementById(wanted)?.scrollIntoView();
    const drawn = new MutationObserver(follow);
    const grown = new ResizeObserver(follow);
    const begun = ["wheel", "touchstart", "pointerdown", "keydown"];
    const leave = () => {
      drawn.disconnect();
      grown.disconnect();
      for (const name of begun) removeEventListener(name, leave);
    };
    for (const name of begun) addEventListener(name, leave, { passive: true });
    drawn.observe(place, { childList: true, subtree: true });
    grown.observe(place);
    setTimeout(leave, 15000);
  }

  async function draw() {
    if (!window.AsyncApiStandalone) return tell("The renderer did not load; the browser's console says why.");
    const response = await fetch("asyncapi.json");
    if (!response.ok) return tell(`The document could not be read: the site answered ${response.status}.`);
    window.AsyncApiStandalone.render(
      {
        schema: await response.text(),
        config: {
          show: { sidebar: true, errors: true },
          sidebar: { showOperations: "byDefault", showServers: "byDefault" },
          expand: { messageExamples: false },
        },
      },
      place,
    );
    arrive();
  }

  draw().catch((error) => tell(`The document could not be drawn: ${error.message}`));
})();
