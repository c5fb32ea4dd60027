"use strict";
// Makes a player of every film: agent, imagined end and goal from one sheet of pictures, with a button and a slider.
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const FRAME_MS = 80;

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function player(figure, sheet) {
  const film = JSON.parse(figure.dataset.film);
  const { width, height } = film, gap = Math.max(1, Math.round(width / 32)), last = film.steps.length - 1;
  const canvas = element("canvas", { width: 3 * width + 2 * gap, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${figure.dataset.name}: agent, imagined end and goal`);
  const button = element("button", { type: "button" });
  const slider = element("input", { type: "range", min: 0, max: last, value: 0 });
  slider.setAttribute("aria-label", `frame of ${figure.dataset.name}`);
  const output = element("output", {});
  const names = element("div", { className: "names", ariaHidden: "true" });
  names.append(...["agent", "imagined end", "goal"].map((text) => element("span", { textContent: text })));
  const controls = element("div", { className: "controls" });
  controls.append(button, slider, output);
  const whole = element("div", { className: "player" });
  whole.append(names, canvas, controls);

  const pen = canvas.getContext("2d");
  let timer = null;

  function show(frame) {
    [film.agent[frame], film.imagined[frame], film.goal].forEach((cell, place) => {
      const x = (cell % film.columns) * width, y = Math.floor(cell / film.columns) * height;
      pen.drawImage(sheet, x, y, width, height, place * (width + gap), 0, width, height);
    });
    slider.value = frame;
    output.textContent = `step ${film.steps[frame]}`;
    canvas.dataset.drawn = frame;
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    button.setAttribute("aria-label", `play ${figure.dataset.name}`);
  }

  function play() {
    if (Number(slider.value) === last) show(0);
    button.textContent = "Pause";
    button.setAttribute("aria-label", `pause ${figure.dataset.name}`);
    timer = setInterval(() => (Number(slider.value) === last ? stop() : show(Number(slider.value) + 1)), FRAME_MS);
  }

  button.addEventListener("click", () => (timer === null ? play() : stop()));
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  stop();
  show(0);
  figure.prepend(whole);
  figure.classList.add("playable");
  if (calm.matches) return;
  const seen = new IntersectionObserver((entries) => {  // plays once, when it is looked at for the first time
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    if (timer === null && Number(slider.value) === 0) play();
  }, { threshold: 0.8 });
  seen.observe(canvas);
}

document.querySelectorAll("figure.film").forEach((figure) => {
  const sheet = new Image();
  sheet.addEventListener("load", () => player(figure, sheet));
  sheet.src = figure.querySelector("image").getAttribute("href");
});
