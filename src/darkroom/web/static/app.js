// What the pages do beside being pages. Each works without this: it makes them quicker, live, and at home in Telegram.
"use strict";
(() => {
  const root = document.documentElement;
  const say = document.body.dataset;
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const remember = (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* private windows */ } };
  const recall = (name) => { try { return sessionStorage.getItem(name); } catch { return null; } };

  // ---- a sentence over the page -------------------------------------------------------------------------
  let toastTimer = 0;
  function toast(text) {
    const place = $("#toast");
    // What lies under an open dialog is neither seen nor read out.
    const top = $$("dialog[open]").pop() || document.body;
    if (place.parentNode !== top) top.append(place);
    place.classList.add("shown");
    clearTimeout(toastTimer);
    requestAnimationFrame(() => { place.textContent = text; });
    toastTimer = setTimeout(() => { place.classList.remove("shown"); place.textContent = ""; }, 5000);
  }
  document.addEventListener("toast", (event) => toast(event.detail.value));
  // A page that looks by itself fails by itself, without a word: it looks again.
  const byItself = (event) => event.detail.requestConfig && event.detail.requestConfig.verb === "get";
  for (const name of ["htmx:sendError", "htmx:timeout"]) document.addEventListener(name, (event) => { if (!byItself(event)) toast(say.sayFailed); });
  document.addEventListener("htmx:responseError", (event) => {
    if (!byItself(event) && !event.detail.xhr.getResponseHeader("HX-Trigger")) toast(say.sayFailed);
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    // Nothing is replaced under a question that is being answered, and nobody looks at a hidden page.
    if (event.target.matches('[hx-trigger^="every"]') && (document.hidden || $("dialog[open]"))) event.preventDefault();
  });

  // ---- "are you sure", where a frame may not ask by itself ------------------------------------------------
  document.addEventListener("htmx:confirm", (event) => {
    if (!event.detail.question) return;
    event.preventDefault();
    const sheet = $("#sure");
    $("#sure-text").textContent = event.detail.question;
    $("[data-yes]", sheet).onclick = () => { sheet.close(); event.detail.issueRequest(true); };
    sheet.showModal();
  });
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.target.matches("[hx-confirm]")) event.detail.parameters.sure = "yes";
  });
  document.addEventListener("click", (event) => {
    const dialog = event.target.closest("dialog");
    if (!dialog) return;
    const box = dialog.getBoundingClientRect();
    const beside = event.target === dialog && (event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom);
    if (event.target.closest("[data-close]") || beside) dialog.close();
  });

  // ---- lost network ---------------------------------------------------------------------------------------
  const banner = $("#offline");
  addEventListener("offline", () => { banner.hidden = false; });
  addEventListener("online", () => { banner.hidden = true; toast(say.sayOnline); look(); });
  banner.hidden = navigator.onLine !== false;

  // ---- times in the reader's own zone ---------------------------------------------------------------------
  function localTimes(within) {
    const parts = { day: "numeric", month: "long", hour: "2-digit", minute: "2-digit" };
    const short = new Intl.DateTimeFormat(root.lang, parts);
    const long = new Intl.DateTimeFormat(root.lang, { ...parts, year: "numeric" });
    for (const one of $$("time[datetime]:not([data-local])", within)) {
      one.dataset.local = "yes";
      const moment = new Date(one.dateTime);
      const named = "year" in one.dataset || moment.getFullYear() !== new Date().getFullYear();
      one.textContent = (named ? long : short).format(moment);
    }
  }

  // ---- Telegram -------------------------------------------------------------------------------------------
  const { launch, initData, theme } = window.darkroom;
  const telegram = () => (window.Telegram && window.Telegram.WebApp && initData ? window.Telegram.WebApp : null);

  async function exchange() {
    remember("telegram-tried", String(Date.now()));
    const answer = await fetch("/api/session", { method: "POST", headers: { Authorization: `tma ${initData}` } }).catch(() => null);
    if (!answer || !answer.ok) {
      toast(say.sayFailed);
      return false;
    }
    remember("telegram-entered", initData);
    const next = new URLSearchParams(location.search).get("next");
    location.replace(location.pathname === "/sign-in" ? (next && /^\/(?!\/|\\)/.test(next) ? next : "/") : location.pathname + location.search);
    return true;
  }

  async function enterTelegram() {
    if (!initData) return;
    // Once a launch: init data is a key, the session made of it is ours and can be ended. Again where we were sent
    // to sign in; but a browser that keeps no cookie would send us here for ever, so a person presses then.
    const lost = location.pathname === "/sign-in";
    const tried = Number(recall("telegram-tried")) > Date.now() - 10000;
    if (lost && tried) {
      const place = $("#telegram-enter");
      place.hidden = false;
      $("button", place).onclick = exchange;
    } else if (lost || recall("telegram-entered") !== initData) {
      if (await exchange()) return;
    }
    const script = document.createElement("script");
    script.src = "https://telegram.org/js/telegram-web-app.js";
    script.onload = useTelegram;
    document.head.append(script);
  }

  function useTelegram() {
    const app = telegram();
    if (!app) return;
    app.ready();
    app.expand();
    app.onEvent("themeChanged", () => theme(app.themeParams));
    const home = location.pathname === "/" || location.pathname === "/sets";
    if (home) app.BackButton.hide();
    else { app.BackButton.show(); app.BackButton.onClick(() => back()); }
  }

  function back() {
    const dialog = $$("dialog[open]").pop();
    if (dialog) dialog.close();
    else if (history.length > 1) history.back();
    else location.assign("/sets");
  }

  // ---- selfies: each file by itself, with its progress and its verdict ---------------------------------------
  let uploading = 0;
  function uploads() {
    const place = $("#selfies");
    const input = $("#files");
    if (!place || !input || input.dataset.ready) return;
    input.dataset.ready = "yes";
    input.addEventListener("change", () => { sendAll([...input.files]); input.value = ""; });
    const drop = input.closest(".add");
    for (const name of ["dragover", "dragenter"]) drop.addEventListener(name, () => drop.classList.add("over"));
    for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));

    async function sendAll(files) {
      const room = Number(place.dataset.room) - $$(".selfie.sending").length;
      if (files.length > room) toast(place.dataset.sayFull);
      const queue = files.slice(0, Math.max(room, 0)).map((file) => ({ file, tile: tileOf(file) }));
      uploading += queue.length;
      // Two at a time: a phone's uplink is full with that, and a verdict comes early.
      await Promise.all([0, 1].map(async () => { for (let one; (one = queue.shift()); ) await send(one); }));
      if (!uploading && !$(".selfie.refused")) refresh();
      else if (!uploading) refreshKept();
    }

    function tileOf(file) {
      const tile = document.createElement("li");
      tile.className = "selfie sending";
      const image = document.createElement("img");
      image.alt = file.name;
      image.src = URL.createObjectURL(file);
      image.onerror = () => image.removeAttribute("src");
      const bar = document.createElement("progress");
      bar.max = 1; bar.value = 0;
      bar.setAttribute("aria-label", file.name);
      const verdict = document.createElement("p");
      verdict.className = "verdict";
      verdict.setAttribute("role", "status");
      verdict.textContent = place.dataset.sayWaiting;
      tile.append(image, bar, verdict);
      $("#selfie-list").insertBefore(tile, drop);
      return tile;
    }

    async function send({ file, tile }) {
      const [bar, verdict] = [$("progress", tile), $(".verdict", tile)];
      $$("button", tile).forEach((one) => one.remove());
      bar.hidden = false;
      verdict.className = "verdict";
      verdict.textContent = place.dataset.saySending;
      const progress = (share) => {
        bar.value = share;
        if (share >= 1) { bar.removeAttribute("value"); verdict.textContent = place.dataset.sayLooking; }
      };
      let found;
      try {
        found = place.dataset.direct === "yes" ? await putDirectly(file, progress) : await post(file, progress);
      } catch (error) {
        found = { accepted: false, message: error.message || place.dataset.sayFailed, mayRepeat: true };
      }
      uploading -= 1;
      bar.hidden = true;
      tile.classList.remove("sending");
      if (found.accepted) {
        tile.classList.add("kept");
        verdict.textContent = found.warnings.length ? found.warnings.map((one) => one.message).join(". ") : "✓";
        verdict.classList.add(found.warnings.length ? "warn" : "good");
      } else {
        tile.classList.add("refused");
        verdict.textContent = found.message || place.dataset.sayFailed;
        verdict.classList.add("bad");
        const again = document.createElement("button");
        again.type = "button";
        again.className = "button second small";
        again.textContent = place.dataset.sayAgain;
        again.onclick = () => { tile.className = "selfie sending"; uploading += 1; send({ file, tile }).then(() => uploading || refreshKept()); };
        if (found.mayRepeat) tile.append(again);
      }
    }

    function post(file, progress) {
      const form = new FormData();
      form.append("files", file, file.name || "photo");
      return request("POST", `/avatars/${place.dataset.avatar}/selfies`, form, progress).then((answer) => oneOf(answer));
    }

    async function putDirectly(file, progress) {
      const base = `/api/avatars/${place.dataset.avatar}/uploads`;
      const open = await request("POST", base, JSON.stringify({ fileNames: [file.name || "photo"] }), null, "application/json");
      const [slot] = dataOf(open).uploads;
      const put = await request("PUT", slot.url, file, progress, file.type || "application/octet-stream");
      if (put.status >= 300) throw new Error(place.dataset.sayFailed);
      return oneOf(await request("POST", `${base}/complete`, JSON.stringify({ uploadIds: [slot.uploadId] }), null, "application/json"));
    }

    function request(method, url, body, progress, type) {
      return new Promise((resolve, reject) => {
        const call = new XMLHttpRequest();
        call.open(method, url);
        if (type) call.setRequestHeader("Content-Type", type);
        if (url.startsWith("/avatars/")) call.setRequestHeader("HX-Request", "true");
        if (progress) call.upload.onprogress = (event) => { if (event.lengthComputable) progress(event.loaded / event.total); };
        call.onload = () => resolve(call);
        call.onerror = call.ontimeout = () => reject(new Error(say.sayFailed));
        call.timeout = 180000;
        call.send(body);
      });
    }

    function dataOf(call) {
      const elsewhere = call.getResponseHeader("HX-Redirect");
      if (elsewhere) location.assign(elsewhere);
      const said = call.getResponseHeader("HX-Trigger");
      if (said) throw new Error(JSON.parse(said).toast);
      let answer;
      try { answer = JSON.parse(call.responseText); } catch { throw new Error(place.dataset.sayFailed); }
      if (answer.success === false && !(answer.error.details && answer.error.details.files)) throw new Error(place.dataset.sayFailed);
      return answer.files ? answer : answer.success ? answer.data : answer.error.details;
    }
    const oneOf = (call) => dataOf(call).files[0];

    function refresh() {
      return htmx.ajax("GET", `/avatars/${place.dataset.avatar}/selfies`, { target: "#selfies", swap: "outerHTML" });
    }
    // What was refused stays to be read; the rest becomes the server's own list.
    async function refreshKept() {
      const refused = $$(".selfie.refused");
      await refresh();
      const list = $("#selfie-list");
      for (const tile of refused) list.insertBefore(tile, $(".add", list));
    }
  }
  addEventListener("beforeunload", (event) => { if (uploading) event.preventDefault(); });

  // ---- choosing and paying ---------------------------------------------------------------------------------
  function namePrice() {
    const button = $("#pay");
    if (!button) return;
    const way = $("[name=way]:checked");
    if (way && way.dataset.takes) for (const one of $$("[data-currency]")) one.hidden = one.dataset.currency !== way.dataset.takes;
    const price = $(".tier:has(:checked) [data-pay]:not([hidden])");
    if (price) button.textContent = price.dataset.pay;
  }
  document.addEventListener("change", namePrice);
  function pay() {
    const link = $("#checkout");
    if (!link || link.dataset.ready) return;
    link.dataset.ready = "yes";
    const invoice = /^https:\/\/t\.me\/(\$|invoice\/)/.test(link.href);
    link.addEventListener("click", (event) => {
      const app = telegram();
      if (!invoice || !app || !app.openInvoice) return;
      event.preventDefault();
      // What Telegram says here is not believed: the page asks the server, as always.
      app.openInvoice(link.href, () => htmx.trigger("#payment", "refresh"));
    });
    // Once: whoever comes back from the bank has seen it.
    const mark = `gone-${link.dataset.payment}`;
    if (link.dataset.go && !recall(mark)) { remember(mark, "yes"); if (!invoice) location.assign(link.href); else setTimeout(() => link.click(), 400); }
  }

  // ---- a set while it is made ------------------------------------------------------------------------------
  let stream = null;
  let looking = false;
  let again = false;
  let lookedAt = 0;
  let slow = 0;
  let missed = 0;
  function status() { return $("#status[data-live]"); }
  async function look() {
    const place = status();
    // Without a network nothing can be asked; `online` looks again.
    if (!place || !navigator.onLine) return;
    if (looking) { again = true; return; }
    looking = true;
    again = false;
    lookedAt = Date.now();
    const seen = Number(place.dataset.newest);
    try {
      await htmx.ajax("GET", place.dataset.live + (seen ? `?seen=${seen}` : ""), { target: "#status", swap: "outerHTML" });
    } catch { /* the next look finds it */ } finally { looking = false; }
    if (!status() && stream) { stream.close(); stream = null; }
    if (again) look();
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    const place = status();
    if (!place || !event.detail.pathInfo.requestPath.startsWith(place.dataset.live)) return;
    // One may be lost on any network.
    missed = event.detail.successful ? 0 : missed + 1;
    $("[data-lost]", place).hidden = missed < 2;
  });
  function live() {
    const place = status();
    if (!place || stream) return;
    stream = new EventSource(place.dataset.events);
    // `job` is the first: what was stored while the page was on its way.
    for (const name of ["job", "photo", "status", "end"]) stream.addEventListener(name, look);
    clearInterval(slow);
    // The stream is the quick way; this is the sure one.
    slow = setInterval(() => {
      if (!status()) { clearInterval(slow); return; }
      if (document.hidden) return;
      if (stream && stream.readyState === EventSource.CLOSED) { stream = null; look().then(live); }
      else if (!stream || stream.readyState !== EventSource.OPEN || Date.now() - lookedAt > 30000) look();
    }, 5000);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
    // A browser brings an earlier choice back after the page has begun.
    else namePrice();
  });
  addEventListener("pagehide", () => { if (stream) { stream.close(); stream = null; } });

  // ---- photos, full screen -----------------------------------------------------------------------------------
  const viewer = $("#viewer");
  // The reel keeps to what was there when it was opened; each photo is named by its id, never by a place in a list
  // that grows meanwhile.
  let shown = [];
  let current = null;
  let aimed = 0;
  const photos = () => $$(".photo[data-photo]");
  const linkOf = (id) => $(`.photo[data-photo="${id}"]`);
  const now = () => linkOf(current);
  function openViewer(link) {
    const reel = $(".reel", viewer);
    shown = photos().map((one) => one.dataset.photo);
    reel.replaceChildren(...photos().map((one) => {
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      image.alt = one.firstElementChild.alt;
      image.width = Number(one.dataset.width); image.height = Number(one.dataset.height);
      image.loading = "lazy";
      image.dataset.plain = one.dataset.plain;
      image.src = one.dataset.full;
      figure.append(image);
      return figure;
    }));
    viewer.showModal();
    const at = shown.indexOf(link.dataset.photo);
    reel.children[at].scrollIntoView({ inline: "center", behavior: "instant" });
    reel.focus();
    show(at);
    reel.onscroll = () => { if (performance.now() > aimed) show(Math.round(reel.scrollLeft / reel.clientWidth)); };
  }
  function show(at) {
    const link = linkOf(shown[at]);
    if (!link || shown[at] === current) return;
    current = shown[at];
    $(".viewer-count", viewer).textContent = `${at + 1} / ${shown.length}`;
    // By the session: the page's own links grow old, this one is made anew when it is used.
    $("[data-download]", viewer).href = `${link.dataset.plain}?download=1`;
    heart();
    const redo = $("[data-redo]", viewer);
    redo.hidden = !redos() && !link.dataset.redone;
    redo.disabled = Boolean(link.dataset.redone);
    $("span", redo).textContent = link.dataset.redone ? viewer.dataset.sayRedone : viewer.dataset.sayRedo;
    $('[data-step="-1"]', viewer).disabled = at === 0;
    $('[data-step="1"]', viewer).disabled = at === shown.length - 1;
  }
  function redos() { const place = $("#status"); return place ? Number(place.dataset.redos) : 0; }
  function heart() {
    const on = now().dataset.favorite === "yes";
    const button = $("[data-favorite]", viewer);
    button.setAttribute("aria-pressed", on);
    $("span", button).textContent = on ? viewer.dataset.sayUnfavorite : viewer.dataset.sayFavorite;
  }
  function step(by) {
    const reel = $(".reel", viewer);
    const at = shown.indexOf(current) + by;
    const next = reel.children[at];
    if (!next) return;
    // Where it will be is said at once: a second press counts from there, not from half way.
    aimed = performance.now() + 600;
    show(at);
    next.scrollIntoView({ inline: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth" });
  }
  async function toggleHeart() {
    const id = current;
    const on = now().dataset.favorite !== "yes";
    const mark = (value) => { linkOf(id).dataset.favorite = value ? "yes" : "no"; if (current === id) heart(); };
    mark(on);
    const answer = await fetch(`/photos/${id}/favorite`, { method: "POST", headers: { "HX-Request": "true" }, body: new URLSearchParams({ on: on ? "yes" : "no" }) }).catch(() => null);
    if (!answer || !answer.ok) { mark(!on); toast(say.sayFailed); }
  }
  if (viewer) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest(".photo[data-photo]");
      if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey) { event.preventDefault(); openViewer(link); return; }
      const by = event.target.closest("[data-step]");
      if (by) step(Number(by.dataset.step));
      if (event.target.closest("[data-favorite]:not(.photo)")) toggleHeart();
      if (event.target.closest("[data-share-photo]")) openShare(now().dataset.job, current);
      if (event.target.closest("[data-share-set]")) openShare($("#status").dataset.job, null);
      if (event.target.closest("[data-redo]")) {
        $("#redo-text").textContent = $("#status").dataset.redoText;
        $("#redo-form").setAttribute("hx-post", `/photos/${current}/redo`);
        htmx.process($("#redo-form"));
        $("#redo-dialog").showModal();
      }
      if (event.target.closest("[data-download]")) downloadByTelegram(event, `/photos/${current}/link`);
    });
    viewer.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") { step(-1); event.preventDefault(); }
      if (event.key === "ArrowRight") { step(1); event.preventDefault(); }
    });
    viewer.addEventListener("close", () => { const last = now(); current = null; if (last) { last.focus({ preventScroll: true }); last.scrollIntoView({ block: "nearest" }); } });
  }
  function openShare(job, photo) {
    const form = $("#share-form");
    form.setAttribute("hx-post", `/sets/${job}/share`);
    const field = $("[name=photo]", form);
    field.value = photo || "";
    field.disabled = !photo;
    for (const text of $$("[data-for]", $("#share-dialog"))) text.hidden = text.dataset.for !== (photo ? "photo" : "set");
    $("#share-made").replaceChildren();
    htmx.process(form);
    $("#share-dialog").showModal();
  }
  document.addEventListener("htmx:afterRequest", (event) => {
    // The link that was made may be closed later: the next press is another wish.
    if (event.target.id === "share-form" && event.detail.successful) $("[name=key]", event.target).value = crypto.randomUUID();
  });
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      try { await navigator.clipboard.writeText(copy.dataset.copy); toast(say.sayCopied); } catch { const field = $("#share-url"); if (field) field.select(); else toast(copy.dataset.copy); }
    }
    const send = event.target.closest("[data-send]");
    if (send) navigator.share({ url: send.dataset.send }).catch(() => {});
    if (event.target.closest("[data-print]")) print();
  });

  // ---- a link that has grown old on an open page: the session opens the same picture ---------------------------
  document.addEventListener("error", (event) => {
    const image = event.target;
    if (image.tagName === "IMG" && image.dataset.plain && !image.dataset.tried) { image.dataset.tried = "yes"; image.src = image.dataset.plain; }
  }, true);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-plain-href]");
    if (!link) return;
    link.href = link.dataset.plainHref;
    downloadByTelegram(event, link.dataset.fresh);
  });
  // Telegram's window saves nothing by itself, and its downloader brings no session: it needs a link of now.
  function downloadByTelegram(event, fresh) {
    const app = telegram();
    if (!app || !app.downloadFile || !app.isVersionAtLeast("8.0")) return;
    event.preventDefault();
    fetch(fresh).then((answer) => answer.json()).then((file) => app.downloadFile({ url: new URL(file.path, location).href, file_name: file.name })).catch(() => toast(say.sayFailed));
  }

  // ---- whenever something of the page is new --------------------------------------------------------------------
  function begin(within) {
    localTimes(within);
    uploads();
    namePrice();
    pay();
    live();
    // What needs this script is shown by it. Telegram's window cannot print.
    const able = ["[data-share-set]", "[data-copy]"];
    if (navigator.share) able.push("[data-send]");
    if (!initData) able.push("[data-print]");
    for (const one of $$(able.join(), within)) one.hidden = false;
  }
  document.addEventListener("htmx:oobAfterSwap", (event) => { if (event.detail.target) event.detail.target.classList.add("fresh"); });
  document.addEventListener("htmx:load", (event) => begin(event.detail.elt.parentNode || document));
  begin(document);
  enterTelegram();
})();
