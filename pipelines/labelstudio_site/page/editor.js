// Clicks that edit masks, in Label Studio's own editor.
//
// While a label of "Smart point" or "Smart box" is picked, the photo belongs to this script: a click, an Alt-click or a
// drawn box changes the mask of that label, wherever other masks lie, and is one step of undo. The answer comes from the
// same backend and by the same request as Label Studio's own smart tools; the request also holds the mask as the person
// sees it, and the answer replaces that region. A Shift-click on a mask of another label gives it the label that is picked.
//
// The editor's state is used as Label Studio 1.23 keeps it (`window.Htx`). Where something needed is missing, nothing is
// done at all, and the stock editor works as it always did.
(() => {
  "use strict";

  const IMAGE = "image", BRUSH = "tag", POINT = "point", BOX = "box", SKIP_REASON = "skip_reason";
  const DRAG_PX = 6, SAVE_AFTER_MS = 300, MESSAGE_MS = 4000, LARGE_MEGAPIXELS = 4;
  const VIEWS = ["masks", "faint", "outlines", "hidden"];
  const TEXTS = {
    en: {
      nothing: "Nothing was found there. Click well inside the garment, or draw a box around it.",
      noMask: (label) => `There is no mask of "${label}" to take away from.`,
      unchanged: "This click changes nothing. Click farther inside what is wrong, or use the brush.",
      noAnswer: (why) => `No answer (${why}). Try again, or paint with the brush.`,
      notAnother: (label) => `No mask of another label is here. Shift+click makes a mask "${label}".`,
      noParts: "Pick a label that has several masks, or select them in the list; then they become one.",
      clear: "Clear all masks", clearTip: "Delete every mask of this photo; Ctrl+Z brings them back (Shift+Backspace)",
      merge: "Merge", mergeTip: "Make the selected masks, or all of the picked label, one mask (m)",
      view: { masks: "Masks", faint: "Faint", outlines: "Outlines", hidden: "Hidden" },
      viewTip: "How masks are shown (n)",
      help: "Click: add · Alt: take away · drag: box · Shift: change label",
      uncertain: (label, score) => `Least sure: ${label} (${Math.round(100 * score)} %)`,
      large: (megapixels) => `${megapixels} megapixels: this photo opens and saves slowly`,
      why: {
        uncertain: "Why this photo: the computer is unsure here; the least sure come first",
        random: "Why this photo: chosen at random",
      },
      skip: {
        title: "Why skip this photo?", none: "Skip without a reason", other: "Another reason …",
        reasons: { unreadable: "Unreadable", "no garment": "No garment", "not allowed": "Not allowed" },
      },
    },
    it: {
      nothing: "Qui non è stato trovato nulla. Fai clic bene all'interno del capo, o disegna un riquadro intorno.",
      noMask: (label) => `Non c'è una maschera "${label}" da cui togliere.`,
      unchanged: "Questo clic non cambia nulla. Fai clic più all'interno di ciò che è sbagliato, o usa il pennello.",
      noAnswer: (why) => `Nessuna risposta (${why}). Riprova, o dipingi con il pennello.`,
      notAnother: (label) => `Qui non c'è una maschera di un'altra etichetta. Maiusc+clic la rende "${label}".`,
      noParts: "Scegli un'etichetta con più maschere, o selezionale nell'elenco; diventeranno una sola.",
      clear: "Cancella tutte", clearTip: "Elimina tutte le maschere di questa foto; Ctrl+Z le riporta (Maiusc+Backspace)",
      merge: "Unisci", mergeTip: "Unisci le maschere selezionate, o tutte quelle dell'etichetta scelta (m)",
      view: { masks: "Maschere", faint: "Tenui", outlines: "Contorni", hidden: "Nascoste" },
      viewTip: "Come si vedono le maschere (n)",
      help: "Clic: aggiunge · Alt: toglie · trascina: riquadro · Maiusc: cambia etichetta",
      uncertain: (label, score) => `Meno sicuro: ${label} (${Math.round(100 * score)} %)`,
      large: (megapixels) => `${megapixels} megapixel: questa foto si apre e si salva lentamente`,
      why: {
        uncertain: "Perché questa foto: qui il computer è incerto; prima vengono le più incerte",
        random: "Perché questa foto: scelta a caso",
      },
      skip: {
        title: "Perché salti questa foto?", none: "Salta senza motivo", other: "Un altro motivo …",
        reasons: { unreadable: "Illeggibile", "no garment": "Nessun capo", "not allowed": "Non consentita" },
      },
    },
  };
  const TEXT = TEXTS[navigator.language?.slice(0, 2)] ?? TEXTS.en;

  let drag = null;         // a press of the mouse that is not released yet
  let asking = Promise.resolve();  // requests go out one after the other, each with the mask that the last one made
  let waiting = 0;
  let backend = null;      // id of the interactive backend, by project
  let view = 0;
  let saving = 0;
  let smart = true;
  let lastControl = POINT; // the column in use
  let watched = null;      // the annotation whose changes are saved
  const sequences = new Map();  // by region id: masks (by their hash), the prompts that led to them, whether from nothing

  // --- the editor's state ---------------------------------------------------------------------------------------

  function editor() {
    const store = window.Htx;
    const annotation = store?.annotationStore?.selected;
    if (!annotation || annotation.type !== "annotation" || annotation.readonly || !annotation.editable) return null;
    const photo = annotation.names?.get?.(IMAGE);
    const fits =
      typeof annotation.deserializeResults === "function" &&
      typeof annotation.history?.freeze === "function" &&
      typeof photo?.fixZoomedCoords === "function" &&
      typeof photo?.canvasToInternalX === "function" &&
      photo.stageRef;
    return fits ? { store, annotation, photo } : null;
  }

  // The label that is picked in a smart column, and in which; null while a tool of the tool bar is in use.
  function picked({ annotation }) {
    if (!smart) return null;
    for (const control of [lastControl, POINT, BOX]) {
      const label = control !== BRUSH && annotation.names.get(control)?.selectedLabels?.[0]?.value;
      if (label) return { control, label };
    }
    return null;
  }

  // Label Studio unselects a label when its region was made or undone; here it stays until another one is picked.
  function pickAgain(state, label) {
    if (!label || picked(state) || editor()?.annotation !== state.annotation) return;
    state.annotation.names.get(label.control).children?.find((one) => one.value === label.label)?.setSelected?.(true);
  }

  function keepLabel() {
    const state = editor();
    const label = state && picked(state);
    if (label) setTimeout(() => pickAgain(state, label), 50);
  }

  // Whoever picks a label means this column and no other, and whoever picks a tool means the tool.
  function chosen(event) {
    const label = event.target?.closest?.(".lsf-label");
    const state = label && editor();
    if (state) {
      const count = labelNames(state).length;
      const place = [...document.querySelectorAll(".lsf-label")].indexOf(label);
      lastControl = CONTROLS[Math.floor(place / count)] ?? POINT;
      // After a tool was used, a click on the label that is still picked means it again, and does not unpick it.
      if (!smart && lastControl !== BRUSH && isPicked(state, lastControl, place % count)) claim(event);
      smart = lastControl !== BRUSH;
      setTimeout(() => {
        for (const control of CONTROLS)
          if (control !== lastControl) state.annotation.names.get(control)?.unselectAll?.();
      });
    } else if (event.target?.closest?.(".lsf-toolbar, .lsf-tool")) {
      smart = false;
    } else if (event.target?.closest?.(".lsf-history-buttons")) {
      keepLabel();
    }
  }

  function masks({ annotation }) {
    return annotation.regions.filter((region) => region.type === "brushregion" && region.$treenode);
  }

  // Whether a mask covers a place on the screen; the editor draws each mask on a canvas of its own.
  function covers(region, event) {
    const canvas = region.layerRef?.canvas?._canvas;
    if (!canvas || region.hidden) return false;
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * canvas.width;
    const y = ((event.clientY - box.top) / box.height) * canvas.height;
    return canvas.getContext("2d").getImageData(x, y, 1, 1).data[3] > 0;
  }

  // A place on the screen in percent of the photo; null outside of it.
  function place({ photo }, event) {
    const box = photo.stageRef.container().getBoundingClientRect();
    const [x, y] = photo.fixZoomedCoords([event.clientX - box.left, event.clientY - box.top]);
    const percent = { x: photo.canvasToInternalX(x), y: photo.canvasToInternalY(y) };
    return percent.x >= 0 && percent.x <= 100 && percent.y >= 0 && percent.y <= 100 ? percent : null;
  }

  const inside = (percent) => ({
    x: Math.min(100, Math.max(0, percent.x)),
    y: Math.min(100, Math.max(0, percent.y)),
  });

  // --- which mask a click means ---------------------------------------------------------------------------------

  function distance(region, { x, y }) {
    const box = region.bboxCoords;
    if (!box) return 1000;
    const dx = Math.max(box.left - x, 0, x - box.right), dy = Math.max(box.top - y, 0, y - box.bottom);
    return Math.hypot(dx, dy);
  }

  function overlap(region, box) {
    const other = region.bboxCoords;
    if (!other) return 0;
    const width = Math.min(other.right, box.x + box.width) - Math.max(other.left, box.x);
    const height = Math.min(other.bottom, box.y + box.height) - Math.max(other.top, box.y);
    return width > 0 && height > 0 ? width * height : 0;
  }

  // The mask of the label that a prompt changes, or null when there is none and a new one is to be made.
  function target(state, label, prompt, event) {
    const all = masks(state).filter((region) => region.labels?.includes(label) && !region.locked);
    const shown = all.filter((region) => !region.hidden);
    const candidates = shown.length ? shown : all;
    if (!candidates.length) return null;
    if (prompt.box) {
      const sized = candidates.map((region) => [overlap(region, prompt.box), region]).filter(([size]) => size > 0);
      return sized.length ? sized.reduce((a, b) => (b[0] > a[0] ? b : a))[1] : null;
    }
    const covering = candidates.filter((region) => covers(region, event));
    if (covering.length) return covering[covering.length - 1];
    const selected = candidates.find((region) => region.inSelection);
    return selected ?? candidates.reduce((a, b) => (distance(b, prompt) < distance(a, prompt) ? b : a));
  }

  // --- prompts and answers --------------------------------------------------------------------------------------

  function hash(bytes) {
    let value = bytes.length;
    for (let n = 0; n < bytes.length; n++) value = (Math.imul(value, 31) + bytes[n]) | 0;
    return value;
  }

  function promptJson(prompt, label, state) {
    const { photo } = state;
    const common = {
      id: Math.random().toString(36).slice(2, 12), to_name: IMAGE,
      original_width: photo.naturalWidth, original_height: photo.naturalHeight, image_rotation: 0,
    };
    if (prompt.box) {
      const value = { ...prompt.box, rotation: 0, rectanglelabels: [label] };
      return { ...common, from_name: BOX, type: "rectanglelabels", value };
    }
    const value = { x: prompt.x, y: prompt.y, width: 0.3, keypointlabels: [label] };
    return { ...common, from_name: POINT, type: "keypointlabels", is_positive: prompt.positive, value };
  }

  async function interactiveBackend() {
    const project = location.pathname.match(/projects\/(\d+)/)?.[1] ?? window.dataManager?.store?.project?.id;
    if (backend?.project !== project) {
      const answer = await fetch(`/api/ml?project=${project}`, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const connected = (await answer.json()).filter((one) => one.is_interactive);
      if (!connected.length) throw new Error("no model answers clicks");
      backend = { project, id: connected[0].id };
    }
    return backend.id;
  }

  async function post(state, result) {
    const token = document.cookie.match(/csrftoken=([^;]+)/)?.[1] ?? "";
    const answer = await fetch(`/api/ml/${await interactiveBackend()}/interactive-annotating`, {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify({ task: state.store.task.id, context: { result } }),
    });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const body = await answer.json();
    if (body.errors) throw new Error([].concat(body.errors).join(" "));
    return body.data?.result ?? [];
  }

  // Ask for the mask that a prompt makes of a region, or for a new one, and show it: one step of undo.
  async function ask(prompt, label, event) {
    const state = editor();
    if (!state) return;
    const region = target(state, label, prompt, event);
    if (!region && prompt.positive === false) {
      say(event, TEXT.noMask(label));
      return;
    }
    const shown = region?.serialize();
    const before = shown ? hash(shown.value.rle) : 0;
    const sequence = (region && sequences.get(region.cleanId)?.get(before)) ?? { prompts: [], anew: !region };
    const prompts = prompt.box ? [prompt] : [...sequence.prompts, prompt];
    const context = prompts.map((one) => promptJson(one, label, state));
    // Clicks that made the mask from nothing may change all of it; others change a mask that was there before.
    const edited = shown && { ...regionJson(region, shown, label), from_clicks: sequence.anew };
    const [answer] = await post(state, edited ? [edited, ...context] : context);
    if (editor()?.annotation !== state.annotation) return;  // another photo is open by now
    const made = show(state, region, answer, prompt, event);
    if (made && answer) {
      if (!sequences.has(made.cleanId)) sequences.set(made.cleanId, new Map());
      sequences.get(made.cleanId).set(hash(made.serialize().value.rle), { prompts, anew: sequence.anew });
      sequences.get(made.cleanId).set(hash(answer.value.rle), { prompts, anew: sequence.anew });
    }
  }

  function regionJson(region, shown, label) {
    return {
      ...shown, id: region.cleanId, type: "brushlabels", from_name: BRUSH, to_name: IMAGE, origin: region.origin,
      value: { format: "rle", rle: shown.value.rle, brushlabels: [label] },
    };
  }

  function show(state, region, answer, prompt, event) {
    const { annotation } = state;
    if (region && !window.Htx.annotationStore.selected.areas.has(region.id)) region = null;  // deleted meanwhile
    if (!answer) {
      if (region && prompt.positive === false) {
        region.deleteRegion();  // all of it was taken away
      } else {
        say(event, TEXT.nothing);
      }
      return null;
    }
    if (region && answer.meta?.unchanged) {
      say(event, TEXT.unchanged);
      return null;
    }
    if (region) {
      replace(region, answer.value.rle);
      return region;
    }
    const label = picked(state);
    annotation.deserializeResults([answer]);
    annotation.updateObjects?.();
    pickAgain(state, label);
    return masks(state).find((one) => one.cleanId === answer.id) ?? null;
  }

  function replace(region, rle) {
    const patches = [{ op: "replace", path: "/rle", value: rle }, { op: "replace", path: "/touches", value: [] }];
    if (region.currentTouch) patches.unshift({ op: "replace", path: "/currentTouch", value: null });
    if (region.maskDataURL) patches.push({ op: "replace", path: "/maskDataURL", value: undefined });
    if (region.origin === "prediction") patches.push({ op: "replace", path: "/origin", value: "prediction-changed" });
    region.$treenode.applyPatches(patches);
  }

  // Give the mask at a place the label that is picked. It stays the same region, and this is one step of undo.
  function relabel(state, label, event) {
    const others = masks(state).filter((one) => !one.locked && !one.labels?.includes(label) && covers(one, event));
    const region = others.find((one) => one.inSelection) ?? others[others.length - 1];
    const place = region?.results.findIndex((result) => result.type === "brushlabels") ?? -1;
    if (place < 0) {
      say(event, TEXT.notAnother(label));
      return;
    }
    const patches = [{ op: "replace", path: `/results/${place}/value/brushlabels`, value: [label] }];
    if (region.origin === "prediction") patches.push({ op: "replace", path: "/origin", value: "prediction-changed" });
    state.annotation.history.freeze("maskloop");
    region.$treenode.applyPatches(patches);
    region.updateAppearenceFromState?.();
    state.annotation.history.unfreeze("maskloop");
    region.setNeedsUpdate?.(true);
  }

  function enqueue(prompt, label, event) {
    const at = { clientX: event.clientX, clientY: event.clientY };
    const mark = markAt(at, prompt);
    waiting += 1;
    asking = asking
      .then(() => ask(prompt, label, at))
      .catch((error) => say(at, TEXT.noAnswer(error.message)))
      .finally(() => {
        mark.remove();
        waiting -= 1;
        document.documentElement.dataset.maskloopAsking = String(waiting);
      });
    document.documentElement.dataset.maskloopAsking = String(waiting);
  }

  // Make the selected masks, or all of the picked label, one region.
  function merge() {
    const state = editor();
    if (!state) return;
    const selected = masks(state).filter((region) => region.inSelection);
    const label = selected[0]?.labels?.[0] ?? picked(state)?.label;
    const parts = (selected.length > 1 ? selected : masks(state)).filter((region) => region.labels?.includes(label));
    if (parts.length < 2) {
      say(null, TEXT.noParts);
      return;
    }
    const json = parts.map((region) => regionJson(region, region.serialize(), label));
    asking = asking
      .then(() => post(state, json))
      .then(([answer]) => {
        if (!answer || editor()?.annotation !== state.annotation) return;
        state.annotation.history.freeze("maskloop");
        replace(parts[0], answer.value.rle);
        parts.slice(1).forEach((region) => region.deleteRegion());
        state.annotation.history.unfreeze("maskloop");
      })
      .catch((error) => say(null, TEXT.noAnswer(error.message)));
  }

  function clear() {
    const state = editor();
    if (!state) return;
    state.annotation.history.freeze("maskloop");
    masks(state).forEach((region) => region.deleteRegion());
    state.annotation.history.unfreeze("maskloop");
  }

  // --- mouse ----------------------------------------------------------------------------------------------------

  const onPhoto = (event) => event.target?.closest?.(".konvajs-content");
  const panning = (event) => event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || held.has(" ");
  const held = new Set();

  function claim(event) {
    event.stopImmediatePropagation();
    event.preventDefault();
  }

  let shiftPress = null;  // where the mouse was pressed with Shift

  function pressed(event) {
    shiftPress = event.shiftKey ? { x: event.clientX, y: event.clientY } : null;
    if (!onPhoto(event) || panning(event)) return;
    const state = editor();
    const label = state && picked(state);
    const at = label && place(state, event);
    if (!at) return;
    claim(event);
    drag = { label: label.label, at, x: event.clientX, y: event.clientY, alt: event.altKey, box: null };
  }

  function moved(event) {
    if (!drag) return;
    claim(event);
    if (!drag.box && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_PX) return;
    drag.box ??= element("maskloop-box");
    Object.assign(drag.box.style, {
      left: `${Math.min(drag.x, event.clientX)}px`, top: `${Math.min(drag.y, event.clientY)}px`,
      width: `${Math.abs(event.clientX - drag.x)}px`, height: `${Math.abs(event.clientY - drag.y)}px`,
    });
  }

  function released(event) {
    if (!drag) return;
    claim(event);
    const { label, at, alt, box } = drag;
    box?.remove();
    drag = null;
    const state = editor();
    if (!state) return;
    if (!box) {
      enqueue({ ...at, positive: !alt }, label, event);
      return;
    }
    const frame = state.photo.stageRef.container().getBoundingClientRect();
    const [x, y] = state.photo.fixZoomedCoords([event.clientX - frame.left, event.clientY - frame.top]);
    const end = inside({ x: state.photo.canvasToInternalX(x), y: state.photo.canvasToInternalY(y) });
    const left = Math.min(at.x, end.x), top = Math.min(at.y, end.y);
    enqueue(
      { box: { x: left, y: top, width: Math.abs(end.x - at.x), height: Math.abs(end.y - at.y) } }, label, event,
    );
  }

  // A click that followed a claimed press is part of it. With Shift, a drag moves the photo and a click changes a label.
  function clicked(event) {
    if (event.type === "click") {
      chosen(event);
      skipping(event);
    }
    if (!onPhoto(event)) return;
    const state = editor(), label = state && picked(state);
    if (!label || !place(state, event)) return;
    if (isShiftClick(event)) {
      claim(event);
      relabel(state, label.label, event);
    } else if (!panning(event)) {
      claim(event);
    }
  }

  const isShiftClick = (event) =>
    event.type === "click" && event.shiftKey && event.button === 0 && !event.ctrlKey && !event.metaKey &&
    shiftPress && Math.hypot(event.clientX - shiftPress.x, event.clientY - shiftPress.y) < DRAG_PX;

  // --- keys -----------------------------------------------------------------------------------------------------

  const typing = (event) => event.target?.closest?.("input, textarea, [contenteditable=true]");

  // The keys of garments, in the order of the labels; the others are those of tools and of what is below. Label Studio
  // would give the same letters to labels of other columns, so no single letter or digit is left to it.
  const GARMENT_KEYS = [..."1234567890qrtyuiopasdfgjkl"];
  const TOOL_KEYS = { b: "brush-tool", e: "eraser", w: "magicwand", v: "move-tool", h: "pan" };
  function labelNames({ annotation }) {
    return (annotation.names.get(BRUSH)?.children ?? []).map((label) => label.value).filter(Boolean);
  }

  const CONTROLS = [BRUSH, POINT, BOX];  // the columns, from left to right

  function isPicked(state, control, place) {
    const name = labelNames(state)[place];
    return state.annotation.names.get(control)?.selectedLabels?.some((label) => label.value === name);
  }

  // What a click on the label in this column does, if it is not picked yet.
  function pickLabel(state, place, control) {
    if (isPicked(state, control, place)) {
      smart = control !== BRUSH;
      return;
    }
    document.querySelectorAll(".lsf-label")[CONTROLS.indexOf(control) * labelNames(state).length + place]?.click();
  }

  function currentControl(state) {
    const used = CONTROLS.find((name) => state.annotation.names.get(name)?.selectedLabels?.length);
    return used ?? lastControl;
  }
  function keyed(event) {
    held.add(event.key);
    if ((event.ctrlKey || event.metaKey) && /^[zy]$/i.test(event.key)) keepLabel();
    if (event.ctrlKey && event.key === " " && askWhySkip()) claim(event);
    if (event.key === "Escape") closeSkipList();
    if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const state = editor();
    if (!state) return;
    if (event.key === "Backspace" && event.shiftKey) {
      claim(event);
      clear();
      return;
    }
    if (event.shiftKey) return;
    if (!/^[0-9a-z]$/.test(event.key)) return;
    claim(event);
    const action = { m: merge, n: nextView }[event.key];
    const place = GARMENT_KEYS.indexOf(event.key);
    if (action) {
      action();
    } else if (TOOL_KEYS[event.key]) {
      document.querySelector(`[aria-label=${TOOL_KEYS[event.key]}]`)?.click();
    } else if (place >= 0 && place < labelNames(state).length) {
      pickLabel(state, place, currentControl(state));
    }
  }

  // --- why a photo is skipped -----------------------------------------------------------------------------------

  // Label Studio skips without asking. The reason is the text of a hidden field, so that it is stored with the skip.

  const skipButton = () => document.querySelector("[data-testid=bottombar-skip-button]");
  let isReasonGiven = false;  // the next press of the button is the skip itself

  function skipping(event) {
    const button = skipButton();
    if (!button?.contains(event.target)) {
      if (!event.target?.closest?.(".maskloop-skip")) closeSkipList();
    } else if (!isReasonGiven && askWhySkip()) {
      claim(event);
    }
  }

  function closeSkipList() {
    document.querySelector(".maskloop-skip")?.remove();
  }

  // Show the list of reasons above the button; false when the photo cannot be skipped, or holds no reason.
  function askWhySkip() {
    const button = skipButton(), field = editor()?.annotation.names.get(SKIP_REASON);
    if (!button || button.disabled || !field?.updateFromResult || !field.updateResult) return false;
    closeSkipList();
    const list = element("maskloop-skip");
    list.setAttribute("role", "dialog");
    list.setAttribute("aria-label", TEXT.skip.title);
    const title = document.createElement("strong");
    title.textContent = TEXT.skip.title;
    list.append(title);
    for (const [reason, text] of [...Object.entries(TEXT.skip.reasons), ["", TEXT.skip.none]]) {
      const choice = document.createElement("button");
      choice.type = "button";
      choice.dataset.reason = reason;
      choice.textContent = text;
      choice.addEventListener("click", guarded(() => skip(reason)));
      list.append(choice);
    }
    const other = document.createElement("input");
    other.placeholder = TEXT.skip.other;
    other.maxLength = 200;
    other.addEventListener("keydown", guarded((event) => {
      event.stopPropagation();
      if (event.key === "Enter") skip(other.value.trim());
    }));
    list.insertBefore(other, list.lastChild);
    const box = button.getBoundingClientRect();
    list.style.bottom = `${window.innerHeight - box.top + 46}px`;  // above the button's tip
    list.style.right = `${Math.max(8, window.innerWidth - box.right)}px`;
    list.querySelector("button").focus();
    return true;
  }

  function skip(reason) {
    closeSkipList();
    const field = editor()?.annotation.names.get(SKIP_REASON);
    if (field?.result || reason) {
      field.updateFromResult(reason ? [reason] : []);
      field.updateResult();
    }
    isReasonGiven = true;
    try {
      skipButton()?.click();
    } finally {
      isReasonGiven = false;
    }
  }

  // --- what people see ------------------------------------------------------------------------------------------

  function element(kind, text = "") {
    const made = document.createElement("div");
    made.className = kind;
    made.textContent = text;
    document.body.append(made);
    return made;
  }

  function markAt(event, prompt) {
    const sign = prompt.box ? "" : prompt.positive ? "+" : "−";
    const mark = element("maskloop-waiting", sign);
    mark.style.left = `${event.clientX}px`;
    mark.style.top = `${event.clientY}px`;
    return mark;
  }

  function say(event, text) {
    document.querySelectorAll(".maskloop-message").forEach((one) => one.remove());
    const message = element("maskloop-message", text);
    message.setAttribute("role", "status");
    if (event) {
      message.style.left = `${Math.min(event.clientX + 14, window.innerWidth - 340)}px`;
      message.style.top = `${event.clientY + 14}px`;
    }
    setTimeout(() => message.remove(), MESSAGE_MS);
  }

  function nextView() {
    view = (view + 1) % VIEWS.length;
    drawOutlines();
    tick();
  }

  // Each mask is a canvas of its own, above the photo's; Label Studio sets its opacity when it makes one.
  const OPACITY = { masks: "", faint: "0.2", outlines: "0", hidden: "0" };

  function showMasks(state) {
    for (const region of masks(state)) {
      const canvas = region.layerRef?.canvas?._canvas;
      const opacity = OPACITY[VIEWS[view]] || String(region.opacity ?? 0.6);
      if (canvas && canvas.style.opacity !== opacity) canvas.style.opacity = opacity;
    }
  }

  let outlines = null;

  // Each mask's border in its own colour: the mask drawn around itself, without itself.
  function drawOutlines() {
    const state = VIEWS[view] === "outlines" ? editor() : null;
    if (state) showMasks(state);
    if (!state) {
      outlines?.remove();
      outlines = null;
      return;
    }
    const frame = state.photo.stageRef.container();
    if (!outlines?.isConnected) {
      outlines = document.createElement("canvas");
      outlines.className = "maskloop-outlines";
      frame.append(outlines);
    }
    const first = masks(state).map((region) => region.layerRef?.canvas?._canvas).find(Boolean);
    if (first) {
      Object.assign(outlines, { width: first.width, height: first.height });
      Object.assign(outlines.style, { width: `${frame.clientWidth}px`, height: `${frame.clientHeight}px` });
      const drawing = outlines.getContext("2d");
      for (const region of masks(state)) {
        const mask = region.layerRef?.canvas?._canvas;
        if (!mask || region.hidden) continue;
        const border = new OffscreenCanvas(mask.width, mask.height), lines = border.getContext("2d");
        for (const [x, y] of [[-2, 0], [2, 0], [0, -2], [0, 2], [-1, -1], [1, 1], [-1, 1], [1, -1]])
          lines.drawImage(mask, x, y);
        lines.globalCompositeOperation = "destination-out";
        lines.drawImage(mask, 0, 0);
        drawing.drawImage(border, 0, 0);
      }
    }
    requestAnimationFrame(() => setTimeout(drawOutlines, 150));
  }

  // Keys beside the labels, the same in each column.
  function showKeys(state) {
    const names = labelNames(state);
    if (!names.length) return;
    document.querySelectorAll(".lsf-label").forEach((shown, number) => {
      shown.dataset.maskloopKey = GARMENT_KEYS[number % names.length] ?? "";
    });
  }

  // Buttons and help in a bar above Label Studio's own, and what the model was least sure of.
  function showBar(state) {
    const below = document.querySelector(".lsf-bottombar");
    if (!below) return;
    let bar = document.querySelector(".maskloop-bar");
    if (!bar) {
      bar = document.createElement("div");
      bar.className = "maskloop-bar";
      for (const [name, action] of [["view", nextView], ["merge", merge], ["clear", clear]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.maskloop = name;
        button.title = TEXT[`${name}Tip`];
        button.addEventListener("click", guarded(() => {
          action();
          button.blur();
        }));
        bar.append(button);
      }
      bar.append(document.createElement("span"), document.createElement("span"));
    }
    if (bar.nextElementSibling !== below) below.before(bar);
    // In the label stream, Label Studio's own bar floats above the content, so this one floats above that.
    const floats = getComputedStyle(below).position === "absolute";
    bar.classList.toggle("maskloop-bar-floating", floats);
    bar.style.bottom = floats ? `${below.offsetHeight}px` : "";
    const scored = masks(state).filter((region) => region.origin === "prediction" && region.score > 0);
    const least = scored.length ? scored.reduce((a, b) => (b.score < a.score ? b : a)) : null;
    const texts = {
      view: TEXT.view[VIEWS[view]], merge: TEXT.merge, clear: TEXT.clear,
    };
    for (const button of bar.querySelectorAll("button")) write(button, texts[button.dataset.maskloop]);
    const isSubmitted = Boolean(state.annotation.pk);
    const review = isSubmitted ? state.store.task?.dataObj?.review : "";
    const unsure = least && least.score < 0.9 ? TEXT.uncertain(least.labels[0], least.score) : "";
    const [why, help] = bar.querySelectorAll("span");
    write(why, isSubmitted ? "" : TEXT.why[whyThisPhoto(state)] ?? "");
    const megapixels = Math.round((state.photo.naturalWidth * state.photo.naturalHeight) / 1e6);
    const large = megapixels >= LARGE_MEGAPIXELS ? TEXT.large(megapixels) : "";
    write(help, [picked(state) ? TEXT.help : "", review || unsure, large].filter(Boolean).join("  ·  "));
  }

  // What the queue chose the photo for, as its predicted regions say. A prediction without regions says nothing about
  // the model; its photo was chosen at random.
  function whyThisPhoto({ store, annotation }) {
    const results = [annotation, ...store.annotationStore.predictions].flatMap((one) => [...one.results]);
    const stated = results.map((result) => result.meta?.why).find(Boolean);
    return stated ?? (store.annotationStore.predictions.length && !results.length ? "random" : "");
  }

  function write(shown, text) {
    if (shown.textContent !== text) shown.textContent = text;
  }

  // --- nothing is lost, and smart tools are on ------------------------------------------------------------------

  function watch(state) {
    if (state.store._autoAnnotation === false) state.store.setAutoAnnotation?.(true);
    if (watched === state.annotation) return;
    watched = state.annotation;
    sequences.clear();
    watched.history.onUpdate?.(saveSoon);
    watched.areas?.$treenode?.onSnapshot?.(saveSoon);
  }

  // Label Studio saves a draft some seconds after a change; whoever closes the page before that would lose it.
  function saveSoon() {
    clearTimeout(saving);
    saving = setTimeout(() => editor()?.annotation.saveDraftImmediately?.(), SAVE_AFTER_MS);
  }

  function saveNow() {
    clearTimeout(saving);
    editor()?.annotation.saveDraftImmediately?.();
  }

  function tick() {
    const state = editor();
    if (!state) return;
    watch(state);
    showMasks(state);
    showKeys(state);
    showBar(state);
  }

  // A fault of this script must never cost the stock editor.
  const guarded = (handler) => (event) => {
    try {
      handler(event);
    } catch (error) {
      drag?.box?.remove();
      drag = null;
      console.error("maskloop", error);
    }
  };

  for (const [name, handler] of [
    ["mousedown", pressed], ["mousemove", moved], ["mouseup", released], ["click", clicked], ["dblclick", clicked],
    ["keydown", keyed],
  ])
    window.addEventListener(name, guarded(handler), true);
  window.addEventListener("keyup", (event) => held.delete(event.key), true);
  window.addEventListener("blur", () => held.clear());
  window.addEventListener("pagehide", guarded(saveNow));
  document.addEventListener("visibilitychange", () => document.hidden && guarded(saveNow)());
  setInterval(guarded(tick), 500);
})();
