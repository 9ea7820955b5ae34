// Before anything is drawn: Telegram's colours, so that a dark chat never opens a white page.
"use strict";
(() => {
  const root = document.documentElement;
  // What Telegram tells a Mini App stands behind the address's #, once a launch; the next pages remember it.
  const hash = location.hash.slice(1);
  let text = /(^|&)tgWebApp/.test(hash) ? hash : "";
  try {
    if (text) sessionStorage.setItem("telegram", text);
    else text = sessionStorage.getItem("telegram") || "";
  } catch { /* private windows */ }
  const launch = new URLSearchParams(text);

  function theme(params) {
    for (const [name, value] of Object.entries(params)) {
      if (/^[a-z_]{2,40}$/.test(name) && /^#[0-9a-f]{6}$/i.test(value)) root.style.setProperty(`--tg-theme-${name.replaceAll("_", "-")}`, value);
    }
    const background = params.bg_color;
    if (/^#[0-9a-f]{6}$/i.test(background || "")) {
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(background.slice(at, at + 2), 16));
      root.dataset.scheme = r * 0.299 + g * 0.587 + b * 0.114 < 128 ? "dark" : "light";
    }
  }
  try { theme(JSON.parse(launch.get("tgWebAppThemeParams") || "{}")); } catch { /* its own affair */ }
  window.darkroom = { launch, initData: launch.get("tgWebAppData"), theme };
})();
